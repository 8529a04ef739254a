""".dockerignore and --exclude patterns, as Docker's patternmatcher reads them.  Pure.

`*` stays in one path segment, `**` crosses them, `!` takes back; the last pattern that matches
wins, and a pattern that matches a folder matches what is in it.  Lives in the wire package because
the command (which sends contexts) and the agent (which receives them) both need it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from agent.values import frozen

MAX_PATTERNS = 10_000
MAX_LENGTH = 4096
_MAX_DEEP = 4


class PatternError(ValueError):
    """A pattern that can't be read."""


def lines(text: str) -> list[str]:
    """The patterns of a .dockerignore: comments and empty lines off, paths cleaned."""
    found: list[str] = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines()):
        if line.startswith("#"):
            continue
        pattern = line.strip()
        if not pattern:
            continue
        inverted = pattern.startswith("!")
        pattern = pattern[1:].strip() if inverted else pattern
        if pattern:
            pattern = posixpath.normpath(pattern)
            if len(pattern) > 1:
                pattern = pattern.lstrip("/")
        found.append(f"!{pattern}" if inverted else pattern)
        if len(found) > MAX_PATTERNS:
            raise PatternError(f"more than {MAX_PATTERNS} patterns (line {number + 1})")
    return found


@frozen
class _Rule:
    expression: re.Pattern[str]
    inverted: bool


class Patterns:
    """A list of patterns, ready to match.  Raises PatternError."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._rules = [_rule(one) for one in patterns if one.strip("! ")]
        self.inverts = any(rule.inverted for rule in self._rules)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def matches(self, path: str) -> bool:
        """Whether a path (relative, "/"-separated, clean) or a folder above it is excluded."""
        excluded = False
        parents = _parents(path)
        for rule in self._rules:
            if rule.inverted != excluded:
                continue  # it could change nothing
            if any(rule.expression.fullmatch(one) for one in parents):
                excluded = not rule.inverted
        return excluded


def _parents(path: str) -> list[str]:
    """The path and each folder above it."""
    found = [path]
    while "/" in path:
        path = path.rpartition("/")[0]
        found.append(path)
    return found


def _rule(pattern: str) -> _Rule:
    if len(pattern) > MAX_LENGTH:
        raise PatternError(f"a pattern is longer than {MAX_LENGTH} characters")
    inverted = pattern.startswith("!")
    body = pattern.removeprefix("!")
    if body.count("**") > _MAX_DEEP:
        raise PatternError(f"a pattern has more than {_MAX_DEEP} '**'")
    try:
        return _Rule(re.compile(expression(body), re.DOTALL), inverted)
    except re.error as error:
        raise PatternError(f"syntax error in pattern {pattern[:100]!r}") from error


def expression(pattern: str) -> str:
    """The regular expression of one pattern.

    A `*` and what follows it up to the next wildcard or slash is an atomic group: the first place
    that fits is as good as any, so `*a*a*a*b` does not backtrack (case 70).
    """
    result: list[str] = []
    position = 0
    open_group = False
    while position < len(pattern):
        char = pattern[position]
        if char in "*/" and open_group:
            # Closed before a further star only: the last part of a segment must reach its end.
            result.append(")" if char == "*" else "")
            if char == "/":
                _unfold(result)
            open_group = False
        text, position = _token(pattern, position)
        if text == "[^/]*?":
            result.append("(?>")
            open_group = True
        result.append(text)
    if open_group:
        _unfold(result)
    return "".join(result)


def _unfold(result: list[str]) -> None:
    """The last star of a segment may have to take more: an ordinary group, greedy."""
    start = len(result) - 1 - result[::-1].index("(?>")
    result[start] = "(?:"
    result[start + 1] = "[^/]*"
    result.append(")")


def _token(pattern: str, position: int) -> tuple[str, int]:
    char = pattern[position]
    position += 1
    if char == "*":
        return _star(pattern, position)
    if char == "?":
        return "[^/]", position
    if char == "[":
        return _class(pattern, position)
    if char == "\\" and position < len(pattern):
        char = pattern[position]
        position += 1
    return re.escape(char), position


def _star(pattern: str, position: int) -> tuple[str, int]:
    if pattern[position : position + 1] != "*":
        return "[^/]*?", position
    while pattern[position : position + 1] == "*":
        position += 1
    if pattern[position : position + 1] == "/":
        return "(?:.*/)?", position + 1
    return ".*", position


def _class(pattern: str, position: int) -> tuple[str, int]:
    end = pattern.find("]", position + 1)
    if end < 0:
        raise PatternError(f"syntax error in pattern {pattern[:100]!r}")
    inner = pattern[position:end]
    negated = inner[:1] in ("^", "!")
    inner = inner[1:] if negated else inner
    inner = inner.replace("\\", "\\\\").replace("[", "\\[").replace("^", "\\^")
    return f"[{'^' if negated else ''}{inner}]", end + 1
