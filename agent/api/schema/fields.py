"""Reading JSON as Go's encoding/json does, by declarative tables of fields.

Keys are matched without regard to case, the last of several wins, null leaves the zero value, a
wrong type is an INVALID EngineError that names the field, and an unknown key is ignored.  Each row
says whether the field is served: one that is not may only have its zero value (the docker CLI
sends those always); anything else is refused by name, never dropped silently.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from agent.errors import EngineError, invalid, not_implemented
from agent.values import frozen
from agent.wire.http import printable

log = logging.getLogger(__name__)

T = TypeVar("T")

Document = dict[str, object]
Reader = Callable[[object, str], object]  # (value, never None; where) -> decoded

INT64: Final = 2**63


def wrong_type(value: object, where: str, wanted: str) -> EngineError:
    """Go's text for a JSON value that doesn't fit its field."""
    return invalid(
        f"invalid JSON: json: cannot unmarshal {json_kind(value)} into Go struct field "
        f"{printable(where)} of type {wanted}"
    )


def json_kind(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, (int, float)):
        return "number"
    return "array" if isinstance(value, list) else "object"


def text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise wrong_type(value, where, "string")
    if "\x00" in value:
        raise invalid(f"invalid value for {where}: NUL character")
    return value


def boolean(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise wrong_type(value, where, "bool")
    return value


def integer(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -INT64 <= value < INT64:
        raise wrong_type(value, where, "int64")
    return value


def array_of(item: Callable[[object, str], T]) -> Callable[[object, str], tuple[T, ...]]:
    """A JSON array whose elements `item` reads; null elements are their zero value "" only
    for texts, and refused otherwise."""

    def read(value: object, where: str) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise wrong_type(value, where, "[]")
        return tuple(item(_element(one, where), where) for one in value)

    return read


def _element(value: object, where: str) -> object:
    if value is None:
        raise invalid(f"invalid JSON: null element in {where}")
    return value


texts: Final = array_of(text)
integers: Final = array_of(integer)


def map_of(item: Callable[[object, str], T]) -> Callable[[object, str], dict[str, T]]:
    def read(value: object, where: str) -> dict[str, T]:
        if not isinstance(value, dict):
            raise wrong_type(value, where, "map[string]")
        return {
            text(key, where): item("" if one is None and item is text else one, where)
            for key, one in value.items()
        }

    return read


text_map: Final = map_of(text)


def key_set(value: object, where: str) -> tuple[str, ...]:
    """{"80/tcp": {}}: the keys; the values must be objects."""
    if not isinstance(value, dict):
        raise wrong_type(value, where, "map[string]struct {}")
    for one in value.values():
        if one is not None and not isinstance(one, dict):
            raise wrong_type(one, where, "struct {}")
    return tuple(text(key, where) for key in value)


def text_or_texts(value: object, where: str) -> tuple[str, ...]:
    """Go's strslice: "ls" or ["ls", "-l"]."""
    return (text(value, where),) if isinstance(value, str) else texts(value, where)


def anything(value: object, _where: str) -> object:
    return value


@frozen(slots=True)
class Field:
    """One field of a definition of the API.

    `attribute`: its name in the dataclass, "" when it has none (checked, then kept only in the
    given document).  `served` False: only zero values pass, and those that `harmless` admits.
    """

    name: str
    read: Reader
    attribute: str = ""
    served: bool = True
    harmless: tuple[object, ...] = ()


def unserved(name: str, *harmless: object) -> Field:
    return Field(name, anything, served=False, harmless=harmless)


@frozen
class Table:
    """All fields of one definition of the specification, in its order."""

    definition: str
    fields: tuple[Field, ...]

    def canonical(self, value: object, where: str = "") -> Document:
        """The object with the specification's spelling of keys; unknown and null ones left out."""
        where = where or self.definition
        if not isinstance(value, dict):
            raise wrong_type(value, where, self.definition)
        names = {field.name.lower(): field.name for field in self.fields}
        exact = {field.name for field in self.fields}
        found: Document = {}
        for key, one in value.items():
            name = key if key in exact else names.get(key.lower())
            if name is None:
                log.debug("ignored unknown field %s of %s", printable(key), where)
            elif one is not None:
                found[name] = one
        return found

    def decode(self, value: object, where: str = "") -> dict[str, object]:
        """Attribute -> decoded value, of the fields that were given."""
        where = where or self.definition
        document = self.canonical(value, where)
        decoded: dict[str, object] = {}
        for field in self.fields:
            if field.name not in document:
                continue
            given = document[field.name]
            path = f"{where}.{field.name}"
            if not field.served:
                refuse_unless_zero(given, path, field.harmless)
                continue
            result = field.read(given, path)
            if field.attribute:
                decoded[field.attribute] = result
        return decoded


def built(kind: Callable[..., T], attributes: Mapping[str, object]) -> T:
    """The dataclass of decoded attributes; their types are the tables' word."""
    return kind(**attributes)


def is_zero(value: object) -> bool:
    """Go's zero value, or nothing but zero values within."""
    if isinstance(value, Mapping):
        return all(is_zero(one) for one in value.values())
    if isinstance(value, list):
        return all(is_zero(one) for one in value)
    return value is None or value is False or value in ("", 0)


def refuse_unless_zero(value: object, path: str, harmless: tuple[object, ...] = ()) -> None:
    """Raises EngineError (INVALID) that names the field."""
    if is_zero(value) or any(value == one for one in harmless):
        return
    raise refused(path)


def refused(what: str) -> EngineError:
    """A part of a request that can't be honoured: the client's to change, so a 400."""
    return invalid(f"{printable(what)} is not served by this engine yet")


def not_served(what: str) -> EngineError:
    return not_implemented(f"{printable(what)} is not served by this engine yet")
