"""Registers hooks with SGLang's registry and proves that they took hold: the registry itself only logs a hook that did not."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import SetupError


@dataclass(frozen=True)
class Hook:
    """target: dotted path. kind: name in SGLang's HookType. parameters: what the target takes, as read in the pinned release."""

    target: str
    kind: str
    function: Callable
    parameters: tuple[str, ...]


def check_target(hook: Hook) -> None:
    """Raises unless the target exists with the expected parameters: before anything is changed."""
    owner_path, _, name = hook.target.rpartition(".")
    try:
        target = getattr(pkgutil.resolve_name(owner_path), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SetupError(f"{hook.target} cannot be hooked: {error}", "this SGLang is not the tested release") from error
    found = tuple(inspect.signature(target).parameters)
    if found != hook.parameters:
        raise SetupError(
            f"{hook.target} takes ({', '.join(found)}), not ({', '.join(hook.parameters)})", "this SGLang is not the tested release"
        )


def holds(hook: Hook) -> bool:
    """Whether calling the target now runs the hook: looks through the wrappers for it."""
    owner_path, _, name = hook.target.rpartition(".")
    layer: Any = getattr(pkgutil.resolve_name(owner_path), name)
    layer = getattr(layer, "__func__", layer)
    while layer is not None:
        cells = getattr(layer, "__closure__", None) or ()
        if any(cell.cell_contents is hook.function for cell in cells):
            return True
        layer = getattr(layer, "__wrapped__", None)
    return False


def register(hooks: list[Hook], registry: type, kinds: Any) -> None:
    """registry: SGLang's HookRegistry; kinds: its HookType.

    Other plug-ins may register after this one, and all hooks are applied together at the end: so the proof runs right after that.
    Exits the process if a hook did not take hold.
    """
    for hook in hooks:
        check_target(hook)
    for hook in hooks:
        registry.register(hook.target, hook.function, kinds[hook.kind])
    apply_all = registry.apply_hooks

    def apply_and_verify(_: type) -> None:
        apply_all()
        # Once: later calls are SGLang's own again.
        registry.apply_hooks = apply_all
        missing = [hook.target for hook in hooks if not holds(hook)]
        if missing:
            error = SetupError(
                f"hooks did not take hold on {', '.join(missing)}", "see the log above; switch the plug-in off with SMOE_SGLANG=0"
            )
            raise SystemExit(str(error))

    registry.apply_hooks = classmethod(apply_and_verify)
