"""What stops a server: SGLang logs and forgets a plug-in's exceptions while it starts, but not SystemExit."""

from __future__ import annotations


class SetupError(RuntimeError):
    """The plug-in cannot do what it was switched on for. Says what, where, and what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"smoe_sglang: {message}\nhint: {hint}")
