"""What both directions share: types, the value of an interface, limits, errors."""

from __future__ import annotations

import dataclasses
from typing import Final


class GobError(ValueError):
    """The stream, or a value to be sent, is no gob."""


class EndOfStreamError(GobError):
    """The source ended where a value might have begun."""


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What a stream may ask of its reader; far above what plugins send."""

    message: int = 1 << 20  # bytes
    value: int = 4 << 20  # bytes of all its messages
    depth: int = 32  # values inside values
    types: int = 256  # definitions on one stream
    name: int = 1024  # bytes of a type's name


LIMITS: Final = Limits()


@dataclasses.dataclass(frozen=True, slots=True)
class Basic:
    """A type that both sides know; its id is the specification's."""

    ident: int
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Array:
    """A fixed number of elements, all sent."""

    element: Type
    length: int


@dataclasses.dataclass(frozen=True, slots=True)
class Slice:
    """Any number of elements."""

    element: Type


@dataclasses.dataclass(frozen=True, slots=True)
class Map:
    """Keys and elements."""

    key: Type
    element: Type


@dataclasses.dataclass(frozen=True, slots=True)
class Struct:
    """Fields in the order of their declaration."""

    name: str
    fields: tuple[tuple[str, Type], ...] = ()


Type = Basic | Array | Slice | Map | Struct

BOOL: Final = Basic(1, "bool")
INT: Final = Basic(2, "int")
UINT: Final = Basic(3, "uint")
FLOAT: Final = Basic(4, "float64")
BYTES: Final = Basic(5, "[]uint8")
STRING: Final = Basic(6, "string")
COMPLEX: Final = Basic(7, "complex128")
INTERFACE: Final = Basic(8, "interface {}")
FIRST_FREE: Final = 65  # the first id that a stream may define


@dataclasses.dataclass(frozen=True, slots=True)
class Concrete:
    """What an interface holds: the registered name of its type, and the value.

    `type` is needed to send it, and None when it was received.
    """

    name: str
    value: object
    type: Type | None = None
