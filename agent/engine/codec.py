"""Frozen dataclasses <-> JSON documents, by their type hints; for persistence only.

The wire's documents are Docker-cased and lenient where Docker is; records are neither: field names
are ours, every field is written, and a field that this version does not know is refused (a record
of a newer agent must not lose what it says).  Converters are built once a class and cached.

Served types: bool, int, float, str, object (any JSON value), StrEnum, dataclasses, `X | None`,
`tuple[X, ...]`, `Mapping[str, X]`.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")
_Convert = Callable[[object], object]


class CodecError(ValueError):
    """A document does not fit its type; the message names the field."""


def dumps(value: object) -> str:
    """One compact JSON text of a dataclass instance."""
    encode = _encoder(type(value))
    return json.dumps(encode(value), separators=(",", ":"), ensure_ascii=False)


def loads(kind: type[T], text: str) -> T:
    """The instance that `dumps` wrote.  Raises CodecError."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise CodecError(f"not JSON: {error}") from error
    decoded = _decoder(kind)(document)
    if not isinstance(decoded, kind):
        raise CodecError(f"not a {kind.__name__}")
    return decoded


def _same(value: object) -> object:
    return value


_encoders: dict[object, _Convert] = {}
_decoders: dict[object, _Convert] = {}


def _encoder(kind: object) -> _Convert:
    found = _encoders.get(kind)
    if found is None:
        found = _encoders[kind] = _make_encoder(kind)
    return found


def _decoder(kind: object) -> _Convert:
    found = _decoders.get(kind)
    if found is None:
        found = _decoders[kind] = _make_decoder(kind)
    return found


def _make_encoder(kind: object) -> _Convert:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _encode_dataclass(kind)
    inner, optional = _optional(kind)
    if optional:
        encode_inner = _encoder(inner)
        return lambda value: None if value is None else encode_inner(value)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return _encode_tuple(_encoder(arguments[0]))
    if origin is Mapping:
        return _encode_mapping(_encoder(arguments[1]))
    if _plain(kind):
        return _same  # a StrEnum is a str to the JSON encoder
    raise TypeError(f"no codec for {kind!r}")


def _encode_tuple(convert: _Convert) -> _Convert:
    if convert is _same:
        return lambda value: list(typing.cast("tuple[object, ...]", value))
    return lambda value: [convert(one) for one in typing.cast("tuple[object, ...]", value)]


def _encode_mapping(convert: _Convert) -> _Convert:
    if convert is _same:
        return lambda value: dict(typing.cast("Mapping[str, object]", value))
    return lambda value: {
        key: convert(one) for key, one in typing.cast("Mapping[str, object]", value).items()
    }


def _encode_dataclass(kind: type) -> _Convert:
    hints = typing.get_type_hints(kind)
    rows = [(one.name, _encoder(hints[one.name])) for one in dataclasses.fields(kind)]

    def encode(value: object) -> object:
        return {name: convert(getattr(value, name)) for name, convert in rows}

    return encode


def _plain(kind: object) -> bool:
    return kind in {bool, int, float, str, object} or (
        isinstance(kind, type) and issubclass(kind, StrEnum)
    )


def _optional(kind: object) -> tuple[object, bool]:
    if typing.get_origin(kind) in {types.UnionType, typing.Union}:
        rest = [one for one in typing.get_args(kind) if one is not type(None)]
        if len(rest) == 1:
            return rest[0], True
    return kind, False


def _make_decoder(kind: object) -> _Convert:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind)
    inner, optional = _optional(kind)
    if optional:
        decode_inner = _decoder(inner)
        return lambda value: None if value is None else decode_inner(value)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return _decode_tuple(_decoder(arguments[0]))
    if origin is Mapping:
        return _decode_mapping(_decoder(arguments[1]))
    if kind is object:
        return _same
    if isinstance(kind, type):
        return _decode_scalar(kind)
    raise TypeError(f"no codec for {kind!r}")


def _decode_dataclass(kind: type) -> _Convert:
    hints = typing.get_type_hints(kind)
    rows = {one.name: _decoder(hints[one.name]) for one in dataclasses.fields(kind)}

    def decode(value: object) -> object:
        if not isinstance(value, dict):
            raise CodecError(f"{kind.__name__}: not an object")
        found: dict[str, object] = {}
        for name, one in value.items():
            convert = rows.get(name)
            if convert is None:
                raise CodecError(f"{kind.__name__}: unknown field {name!r}")
            try:
                found[name] = convert(one)
            except CodecError as error:
                raise CodecError(f"{kind.__name__}.{name}: {error}") from error
        try:
            return kind(**found)
        except TypeError as error:
            raise CodecError(f"{kind.__name__}: {error}") from error

    return decode


def _decode_tuple(convert: _Convert) -> _Convert:
    def decode(value: object) -> object:
        if not isinstance(value, list):
            raise CodecError("not a list")
        return tuple([convert(one) for one in value])

    return decode


def _decode_mapping(convert: _Convert) -> _Convert:
    def decode(value: object) -> object:
        if not isinstance(value, dict):
            raise CodecError("not an object")
        return {key: convert(one) for key, one in value.items()}

    return decode


def _decode_scalar(kind: type) -> _Convert:
    if issubclass(kind, StrEnum):

        def decode_enum(value: object) -> object:
            try:
                return kind(str(value))
            except ValueError as error:
                raise CodecError(str(error)) from error

        return decode_enum
    if kind not in {bool, int, float, str}:
        raise TypeError(f"no codec for {kind!r}")

    def decode(value: object) -> object:
        # type() and not isinstance: JSON's true must not pass for a number.
        if type(value) is not kind:
            raise CodecError(f"not {kind.__name__}: {value!r:.80}")
        return value

    return decode
