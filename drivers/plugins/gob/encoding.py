"""Python to gob. Types are sent before the first value that needs them, each once a stream."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence

from drivers.plugins.gob.model import (
    FIRST_FREE,
    INTERFACE,
    Array,
    Basic,
    Concrete,
    GobError,
    Map,
    Slice,
    Struct,
    Type,
)


class Encoder:
    """Writes one stream: remembers which types the other side knows already."""

    def __init__(self) -> None:
        self._idents: dict[Type, int] = {}
        self._sent: set[Type] = set()

    def encode(self, kind: Type, value: object) -> bytes:
        """`value` as a message of its own, after the definitions that are new to the stream.

        Raises GobError when the value is not of that type.
        """
        out = bytearray()
        for needed in _types(kind, value):
            if not isinstance(needed, Basic) and needed not in self._sent:
                self._sent.add(needed)
                out += self._definition(needed)
        out += _delimited(_int(self._ident(kind)) + self._top(kind, value))
        return bytes(out)

    # -- types

    def _ident(self, kind: Type) -> int:
        if isinstance(kind, Basic):
            return kind.ident
        if kind not in self._idents:
            self._idents[kind] = FIRST_FREE + len(self._idents)
        return self._idents[kind]

    def _definition(self, kind: Type) -> bytes:
        """The message that defines `kind`: its negative id and a struct wireType."""
        ident = self._ident(kind)
        if isinstance(kind, Struct):
            fields = [_text_field(name) + self._id_field(inner) for name, inner in kind.fields]
            listed = b"\x01" + _uint(len(fields)) + b"".join(f + b"\x00" for f in fields)
            place, body = 2, _common(kind.name, ident) + (listed if fields else b"")
        elif isinstance(kind, Map):
            inner_ids = self._id_field(kind.key) + self._id_field(kind.element)
            place, body = 3, _common("", ident) + inner_ids
        elif isinstance(kind, Array):
            length = b"\x01" + _int(kind.length) if kind.length else b""
            place, body = 0, _common("", ident) + self._id_field(kind.element) + length
        elif isinstance(kind, Slice):
            place, body = 1, _common("", ident) + self._id_field(kind.element)
        else:
            raise GobError(f"{kind.name} is known to all")
        return _delimited(_int(-ident) + _uint(place + 1) + body + b"\x00\x00")

    def _id_field(self, kind: Type) -> bytes:
        return b"\x01" + _int(self._ident(kind))

    # -- values

    def _top(self, kind: Type, value: object) -> bytes:
        body = self._value(kind, value)
        return body if isinstance(kind, Struct) else b"\x00" + body

    def _value(self, kind: Type, value: object) -> bytes:
        if isinstance(kind, Struct):
            return self._struct(kind, value)
        if isinstance(kind, Map):
            if not isinstance(value, Mapping):
                raise GobError(f"{type(value).__name__} is no map")
            pairs = [
                self._value(kind.key, k) + self._value(kind.element, v) for k, v in value.items()
            ]
            return _uint(len(pairs)) + b"".join(pairs)
        if isinstance(kind, Array | Slice):
            listed = _listed(kind, value)
            return _uint(len(listed)) + b"".join(self._value(kind.element, v) for v in listed)
        return self._interface(value) if kind == INTERFACE else _basic(kind, value)

    def _struct(self, kind: Struct, value: object) -> bytes:
        if not isinstance(value, Mapping):
            raise GobError(f"{type(value).__name__} is no struct")
        if set(value) - {name for name, _ in kind.fields}:
            raise GobError(f"{kind.name} has no such fields: {sorted(value)}")
        out, last = bytearray(), -1
        for number, (name, inner) in enumerate(kind.fields):
            if name in value and not _omitted(inner, value[name]):
                out += _uint(number - last) + self._value(inner, value[name])
                last = number
        return bytes(out) + b"\x00"

    def _interface(self, value: object) -> bytes:
        if value is None:
            return b"\x00"
        if not isinstance(value, Concrete) or value.type is None:
            raise GobError("an interface holds a Concrete with its type")
        name = value.name.encode()
        body = _delimited(self._top(value.type, value.value))
        return _uint(len(name)) + name + _int(self._ident(value.type)) + body


def _types(kind: Type, value: object) -> Iterator[Type]:
    """Every type that `value` needs, its interfaces' contents included."""
    yield kind
    if isinstance(kind, Struct):
        for name, inner in kind.fields:
            held = value.get(name) if isinstance(value, Mapping) else None
            yield from _types(inner, held)
    elif isinstance(kind, Map):
        yield kind.key
        yield from _types(kind.element, None)
        for held in value.values() if isinstance(value, Mapping) else ():
            yield from _types(kind.element, held)
    elif isinstance(kind, Array | Slice):
        yield from _types(kind.element, None)
        for held in value if isinstance(value, list | tuple) else ():
            yield from _types(kind.element, held)
    elif isinstance(value, Concrete) and value.type is not None and kind == INTERFACE:
        yield from _types(value.type, value.value)


def _omitted(kind: Type, value: object) -> bool:
    """Whether a struct's field is left out: zero values are, but for arrays, structs and maps."""
    if isinstance(kind, Slice):
        return not value
    if isinstance(kind, Basic):
        return value is None or (kind != INTERFACE and not value)
    return value is None


def _listed(kind: Array | Slice, value: object) -> Sequence[object]:
    if not isinstance(value, list | tuple):
        raise GobError(f"{type(value).__name__} is no list")
    if isinstance(kind, Array) and len(value) != kind.length:
        raise GobError(f"an array of {kind.length} with {len(value)} elements")
    return value


def _basic(kind: Basic, value: object) -> bytes:
    expected, write = _BASIC[kind.ident]
    is_flag = isinstance(value, bool) and expected is not bool
    if not isinstance(value, expected) or is_flag:
        raise GobError(f"{type(value).__name__} is no {kind.name}")
    return write(value)


def _common(name: str, ident: int) -> bytes:
    """The struct CommonType as the first field of what it is embedded in."""
    return b"\x01" + (_text_field(name) + b"\x01" if name else b"\x02") + _int(ident) + b"\x00"


def _text_field(text: str) -> bytes:
    data = text.encode()
    return b"\x01" + _uint(len(data)) + data


def _delimited(body: bytes) -> bytes:
    return _uint(len(body)) + body


def _uint(number: int) -> bytes:
    if not 0 <= number < 1 << 64:
        raise GobError(f"{number} has no 64 bits without sign")
    if number < 128:
        return bytes([number])
    size = (number.bit_length() + 7) // 8
    return bytes([256 - size]) + number.to_bytes(size, "big")


def _int(number: int) -> bytes:
    if not -(1 << 63) <= number < 1 << 63:
        raise GobError(f"{number} has no 64 bits")
    return _uint(~number << 1 | 1 if number < 0 else number << 1)


def _float(number: float) -> bytes:
    return _uint(int.from_bytes(struct.pack("<d", number), "big"))


def _counted(data: bytes) -> bytes:
    return _uint(len(data)) + data


_BASIC: dict[int, tuple[type, Callable[..., bytes]]] = {
    1: (bool, lambda flag: _uint(int(flag))),
    2: (int, _int),
    3: (int, _uint),
    4: (float, _float),
    5: (bytes, _counted),
    6: (str, lambda text: _counted(text.encode("utf-8", "surrogateescape"))),
    7: (complex, lambda number: _float(number.real) + _float(number.imag)),
}
