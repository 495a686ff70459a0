"""The one error a user of this package meets; mirrors src/errors.ts."""

from __future__ import annotations


class SmoeError(RuntimeError):
    """`code` is stable and machine-readable, the message says what was wrong and where, `hint` what to do about it."""

    def __init__(self, code: str, message: str, hint: str | None = None):
        super().__init__(f"{code}: {message}" + (f" (hint: {hint})" if hint else ""))
        self.code = code
        self.hint = hint
