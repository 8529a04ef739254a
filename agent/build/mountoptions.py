"""Words of a RUN --mount that are read in one way by all kinds of it."""

from __future__ import annotations

from collections.abc import Mapping

from agent.errors import invalid

_HIGHEST_ID = 2**32 - 2
_FLAGS = {"": True, "true": True, "1": True, "false": False, "0": False}


def flag(options: Mapping[str, str], name: str) -> bool:
    """A switch of a mount; a bare word turns it on.  INVALID."""
    if name not in options:
        return False
    value = options[name].lower()
    if value not in _FLAGS:
        raise invalid(f"invalid value for {name}: {options[name][:100]}")
    return _FLAGS[value]


def number(options: Mapping[str, str], name: str) -> int:
    """A uid or gid of a mount.  INVALID."""
    text = options.get(name) or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _HIGHEST_ID):
        raise invalid(f"invalid value for {name}: {text[:100]}")
    return int(text)
