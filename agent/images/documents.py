"""Strict JSON: bytes of an unknown author to typed values, or one clear error (case 25).

Refused: anything but UTF-8, a BOM, duplicate keys, NaN and Infinity, lone surrogates, integers
beyond 64 bits, more nesting than the parser's own limit, documents over the given size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from agent.errors import EngineError, invalid

MANIFEST_LIMIT = 4 << 20
CONFIG_LIMIT = 8 << 20
_TEXT_LIMIT = 1 << 20
_NUMBER_DIGITS = 20
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

Document = Mapping[str, object]


class BadDocumentError(ValueError):
    """What is wrong with a document; the caller knows which one it is."""


def refuse(what: str, error: ValueError) -> EngineError:
    """The client's error for a bad document called `what`."""
    return invalid(f"invalid {what}: {error}")


def decode(raw: bytes, limit: int) -> Document:
    """A JSON object.  Raises BadDocumentError; never RecursionError or UnicodeError."""
    if len(raw) > limit:
        raise BadDocumentError(f"larger than the limit of {limit} bytes")
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_pairs,
            parse_constant=_constant,
            parse_int=_integer,
        )
    except BadDocumentError:
        raise
    except RecursionError:
        raise BadDocumentError("nested too deep") from None
    except ValueError:  # UnicodeDecodeError and JSONDecodeError
        raise BadDocumentError("not valid JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise BadDocumentError("not a JSON object")
    if _SURROGATE.search(raw):
        _refuse_surrogates(value)
    return value


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadDocumentError("duplicate keys")
    return found


def _constant(name: str) -> object:
    raise BadDocumentError(f"{name} is not a JSON number")


def _integer(digits: str) -> int:
    if len(digits) > _NUMBER_DIGITS:
        raise BadDocumentError("number out of range")
    return int(digits)


def _refuse_surrogates(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise BadDocumentError("lone surrogate in a string") from None


def text(document: Document, key: str, default: str = "") -> str:
    """A string member; null and absence give the default."""
    value = document.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise BadDocumentError(f"{key} is not a string")
    if len(value) > _TEXT_LIMIT:
        raise BadDocumentError(f"{key} is too long")
    return value


def integer(document: Document, key: str, default: int | None = None) -> int:
    """An integer member in 0..2^63-1; without a default it has to be there."""
    value = document.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise BadDocumentError(f"{key} is not a size")
    return value


def mapping(document: Document, key: str) -> Document:
    """An object member; null and absence give an empty one."""
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadDocumentError(f"{key} is not an object")
    return value


def items(document: Document, key: str, limit: int) -> list[object]:
    """An array member; null and absence give an empty one."""
    value = document.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadDocumentError(f"{key} is not an array")
    if len(value) > limit:
        raise BadDocumentError(f"{key} has more than {limit} entries")
    return value


def objects(document: Document, key: str, limit: int) -> list[Document]:
    """An array of objects."""
    found: list[Document] = []
    for value in items(document, key, limit):
        if not isinstance(value, dict):
            raise BadDocumentError(f"{key} has an entry that is not an object")
        found.append(value)
    return found


def texts(document: Document, key: str, limit: int = 65536) -> tuple[str, ...]:
    """An array of strings."""
    found: list[str] = []
    for value in items(document, key, limit):
        if not isinstance(value, str):
            raise BadDocumentError(f"{key} has an entry that is not a string")
        found.append(value)
    return tuple(found)


def text_map(document: Document, key: str) -> dict[str, str]:
    """An object of strings."""
    found: dict[str, str] = {}
    for name, value in mapping(document, key).items():
        if not isinstance(value, str):
            raise BadDocumentError(f"{key} has a value that is not a string")
        found[name] = value
    return found
