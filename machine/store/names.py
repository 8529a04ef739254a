"""Which names a machine may have (security.md case 148), with docker-machine's error text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from machine.errors import EXIT_USAGE, MachineError

_NEW: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9-]{0,62}")
# docker-machine also took dots; such machines can be read, but no new one is named so: a name is
# also a host name, a folder and part of certificates.
_EXISTING: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9.-]{0,254}")
_WINDOWS_DEVICES: Final = frozenset(
    ["con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))]
)
INVALID: Final = "Invalid hostname specified. Allowed hostname chars are: 0-9a-zA-Z . -"


def check_new_name(name: str, existing: Iterable[str] = ()) -> None:
    """Raise MachineError (exit 2) unless `name` may be given to a new machine.

    Twins that differ in case only are refused: they are one folder on macOS and Windows.
    """
    if not _NEW.fullmatch(name) or name.lower() in _WINDOWS_DEVICES:
        raise MachineError(
            INVALID,
            details="A machine's name has 1 to 63 characters: letters, digits and -, and starts "
            "with a letter or digit.",
            exit_code=EXIT_USAGE,
        )
    for other in existing:
        if other != name and other.casefold() == name.casefold():
            raise MachineError(
                f'"{name}" differs from the existing machine "{other}" only in case',
                exit_code=EXIT_USAGE,
            )


def is_readable_name(name: str) -> bool:
    """True for a name that an existing machine (docker-machine's included) may have."""
    return bool(_EXISTING.fullmatch(name)) and not name.endswith(".") and ".." not in name
