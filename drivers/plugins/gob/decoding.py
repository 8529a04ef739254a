"""gob to Python, from a source that gives bytes in any portions; everything it asks is bounded."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Protocol

from drivers.plugins.gob.model import (
    FIRST_FREE,
    LIMITS,
    Concrete,
    EndOfStreamError,
    GobError,
    Limits,
)
from drivers.plugins.gob.wiretypes import KNOWN, OPAQUE_AS, WIRE_TYPE, Form


class Source(Protocol):
    """Where bytes come from."""

    def read(self, most: int) -> bytes:
        """1 to `most` bytes, waiting for them; b"" at the end."""


class Decoder:
    """Reads one stream. Type definitions last as long as it does."""

    def __init__(self, source: Source, limits: Limits = LIMITS) -> None:
        self._source = source
        self._limits = limits
        self._forms: dict[int, Form] = {}
        self._data = b""  # the message that is being read
        self._at = 0
        self._taken = 0  # bytes of all messages of the value that is being read

    def next(self) -> object:
        """The next value. Raises EndOfStreamError between values, GobError for what is none.

        After an error the stream is of no use any more.
        """
        self._taken = 0
        ident = self._typed(inside=False)
        value = self._top(ident, self._limits.depth)
        if self._at != len(self._data):
            raise GobError("there is more in the message than its value")
        return value

    # -- messages and types

    def _typed(self, *, inside: bool) -> int:
        """Take type definitions until a value's type comes; its id.

        In an interface (`inside`) a definition ends a portion of the message, and the length of
        the next portion stands before what follows.
        """
        first = not inside
        while True:
            if self._at == len(self._data):
                self._message(first=first)
                first = False
            ident = self._int()
            if ident >= 0:
                return ident
            self._define(-ident)
            if self._at < len(self._data):
                if not inside:
                    raise GobError("there is more in the message than a type")
                self._uint()

    def _message(self, *, first: bool) -> None:
        size = self._length(first=first)
        if not 0 < size <= self._limits.message:
            raise GobError(f"a message of {size} bytes")
        self._taken += size  # each interface inside a value may go on in another message
        if self._taken > self._limits.value:
            raise GobError(f"a value of more than {self._limits.value} bytes")
        portions = []
        while size:
            portion = self._source.read(size)
            if not portion:
                raise GobError("the stream ends inside a message")
            portions.append(portion)
            size -= len(portion)
        self._data, self._at = b"".join(portions), 0

    def _length(self, *, first: bool) -> int:
        """A count that stands in the stream itself, so byte by byte."""
        lead = self._source.read(1)
        if not lead:
            if first:
                raise EndOfStreamError("the stream has ended")
            raise GobError("the stream ends inside a value")
        if lead[0] < 128:
            return lead[0]
        rest = b""
        for _ in range(_extra(lead[0])):
            byte = self._source.read(1)
            if not byte:
                raise GobError("the stream ends inside a length")
            rest += byte
        return int.from_bytes(rest, "big")

    def _define(self, ident: int) -> None:
        if ident < FIRST_FREE or ident in self._forms:
            raise GobError(f"type {ident} can't be defined")
        if len(self._forms) >= self._limits.types:
            raise GobError(f"more than {self._limits.types} types")
        described = self._struct(KNOWN[WIRE_TYPE], self._limits.depth)
        self._forms[ident] = _form(ident, described, self._limits)

    def _form_of(self, ident: int) -> Form:
        # The describing types describe; they are no values.
        found = self._forms.get(ident) or (KNOWN.get(ident) if ident < WIRE_TYPE else None)
        if found is None:
            raise GobError(f"type {ident} is not defined")
        return found

    # -- values

    def _top(self, ident: int, depth: int) -> object:
        """A value that is not inside another of its stream: all but structs have a 0 before."""
        form = self._form_of(ident)
        if form.kind != "struct" and self._uint() != 0:
            raise GobError("a value without its mark")
        return self._value(form, depth)

    def _value(self, form: Form, depth: int) -> object:
        if depth <= 0:
            raise GobError(f"nested deeper than {self._limits.depth}")
        if form.kind == "basic":
            return self._interface(depth) if form.ident == 8 else self._basic(form.ident)
        if form.kind == "struct":
            return self._struct(form, depth)
        if form.kind == "map":
            return self._map(form, depth)
        if form.kind == "opaque":
            return self._basic(OPAQUE_AS)
        return self._list(form, depth)

    def _basic(self, ident: int) -> object:
        readers: dict[int, Callable[[], object]] = {
            1: self._bool,
            2: self._int,
            3: self._uint,
            4: self._float,
            5: self._bytes,
            6: self._string,
            7: lambda: complex(self._float(), self._float()),
        }
        return readers[ident]()

    def _struct(self, form: Form, depth: int) -> dict[str, object]:
        out: dict[str, object] = {}
        number = -1
        while delta := self._uint():
            number += delta
            if number >= len(form.fields):
                raise GobError(f"a struct of {len(form.fields)} fields has no field {number}")
            name, ident = form.fields[number]
            inner = KNOWN.get(ident) if form.ident < FIRST_FREE else self._form_of(ident)
            if inner is None:
                raise GobError(f"type {ident} is not defined")
            out[name] = self._value(inner, depth - 1)
        return out

    def _map(self, form: Form, depth: int) -> dict[object, object]:
        count = self._count(2)
        key, element = self._form_of(form.key), self._form_of(form.element)
        if key.kind not in {"basic", "opaque"} or key.ident == 8:
            raise GobError("keys of maps are basic types")
        out: dict[object, object] = {}
        for _ in range(count):
            one = self._value(key, depth - 1)
            out[one] = self._value(element, depth - 1)
        return out

    def _list(self, form: Form, depth: int) -> list[object]:
        count = self._count(1)
        if form.kind == "array" and count != form.length:
            raise GobError(f"an array of {form.length} with {count} elements")
        element = KNOWN.get(form.element) if form.ident < FIRST_FREE else None
        element = element or self._form_of(form.element)
        return [self._value(element, depth - 1) for _ in range(count)]

    def _interface(self, depth: int) -> Concrete | None:
        size = self._uint()
        if size == 0:
            return None
        if size > self._limits.name:
            raise GobError(f"a type's name of {size} bytes")
        name = self._text(self._take(size))
        ident = self._typed(inside=True)
        self._uint()  # how much to skip for a reader that does not know the type; we always do
        return Concrete(name, self._top(ident, depth - 1))

    # -- the smallest parts

    def _take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise GobError("a value ends behind its message")
        portion = self._data[self._at : self._at + size]
        self._at += size
        return portion

    def _count(self, least: int) -> int:
        """Each element is `least` bytes or more, so a count that lies is seen before it costs."""
        count = self._uint()
        if count * least > len(self._data) - self._at:
            raise GobError(f"{count} elements in {len(self._data) - self._at} bytes")
        return count

    def _uint(self) -> int:
        lead = self._take(1)[0]
        return lead if lead < 128 else int.from_bytes(self._take(_extra(lead)), "big")

    def _int(self) -> int:
        number = self._uint()
        return ~(number >> 1) if number & 1 else number >> 1

    def _bool(self) -> bool:
        number = self._uint()
        if number > 1:
            raise GobError(f"a bool of {number}")
        return number == 1

    def _float(self) -> float:
        # the eight bytes come reversed, so that their usual zeros are leading ones
        (value,) = struct.unpack("<d", self._uint().to_bytes(8, "big"))
        return float(value)

    def _bytes(self) -> bytes:
        return self._take(self._uint())

    def _string(self) -> str:
        return self._text(self._bytes())

    def _text(self, data: bytes) -> str:
        """Go's strings are any bytes; what is no UTF-8 is kept and can be sent back."""
        return data.decode("utf-8", "surrogateescape")


