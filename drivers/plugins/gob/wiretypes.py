"""The types that describe types, with the ids that the specification gives them."""

from __future__ import annotations

import dataclasses
from typing import Final

from drivers.plugins.gob.model import BYTES


@dataclasses.dataclass(frozen=True, slots=True)
class Form:
    """A type as it stands on the wire: what it is made of, by ids.

    `kind` is "basic", "array", "slice", "map", "struct" or "opaque" (a type that encodes itself:
    its bytes are taken as they are).
    """

    kind: str
    ident: int
    element: int = 0
    key: int = 0
    length: int = 0
    fields: tuple[tuple[str, int], ...] = ()


WIRE_TYPE: Final = 16
_ARRAY, _COMMON, _SLICE, _STRUCT, _FIELD, _FIELDS, _MAP, _OPAQUE = 17, 18, 19, 20, 21, 22, 23, 24
_BOOL, _INT, _STRING, _INTERFACE = 1, 2, 6, 8

# What a stream knows before its first definition. The order of the fields is the specification's.
KNOWN: Final[dict[int, Form]] = {
    **{ident: Form("basic", ident) for ident in range(_BOOL, _INTERFACE + 1)},
    WIRE_TYPE: Form(
        "struct",
        WIRE_TYPE,
        fields=(
            ("ArrayT", _ARRAY),
            ("SliceT", _SLICE),
            ("StructT", _STRUCT),
            ("MapT", _MAP),
            ("GobEncoderT", _OPAQUE),
            ("BinaryMarshalerT", _OPAQUE),
            ("TextMarshalerT", _OPAQUE),
        ),
    ),
    _ARRAY: Form("struct", _ARRAY, fields=(("CommonType", _COMMON), ("Elem", _INT), ("Len", _INT))),
    _COMMON: Form("struct", _COMMON, fields=(("Name", _STRING), ("Id", _INT))),
    _SLICE: Form("struct", _SLICE, fields=(("CommonType", _COMMON), ("Elem", _INT))),
    _STRUCT: Form("struct", _STRUCT, fields=(("CommonType", _COMMON), ("Field", _FIELDS))),
    _FIELD: Form("struct", _FIELD, fields=(("Name", _STRING), ("Id", _INT))),
    _FIELDS: Form("slice", _FIELDS, element=_FIELD),
    _MAP: Form("struct", _MAP, fields=(("CommonType", _COMMON), ("Key", _INT), ("Elem", _INT))),
    _OPAQUE: Form("struct", _OPAQUE, fields=(("CommonType", _COMMON),)),
}
OPAQUE_AS: Final = BYTES.ident
