"""Times and durations as Docker Engine writes and reads them.  Inside: ns since the epoch."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from agent.errors import invalid
from agent.wire.http import printable

SECOND: Final = 1_000_000_000
ZERO_TIME: Final = "0001-01-01T00:00:00Z"

_SECONDS: Final = re.compile(r"(-?[0-9]{1,12})(?:\.([0-9]{1,9}))?")
_RFC3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)?"
)
_MINUTE: Final = 60
_HOUR: Final = 60
_DAY: Final = 24


def rfc3339(ns: int) -> str:
    """Go's RFC3339Nano in UTC: no trailing zeros; 0 is Go's zero time."""
    if not ns:
        return ZERO_TIME
    seconds, fraction = divmod(ns, SECOND)
    moment = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f"{fraction:09d}".rstrip("0")
    return f"{moment}.{digits}Z" if digits else f"{moment}Z"


def rfc3339_seconds(ns: int) -> str:
    """Whole seconds (volumes)."""
    return rfc3339(ns // SECOND * SECOND)


def parse_rfc3339(text: str) -> int | None:
    """ns since the epoch, None when `text` is no date."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    day, clock, fraction, zone = match.groups()
    offset = "+00:00" if zone in {None, "Z", "z"} else zone
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{offset}")
    except ValueError:
        return None
    return int(moment.timestamp()) * SECOND + int((fraction or "0").ljust(9, "0"))


def timestamp(text: str, parameter: str) -> int | None:
    """A `since`/`until` of the query: "1700000000.123456789" or a date; "" and "0" = None.

    Raises EngineError (INVALID).
    """
    if text in {"", "0"}:
        return None
    match = _SECONDS.fullmatch(text)
    if match is not None:
        fraction = int((match[2] or "0").ljust(9, "0"))
        return int(match[1]) * SECOND + fraction
    moment = parse_rfc3339(text)
    if moment is None:
        raise invalid(f'invalid value for "{parameter}": "{printable(text)}" is not a timestamp')
    return moment


_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h)")
_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
}


def go_duration(text: str) -> int | None:
    """ns of "1h30m", "10s"; None when it is no duration."""
    found = _DURATION.findall(text)
    if not found or "".join(number + unit for number, unit in found) != text:
        return None
    return sum(int(float(number) * _UNITS[unit]) for number, unit in found)


def moment_or_ago(text: str, parameter: str, now: int) -> int | None:
    """A timestamp, or how long ago ("24h"): what the prune filter `until` may be."""
    ago = go_duration(text)
    return timestamp(text, parameter) if ago is None else now - ago


def human_duration(ns: int) -> str:
    """go-units' HumanDuration: "Less than a second", "5 minutes", "About an hour", "3 weeks"."""
    seconds = max(0, ns) // SECOND
    minutes, hours = seconds // 60, (seconds + 1800) // 3600
    if seconds < _MINUTE:
        return _below_a_minute(seconds)
    if minutes < _MINUTE:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    return "About an hour" if hours == 1 else _long_duration(hours)


def _below_a_minute(seconds: int) -> str:
    if seconds < 1:
        return "Less than a second"
    return "1 second" if seconds == 1 else f"{seconds} seconds"


def _long_duration(hours: int) -> str:
    if hours < 2 * _DAY:
        return f"{hours} hours"
    if hours < 14 * _DAY:
        return f"{hours // 24} days"
    if hours < 60 * _DAY:
        return f"{hours // 24 // 7} weeks"
    if hours < 2 * 365 * _DAY:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"
