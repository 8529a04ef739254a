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


class AuthError(DriverError):
    """The provider does not accept the credentials, or they have expired."""


class QuotaError(DriverError):
    """The provider has no more of it for this account: limits, capacity, balance."""


class InvalidError(DriverError):
    """The provider refuses what was asked for: no such size, image, region; bad value."""


class GoneError(DriverError):
    """The provider does not know the thing (any more, or not yet)."""


class ConflictError(DriverError):
    """The thing exists already, or is in a state that does not allow this now."""


class TransientError(DriverError):
    """Worth another try: 429, 5xx, a time-out, a connection that broke.

    The call may have been carried out. `retry_after` is what the provider asked for, in seconds.
    """

    def __init__(self, message: str, *, hint: str = "", retry_after: float = 0.0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class WaitTimeoutError(DriverError):
    """`polling.wait_until` gave up; `last` is what the last attempt said."""

    def __init__(self, what: str, seconds: float, last: str) -> None:
        tail = f": {last}" if last else ""
        super().__init__(f"{what} did not happen within {seconds:.0f} s{tail}")
        self.last = last
