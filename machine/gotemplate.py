"""The part of Go's text/template that docker users write in --format.

Actions: fields (.A.B), pipelines, range, if/else, with, end, literals, parentheses, variables of
range are not supported.  Functions: json, prettyjson, index, len, join, split, upper, lower, title,
println, printf, eq, ne, and, or, not, truncate, pad.  https://pkg.go.dev/text/template
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from machine.errors import MachineError


class TemplateError(MachineError):
    """The template is wrong; the text says where."""

    def __init__(self, why: str) -> None:
        super().__init__(f"template parsing error: {why}")


@dataclass(frozen=True)
class _Text:
    text: str


_Token = tuple[str, str]  # kind, text


@dataclass(frozen=True)
class _Action:
    words: tuple[_Token, ...]


@dataclass(frozen=True)
class _Block:
    kind: str  # range | if | with
    words: tuple[_Token, ...]
    body: tuple[object, ...]
    otherwise: tuple[object, ...]


_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:\\.|[^"\\])*")|(?P<raw>`[^`]*`)|(?P<number>-?\d+)"""
    r"""|(?P<field>\.[A-Za-z_0-9.]*)|(?P<word>[A-Za-z_]+)|(?P<mark>[|()]))"""
)


def render(template: str, data: object) -> str:
    """Render with `data` as the dot.  Raises TemplateError."""
    nodes, rest = _parse(_split(template), 0, inside=False)
    del rest
    return _run(nodes, data)


def _split(template: str) -> list[object]:
    parts: list[object] = []
    text = template
    trim = False
    while text:
        before, opened, after = text.partition("{{")
        if trim:
            before = before.lstrip()
        if not opened:
            parts.append(_Text(before))
            break
        action, closed, text = after.partition("}}")
        if not closed:
            raise TemplateError("unclosed action")
        if action.startswith("- "):
            before, action = before.rstrip(), action[2:]
        trim = action.endswith(" -")
        action = action[:-2] if trim else action
        if before:
            parts.append(_Text(before))
        if not action.strip().startswith("/*"):
            parts.append(_Action(_tokens(action)))
    return parts


def _tokens(action: str) -> tuple[_Token, ...]:
    words: list[_Token] = []
    position = 0
    while action[position:].strip():
        match = _TOKEN.match(action, position)
        if not match:
            raise TemplateError(f"unexpected {action[position:].strip()[:10]!r} in {action!r}")
        kind = str(match.lastgroup)
        words.append((kind, match.group(kind)))
        position = match.end()
    if not words:
        raise TemplateError("missing value for command")
    return tuple(words)


def _parse(parts: list[object], at: int, *, inside: bool) -> tuple[tuple[object, ...], int]:
    nodes: list[object] = []
    while at < len(parts):
        part = parts[at]
        if not isinstance(part, _Action):
            nodes.append(part)
            at += 1
            continue
        kind, word = part.words[0]
        if kind == "word" and word in {"end", "else"}:
            if not inside:
                raise TemplateError(f"unexpected {{{{{word}}}}}")
            return tuple(nodes), at
        if kind == "word" and word in {"range", "if", "with"}:
            block, at = _block(word, part.words[1:], parts, at + 1)
            nodes.append(block)
        else:
            nodes.append(part)
            at += 1
    if inside:
        raise TemplateError("unexpected EOF")
    return tuple(nodes), at


def _block(
    kind: str, words: tuple[_Token, ...], parts: list[object], at: int
) -> tuple[_Block, int]:
    body, at = _parse(parts, at, inside=True)
    closing = parts[at]
    otherwise: tuple[object, ...] = ()
    if isinstance(closing, _Action) and closing.words[0] == ("word", "else"):
        if len(closing.words) > 1 and closing.words[1] == ("word", "if"):
            nested, at = _block("if", closing.words[2:], parts, at + 1)
            return _Block(kind, words, body, (nested,)), at
        otherwise, at = _parse(parts, at + 1, inside=True)
    return _Block(kind, words, body, otherwise), at + 1


def _run(nodes: Sequence[object], dot: object) -> str:
    out = []
    for node in nodes:
        if isinstance(node, _Text):
            out.append(node.text)
        elif isinstance(node, _Action):
            out.append(_show(_evaluate(list(node.words), dot)))
        elif isinstance(node, _Block):
            out.append(_run_block(node, dot))
    return "".join(out)


