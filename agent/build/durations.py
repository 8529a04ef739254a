"""Go's duration texts ("1m30s", "500ms") as nanoseconds.  Pure."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

_UNITS: Final = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_PART: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{0,12})?)(ns|us|µs|ms|s|m|h)", re.ASCII)


def parse(text: str) -> int | None:
    """Nanoseconds, or None when it is no duration."""
    if text == "0":
        return 0
    sign = -1 if text.startswith("-") else 1
    rest = text.lstrip("+-") if text[:1] in "+-" else text
    total = Decimal(0)
    while rest:
        found = _PART.match(rest)
        if found is None:
            return None
        total += Decimal(found[1]) * _UNITS[found[2]]
        rest = rest[found.end() :]
    return sign * int(total) if text else None
