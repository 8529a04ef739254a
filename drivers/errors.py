"""What a driver raises. Nothing else may leave a driver's verbs."""

from __future__ import annotations


class DriverError(Exception):
    """A failure that the user is told about: what failed, and what to do (`hint`). No secrets."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class CannotError(DriverError):
    """The driver (or its provider) has no such ability."""


class WaitTimeoutError(DriverError):
    """`polling.wait_until` gave up; `last` is what the last attempt said."""

    def __init__(self, what: str, seconds: float, last: str) -> None:
        tail = f": {last}" if last else ""
        super().__init__(f"{what} did not happen within {seconds:.0f} s{tail}")
        self.last = last