def _run_block(block: _Block, dot: object) -> str:
    value = _evaluate(list(block.words), dot)
    if not _truth(value):
        return _run(block.otherwise, dot)
    if block.kind == "range":
        items = value.values() if isinstance(value, Mapping) else value
        return "".join(_run(block.body, item) for item in items)  # type: ignore[attr-defined]
    return _run(block.body, value if block.kind == "with" else dot)


def _evaluate(words: list[_Token], dot: object) -> object:
    """A pipeline: commands joined by |, each result being the last argument of the next."""
    piped: list[object] = []
    while words:
        command: list[object] = []
        while words and words[0] != ("mark", "|"):
            if words[0] == ("mark", ")"):
                break
            command.append(_operand(words, dot))
        piped = [_apply(command + piped)]
        if words and words[0] == ("mark", "|"):
            words.pop(0)
        else:
            break
    return piped[0] if piped else None


class _Function:
    """A function named in a template, before its arguments are known."""

    def __init__(self, name: str) -> None:
        if name not in FUNCTIONS:
            raise TemplateError(f'function "{name}" not defined')
        self.name = name


def _operand(words: list[_Token], dot: object) -> object:
    kind, text = words.pop(0)
    if kind == "field":
        return _field(dot, text)
    if kind == "string":
        return json.loads(text)
    if kind == "raw":
        return text[1:-1]
    if kind == "number":
        return int(text)
    if kind == "word":
        return _CONSTANTS[text] if text in _CONSTANTS else _Function(text)
    if text == "(":
        value = _evaluate(words, dot)
        if not words or words.pop(0) != ("mark", ")"):
            raise TemplateError("unclosed left paren")
        while words and words[0][0] == "field":  # (index .A 0).B
            value = _field(value, words.pop(0)[1])
        return value
    raise TemplateError(f"unexpected {text!r}")


_CONSTANTS: Mapping[str, object] = {"true": True, "false": False, "nil": None}


def _field(dot: object, path: str) -> object:
    value = dot
    for name in filter(None, path.split(".")):
        if isinstance(value, Mapping):
            if name not in value:
                raise TemplateError(f'map has no entry for key "{name}"')
            value = value[name]
        else:
            raise TemplateError(f"can't evaluate field {name}")
    return value


def _apply(command: list[object]) -> object:
    if not command:
        raise TemplateError("missing value for command")
    first, *rest = command
    if isinstance(first, _Function):
        try:
            return FUNCTIONS[first.name](*rest)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise TemplateError(f"error calling {first.name}: {error}") from error
    if rest:
        raise TemplateError("can't give argument to non-function")
    return first


def _truth(value: object) -> bool:
    return bool(value)


def _show(value: object) -> str:
    """As Go's fmt.Print shows it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        inner = " ".join(f"{name}:{_show(item)}" for name, item in sorted(value.items()))
        return f"map[{inner}]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(_show(item) for item in value) + "]"
    return str(value)


def _index(value: object, *keys: object) -> object:
    for key in keys:
        value = value[key]  # type: ignore[index]
    return value


def _printf(pattern: str, *values: object) -> str:
    return re.sub(r"%[-+0-9.]*[svdqt]", lambda match: _format_one(match.group()), pattern) % tuple(
        json.dumps(v) if "%q" in pattern else (v if isinstance(v, int) else _show(v))
        for v in values
    )


def _format_one(verb: str) -> str:
    return verb[:-1] + ("d" if verb[-1] == "d" else "s")


def _pretty(value: object) -> str:
    return json.dumps(value, indent=4, ensure_ascii=False)


FUNCTIONS: Mapping[str, Callable[..., object]] = {
    "json": lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False),
    "prettyjson": _pretty,
    "index": _index,
    "len": len,
    "join": lambda items, mark: mark.join(_show(item) for item in items),
    "split": lambda text, mark: text.split(mark),
    "upper": lambda text: text.upper(),
    "lower": lambda text: text.lower(),
    "title": lambda text: text.title(),
    "println": lambda *values: " ".join(_show(value) for value in values) + "\n",
    "print": lambda *values: "".join(_show(value) for value in values),
    "printf": _printf,
    "eq": lambda first, *others: first in others,
    "ne": lambda first, second: first != second,
    "and": lambda *values: next((v for v in values if not _truth(v)), values[-1]),
    "or": lambda *values: next((v for v in values if _truth(v)), values[-1]),
    "not": lambda value: not _truth(value),
    "truncate": lambda text, size: str(text)[: int(size)],
    "pad": lambda text, before, after: " " * before + str(text) + " " * after,
}
