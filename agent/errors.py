"""The engine's only exception vocabulary: a closed set of kinds and one error class.

The kinds name what went wrong, never how it is shown: the map from a kind to an HTTP status is at
the edge (`agent.wire.status`). Messages follow Docker Engine's wording, since clients and scripts
match on them.
"""

from __future__ import annotations

import enum


class Kind(enum.Enum):
    """What went wrong. The set is closed: adding one means adding its row in `agent.wire.status`."""

    NOT_MODIFIED = "not modified"  # the wanted state already holds (start of a started container)
    INVALID = "invalid parameter"
    UNAUTHORIZED = "unauthorized"  # a registry or peer wants (other) credentials
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not found"
    METHOD_NOT_ALLOWED = "method not allowed"
    NOT_ACCEPTABLE = "not acceptable"
    TIMEOUT = "timeout"  # the client was too slow
    CONFLICT = "conflict"
    TOO_LARGE = "too large"
    HEADERS_TOO_LARGE = "headers too large"
    INTERNAL = "internal"
    NOT_IMPLEMENTED = "not implemented"
    UNAVAILABLE = "unavailable"
    DEADLINE = "deadline exceeded"  # something the engine waited for was too slow
    CANCELLED = "cancelled"  # the client went away, or the engine is stopping
    NO_SPACE = "no space left"
    DATA_LOSS = "data loss"  # stored content does not match its digest


class EngineError(Exception):
    """A failure that a client is told about.

    `kind` decides the status, `message` is shown as it is: it must hold no secret and no stack
    trace. Raise it `from` the cause where there is one; the cause is only logged.
    """

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.kind.name}, {self.message!r})"


def not_modified(message: str = "") -> EngineError:
    return EngineError(Kind.NOT_MODIFIED, message)


def invalid(message: str) -> EngineError:
    return EngineError(Kind.INVALID, message)


def unauthorized(message: str) -> EngineError:
    return EngineError(Kind.UNAUTHORIZED, message)


def forbidden(message: str) -> EngineError:
    return EngineError(Kind.FORBIDDEN, message)


def not_found(message: str) -> EngineError:
    return EngineError(Kind.NOT_FOUND, message)


def method_not_allowed(message: str) -> EngineError:
    return EngineError(Kind.METHOD_NOT_ALLOWED, message)


def not_acceptable(message: str) -> EngineError:
    return EngineError(Kind.NOT_ACCEPTABLE, message)


def timeout(message: str) -> EngineError:
    return EngineError(Kind.TIMEOUT, message)


def conflict(message: str) -> EngineError:
    return EngineError(Kind.CONFLICT, message)


def too_large(message: str) -> EngineError:
    return EngineError(Kind.TOO_LARGE, message)


def headers_too_large(message: str) -> EngineError:
    return EngineError(Kind.HEADERS_TOO_LARGE, message)


def internal(message: str) -> EngineError:
    return EngineError(Kind.INTERNAL, message)


def not_implemented(message: str) -> EngineError:
    return EngineError(Kind.NOT_IMPLEMENTED, message)


def unavailable(message: str) -> EngineError:
    return EngineError(Kind.UNAVAILABLE, message)


def deadline_exceeded(message: str) -> EngineError:
    return EngineError(Kind.DEADLINE, message)


def cancelled(message: str) -> EngineError:
    return EngineError(Kind.CANCELLED, message)


def no_space(message: str) -> EngineError:
    return EngineError(Kind.NO_SPACE, message)


def data_loss(message: str) -> EngineError:
    return EngineError(Kind.DATA_LOSS, message)
