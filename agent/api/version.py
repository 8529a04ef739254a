"""API versions: what is spoken, and how a client's wish is read from the path."""

from __future__ import annotations

import re
from typing import Final

from agent.errors import invalid, not_found

Version = tuple[int, ...]

CURRENT: Final[Version] = (1, 51)
MINIMUM: Final[Version] = (1, 24)
CURRENT_TEXT: Final = "1.51"
MINIMUM_TEXT: Final = "1.24"

_PREFIX: Final = re.compile(r"/v([0-9][0-9.]{0,31})(/.*)")


def parse(text: str) -> Version:
    """ "1.43" -> (1, 43).  Missing or odd parts count as 0, as Docker Engine reads them."""
    return tuple(int(part) if part else 0 for part in text.split("."))


def split(path: str) -> tuple[Version, str]:
    """The version a path asks for (none: the current one), and the path without it.

    Raises EngineError: INVALID for a version that is not spoken, with Docker Engine's words.
    """
    if not path.startswith("/v"):
        return CURRENT, path
    match = _PREFIX.fullmatch(path)
    if match is None:
        return CURRENT, path
    text, rest = match.groups()
    version = parse(text)
    if version < MINIMUM:
        raise invalid(
            f"client version {text} is too old. Minimum supported API version is "
            f"{MINIMUM_TEXT}, please upgrade your client to a newer version"
        )
    if version > CURRENT:
        raise invalid(
            f"client version {text} is too new. Maximum supported API version is {CURRENT_TEXT}"
        )
    return version, rest


def page_not_found() -> Exception:
    """What Docker Engine says to an unknown route, and to a wrong method."""
    return not_found("page not found")
