"""Columns, ages and sizes as docker prints them.  Pure."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, three spaces between, no trailing space; cells are escaped (C43)."""
    cells = [list(header), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join(lines)


def printable(text: str) -> str:
    """Control characters made visible: what a host says must not steer the terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def age(seconds: float) -> str:
    """ "About a minute", "5 minutes", "3 weeks": go-units' HumanDuration."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    return _long_age(round(seconds / 3600))


def _long_age(hours: int) -> str:
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"


def human_size(size: float) -> str:
    """ "12.3MB": decimal units, four significant digits, as docker images shows."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{size:.3g}{unit}"
        size /= 1000
    return f"{size:.3g}PB"


def ports(entries: Sequence[dict[str, object]]) -> str:
    """The PORTS column: "0.0.0.0:8080->80/tcp, 443/tcp"."""
    shown = []
    for entry in entries:
        inside = f"{entry['PrivatePort']}/{entry['Type']}"
        if entry.get("PublicPort"):
            address = str(entry.get("IP") or "0.0.0.0")  # noqa: S104  # shown, not bound
            address = f"[{address}]" if ":" in address else address
            inside = f"{address}:{entry['PublicPort']}->{inside}"
        shown.append(inside)
    return ", ".join(sorted(shown))
