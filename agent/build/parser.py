"""A Dockerfile's text as nodes: one a logical line, with flags, heredocs and line numbers.  Pure.

Follows moby's parser: directives, comments, continuations (a comment or empty line inside one is
passed over), heredocs of RUN, COPY and ADD, JSON forms.  Sizes are bounded (security case 78).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Final

from agent.build.shellwords import Lexer, WordError
from agent.errors import EngineError, Kind

MAX_BYTES: Final = 4 << 20
MAX_INSTRUCTIONS: Final = 10_000
_BOM: Final = b"\xef\xbb\xbf"
_DIRECTIVE: Final = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
_HEREDOC: Final = re.compile(r"(\d*)<<(-?)([^<]*)")
_WITH_HEREDOCS: Final = frozenset({"ADD", "COPY", "RUN"})
_DIRECTIVES: Final = frozenset({"escape", "syntax", "check"})


class DockerfileError(EngineError):
    """INVALID: what is wrong, and at which line (0 = the file as a whole)."""

    def __init__(self, message: str, line: int = 0) -> None:
        where = f"dockerfile parse error on line {line}: " if line else ""
        super().__init__(Kind.INVALID, f"{where}{message}")


@dataclass(frozen=True)
class Heredoc:
    """One <<NAME.  `expand`: the name was not quoted; `chomp`: <<- takes leading tabs off."""

    name: str
    content: str
    expand: bool
    chomp: bool

    def text(self) -> str:
        """The content as a file: without the tabs of <<-."""
        if not self.chomp:
            return self.content
        return "".join(line.lstrip("\t") for line in self.content.splitlines(keepends=True))


@dataclass(frozen=True)
class Node:
    """One instruction.  `rest` is what follows name and flags, `original` the line as it counts."""

    name: str  # upper case
    flags: tuple[str, ...]
    rest: str
    original: str
    line: int
    end: int
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True)
class Parsed:
    """`syntax`: the frontend that the file asks for, "" = none."""

    nodes: tuple[Node, ...]
    escape: str = "\\"
    syntax: str = ""


@dataclass
class _Lines:
    lines: list[str]
    at: int = 0
    directives: dict[str, str] = field(default_factory=dict)


def parse(raw: bytes, name: str = "Dockerfile", escape: str = "") -> Parsed:
    """`escape`: of a text that is part of a file; "" = its directives tell.  DockerfileError."""
    if len(raw) > MAX_BYTES:
        raise DockerfileError(f"the Dockerfile is larger than the limit of {MAX_BYTES} bytes")
    if not raw.strip():
        raise DockerfileError(f"the Dockerfile ({name}) cannot be empty")
    text = raw.removeprefix(_BOM).decode("utf-8", "surrogateescape")
    if "\0" in text:
        raise DockerfileError("a Dockerfile can't hold NUL bytes")
    lines = _Lines(text.split("\n"))
    if not escape:
        _read_directives(lines)
    escape = escape or lines.directives.get("escape", "\\")
    nodes = _read_nodes(lines, escape)
    if not nodes:
        raise DockerfileError("file with no instructions")
    return Parsed(tuple(nodes), escape, lines.directives.get("syntax", ""))


def _read_directives(lines: _Lines) -> None:
    for number, line in enumerate(lines.lines, 1):
        found = _DIRECTIVE.fullmatch(line.strip())
        if found is None or found[1].lower() not in _DIRECTIVES:
            return
        key, value = found[1].lower(), found[2]
        if key in lines.directives:
            raise DockerfileError(f"only one {key} parser directive can be used", number)
        if key == "escape" and value not in ("\\", "`"):
            raise DockerfileError(f"invalid escape token '{value}' does not match ` or \\", number)
        lines.directives[key] = value
        lines.at = number


def _read_nodes(lines: _Lines, escape: str) -> list[Node]:
    token = re.escape(escape)
    continued = re.compile(rf"(?:^|[^{token}]){token}[ \t]*\Z")
    nodes: list[Node] = []
    while lines.at < len(lines.lines):
        first = lines.at + 1
        logical = _logical_line(lines, continued, escape)
        if not logical:
            continue
        if len(nodes) >= MAX_INSTRUCTIONS:
            raise DockerfileError(f"more than {MAX_INSTRUCTIONS} instructions", first)
        nodes.append(_node(logical, lines, first))
    return nodes


def _logical_line(lines: _Lines, continued: re.Pattern[str], escape: str) -> str:
    """The next instruction with its continuation lines joined; "" for a comment or nothing."""
    parts: list[str] = []
    while lines.at < len(lines.lines):
        line = lines.lines[lines.at].removesuffix("\r")
        lines.at += 1
        if line.lstrip().startswith("#"):
            if not parts:
                return ""
            continue
        if not line.strip():
            if not parts:
                return ""
            continue  # docker warns of an empty continuation line, and goes on
        if not parts:
            line = line.lstrip()
        if continued.search(line) is None:
            return "".join([*parts, line]).strip()
        parts.append(line.rstrip(" \t")[: -len(escape)])
    return "".join(parts).strip()


def _node(text: str, lines: _Lines, first: int) -> Node:
    name, rest = _split_name(text)
    name = name.upper()
    flags, rest = _split_flags(rest)
    effective = name
    if name == "ONBUILD":
        effective = _split_name(rest)[0].upper()
    heredocs: list[Heredoc] = []
    if effective in _WITH_HEREDOCS:
        heredocs = [_read_heredoc(one, lines, first) for one in heredoc_marks(rest)]
    return Node(name, flags, rest, text, first, lines.at, tuple(heredocs))


def _split_name(text: str) -> tuple[str, str]:
    parts = text.split(None, 1)
    return (parts[0], parts[1].strip()) if len(parts) == 2 else (parts[0] if parts else "", "")


def _split_flags(rest: str) -> tuple[tuple[str, ...], str]:
    """Leading --flag words (quotes and backslashes as in moby's extractBuilderFlags)."""
    flags: list[str] = []
    while rest.startswith("--"):
        word, position = _flag_word(rest)
        if word == "--":
            return tuple(flags), rest[position:].lstrip()
        flags.append(word)
        rest = rest[position:].lstrip()
    return tuple(flags), rest


def _flag_word(text: str) -> tuple[str, int]:
    found: list[str] = []
    quote = ""
    position = 0
    while position < len(text):
        char = text[position]
        position += 1
        if quote:
            if char == quote:
                quote = ""
                continue
        elif char.isspace():
            return "".join(found), position - 1
        elif char in "'\"":
            quote = char
            continue
        if char == "\\" and position < len(text):
            char = text[position]
            position += 1
        found.append(char)
    return "".join(found), position


def heredoc_marks(rest: str) -> list[Heredoc]:
    """The <<NAME words of a line, without contents yet."""
    if "<<" not in rest:
        return []
    try:
        words = Lexer("\\", raw=True, keep_unset=True).words(rest, {})
    except WordError:
        return []
    return [mark for mark in map(heredoc_mark, words) if mark is not None]


def heredoc_mark(word: str) -> Heredoc | None:
    """A word that is wholly <<NAME (or 3<<-"NAME"), else None."""
    found = _HEREDOC.fullmatch(word)
    if found is None or not found[3]:
        return None
    try:
        names = Lexer("\\", keep_unset=True).words(found[3], {})
    except WordError:
        return None
    if len(names) != 1 or not names[0]:
        return None
    return Heredoc(names[0], "", names[0] == found[3], found[2] == "-")


def _read_heredoc(mark: Heredoc, lines: _Lines, first: int) -> Heredoc:
    content: list[str] = []
    while lines.at < len(lines.lines):
        line = lines.lines[lines.at]
        lines.at += 1
        bare = line.removesuffix("\r")
        if (bare.lstrip("\t") if mark.chomp else bare) == mark.name:
            return Heredoc(mark.name, "".join(content), mark.expand, mark.chomp)
        content.append(line + "\n")
    raise DockerfileError("unterminated heredoc", first)


def json_words(rest: str) -> tuple[str, ...] | None:
    """The exec form ["a", "b"]; None when it is no JSON array of strings."""
    text = rest.strip()
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        return None
    return tuple(value)