def _extra(lead: int) -> int:
    """How many bytes a number of more than one byte has after its first."""
    size = 256 - lead
    if size > 8:
        raise GobError(f"a number of {size} bytes")
    return size


def _form(ident: int, described: dict[str, object], limits: Limits) -> Form:
    """A definition (the struct wireType) as what decoding needs of it."""
    if len(described) != 1:
        raise GobError("a type is one of array, slice, struct and map")
    ((kind, body),) = described.items()
    if not isinstance(body, dict):
        raise GobError("a type without its description")
    common = body.get("CommonType")
    if isinstance(common, dict) and len(str(common.get("Name", ""))) > limits.name:
        raise GobError("a type's name is too long")
    if kind == "StructT":
        return Form("struct", ident, fields=_fields(body.get("Field")))
    if kind == "ArrayT":
        return Form("array", ident, element=_ident(body, "Elem"), length=_ident(body, "Len"))
    if kind == "SliceT":
        return Form("slice", ident, element=_ident(body, "Elem"))
    if kind == "MapT":
        return Form("map", ident, element=_ident(body, "Elem"), key=_ident(body, "Key"))
    return Form("opaque", ident)


def _fields(listed: object) -> tuple[tuple[str, int], ...]:
    entries = listed if isinstance(listed, list) else []
    return tuple((str(entry.get("Name", "")), _ident(entry, "Id")) for entry in entries)


def _ident(body: dict[str, object], key: str) -> int:
    value = body.get(key, 0)
    return value if isinstance(value, int) else 0
