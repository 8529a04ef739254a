"""Shell patterns of ${x#p}, ${x%p} and ${x/p/r}: `*`, `?`, backslash.  Pure.

Matched by sets of positions, not by regular expressions: the work is bounded by the product of
the lengths, and that product is capped (security case 78).
"""

from __future__ import annotations

_MAX_WORK = 4_000_000
Token = tuple[str, str]  # ("one", "x") | ("any", "") | ("many", "")


class PatternError(ValueError):
    """The pattern is malformed or would take too long."""


def tokens(pattern: str) -> list[Token]:
    """The pattern's parts; runs of `*` count once."""
    found: list[Token] = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "*":
            if not found or found[-1][0] != "many":
                found.append(("many", ""))
        elif char == "?":
            found.append(("any", ""))
        elif char == "\\":
            if position >= len(pattern):
                raise PatternError("invalid escape in a pattern")
            found.append(("one", pattern[position]))
            position += 1
        else:
            found.append(("one", char))
    return found


def ends(parts: list[Token], text: str, start: int) -> list[int]:
    """All positions at which a match that begins at `start` may end, in order."""
    places = {start}
    for kind, char in parts:
        if kind == "many":
            places = set(range(min(places), len(text) + 1))
        elif kind == "any":
            places = {one + 1 for one in places if one < len(text)}
        else:
            places = {one + 1 for one in places if text[one : one + 1] == char}
        if not places:
            return []
    return sorted(places)


def _limit(parts: list[Token], text: str, starts: int = 1) -> None:
    if (len(parts) + 1) * (len(text) + 1) * starts > _MAX_WORK:
        raise PatternError("the pattern would take too long to match")


def trim_prefix(pattern: str, text: str, *, greedy: bool) -> str:
    """`text` without its shortest (`greedy`: longest) prefix that matches."""
    parts = tokens(pattern)
    _limit(parts, text)
    found = ends(parts, text, 0)
    if not found:
        return text
    return text[found[-1] if greedy else found[0] :]


def trim_suffix(pattern: str, text: str, *, greedy: bool) -> str:
    """`text` without its shortest (`greedy`: longest) suffix that matches."""
    parts = tokens(pattern)[::-1]
    _limit(parts, text)
    found = ends(parts, text[::-1], 0)
    if not found:
        return text
    return text[: len(text) - (found[-1] if greedy else found[0])]


def replace(pattern: str, text: str, replacement: str, *, everywhere: bool) -> str:
    """`text` with the first (`everywhere`: each) longest match replaced."""
    parts = tokens(pattern)
    _limit(parts, text, len(text) + 1)
    result: list[str] = []
    position = 0
    while position <= len(text):
        found = ends(parts, text, position)
        if not found or found[-1] == position:
            result.append(text[position : position + 1])
            position += 1
            continue
        result.append(replacement)
        position = found[-1]
        if not everywhere:
            break
    return "".join(result) + text[position:]
