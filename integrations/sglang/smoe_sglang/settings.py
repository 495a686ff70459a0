"""The plug-in's settings: environment variables, since SGLang hands a plug-in no arguments and every process inherits them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .errors import SetupError


@dataclass(frozen=True)
class Settings:
    """plan: file of a plan with prediction tables. owner_first: whether copies of experts serve as the plan counts them.
    load_bound: requests by which a rank may be ahead of the least loaded one."""

    plan: str
    owner_first: bool
    shuffle: bool
    collectives: str
    requests: bool
    load_bound: int
    any_version: bool

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings | None:
        """None while switched off, which is the default."""
        if not _flag(environment, "SMOE_SGLANG", False):
            return None
        plan = environment.get("SMOE_SGLANG_PLAN", "")
        if not plan:
            raise SetupError("SMOE_SGLANG=1 but no plan", "set SMOE_SGLANG_PLAN to a file that `smoe plan` wrote")
        collectives = environment.get("SMOE_SGLANG_COLLECTIVES", "library")
        if collectives not in ("library", "shared"):
            raise SetupError(f"SMOE_SGLANG_COLLECTIVES={collectives}", "set it to library (the default) or shared")
        bound = environment.get("SMOE_SGLANG_LOAD_BOUND", "8")
        if not bound.isdecimal():
            raise SetupError(f"SMOE_SGLANG_LOAD_BOUND={bound}", "set it to a number of requests, 0 or more")
        return cls(
            plan=plan,
            owner_first=_flag(environment, "SMOE_SGLANG_OWNER_FIRST", True),
            shuffle=_flag(environment, "SMOE_SGLANG_SHUFFLE", True),
            collectives=collectives,
            requests=_flag(environment, "SMOE_SGLANG_REQUESTS", True),
            load_bound=int(bound),
            any_version=_flag(environment, "SMOE_SGLANG_ANY_VERSION", False),
        )


def _flag(environment: Mapping[str, str], name: str, default: bool) -> bool:
    value = environment.get(name, "")
    if value not in ("", "0", "1"):
        raise SetupError(f"{name}={value}", "set it to 1 or 0")
    return default if value == "" else value == "1"
