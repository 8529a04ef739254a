"""Nodes as typed instructions, and instructions as stages.  Pure.

What can be known wrong without running anything is refused here, with docker's texts and the
line; variables are expanded later, when their values are known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agent.build import durations
from agent.build.parser import DockerfileError, Heredoc, Node, Parsed, json_words

_STAGE_NAME: Final = re.compile(r"[a-z][a-z0-9-_.]*")
_TYPES: Final = frozenset({"bind", "cache", "tmpfs", "secret", "ssh"})

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Mount:
    """One RUN --mount.  `options`: its key=value words; a bare key has ""."""

    type: str
    options: Mapping[str, str]


@dataclass(frozen=True)
class From:
    base: str
    name: str = ""
    platform: str = ""


@dataclass(frozen=True)
class Arg:
    """`pairs`: (name, default); None = without a default."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True)
class Env:
    pairs: Pairs


@dataclass(frozen=True)
class Label:
    pairs: Pairs


@dataclass(frozen=True)
class Copy:
    """COPY and ADD.  `inline`: heredocs that are sources, by their marks' names."""

    add: bool
    sources: tuple[str, ...]
    target: str
    flags: Mapping[str, str]
    excludes: tuple[str, ...] = ()
    inline: tuple[Heredoc, ...] = ()


@dataclass(frozen=True)
class Run:
    """`words`: exec form, or one shell text; `in_shell` tells which."""

    words: tuple[str, ...]
    in_shell: bool
    mounts: tuple[Mount, ...] = ()
    network: str = ""
    security: str = ""


@dataclass(frozen=True)
class Command:
    """CMD and ENTRYPOINT."""

    entrypoint: bool
    words: tuple[str, ...]
    in_shell: bool


@dataclass(frozen=True)
class Words:
    """EXPOSE and VOLUME."""

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Single:
    """USER, WORKDIR, STOPSIGNAL, MAINTAINER: one value."""

    name: str
    value: str


@dataclass(frozen=True)
class OnBuild:
    trigger: str


@dataclass(frozen=True)
class Shell:
    words: tuple[str, ...]


@dataclass(frozen=True)
class Healthcheck:
    """As the image configuration has it: Test, Interval, ... (ns)."""

    document: Mapping[str, object]


Body = (
    From | Arg | Env | Label | Copy | Run | Command | Words | Single | OnBuild | Shell | Healthcheck
)


@dataclass(frozen=True)
class Instruction:
    """`text`: the logical line, as progress shows it."""

    body: Body
    text: str
    line: int


@dataclass(frozen=True)
class Stage:
    origin: From
    text: str
    line: int
    steps: tuple[Instruction, ...]


@dataclass(frozen=True)
class Dockerfile:
    """`globals`: ARGs before the first FROM."""

    globals: tuple[Instruction, ...]
    stages: tuple[Stage, ...]
    escape: str
    syntax: str = ""

    def find(self, name: str) -> int:
        """Index of the stage that a name or number means, -1 = none."""
        for index, stage in enumerate(self.stages):
            if name and stage.origin.name == name.lower():
                return index
        if name.isascii() and name.isdigit() and int(name) < len(self.stages):
            return int(name)
        return -1


def read(parsed: Parsed) -> Dockerfile:
    """Raises DockerfileError."""
    first: list[Instruction] = []
    stages: list[tuple[Instruction, list[Instruction]]] = []
    for node in parsed.nodes:
        one = instruction(node)
        if isinstance(one.body, From):
            stages.append((one, []))
        elif stages:
            stages[-1][1].append(one)
        elif isinstance(one.body, Arg):
            first.append(one)
        else:
            raise DockerfileError("no build stage in current context", node.line)
    if not stages:
        raise DockerfileError("no build stage in current context", parsed.nodes[-1].line)
    made = [_stage(origin, steps) for origin, steps in stages]
    return Dockerfile(tuple(first), tuple(made), parsed.escape, parsed.syntax)


def _stage(origin: Instruction, steps: Sequence[Instruction]) -> Stage:
    if not isinstance(origin.body, From):
        raise TypeError("a stage begins with FROM")
    return Stage(origin.body, origin.text, origin.line, tuple(steps))


def instruction(node: Node) -> Instruction:
    """Raises DockerfileError."""
    maker = _MAKERS.get(node.name)
    if maker is None:
        raise DockerfileError(f"unknown instruction: {node.name}", node.line)
    return Instruction(maker(node), node.original, node.line)


# ------------------------------------------------------------------------------------- flag words


def _flags(node: Node, values: Sequence[str], switches: Sequence[str] = ()) -> dict[str, list[str]]:
    """--name=value and --switch words by name.  Raises DockerfileError."""
    found: dict[str, list[str]] = {}
    for word in node.flags:
        name, equals, value = word[2:].partition("=")
        if name in switches:
            value = value.lower() if equals else "true"
            if value not in ("true", "false"):
                raise _bad(node, f'expecting boolean value for flag {name}, not: "{value}"')
        elif name not in values:
            raise _bad(node, f"unknown flag: --{name}")
        elif not equals:
            raise _bad(node, f"missing a value on flag: --{name}")
        if name in found and name not in ("mount", "exclude"):
            raise _bad(node, f"duplicate flag specified: {name}")
        found.setdefault(name, []).append(value)
    return found


def _bad(node: Node, message: str) -> DockerfileError:
    return DockerfileError(message, node.line)


def _no_flags(node: Node) -> None:
    _flags(node, ())


def _required(node: Node) -> str:
    if not node.rest:
        raise _bad(node, f"{node.name} requires at least one argument")
    return node.rest


# ----------------------------------------------------------------------------------- instructions


def _from(node: Node) -> From:
    flags = _flags(node, ("platform",))
    words = node.rest.split()
    if len(words) == 3 and words[1].lower() == "as":
        name = words[2].lower()
        if not _STAGE_NAME.fullmatch(name):
            raise _bad(
                node,
                f'invalid name for build stage: "{words[2]}", name can\'t start with a number or'
                " contain symbols",
            )
    elif len(words) == 1:
        name = ""
    else:
        raise _bad(node, "FROM requires either one or three arguments")
    return From(words[0], name, flags.get("platform", [""])[0])


def _arg(node: Node) -> Arg:
    _no_flags(node)
    _required(node)
    pairs: list[tuple[str, str | None]] = []
    for word in quoted_words(node.rest):
        name, equals, value = word.partition("=")
        if not name:
            raise _bad(node, "ARG names can not be blank")
        pairs.append((name, value if equals else None))
    return Arg(tuple(pairs))


def _env(node: Node) -> Env:
    _no_flags(node)
    return Env(_pairs(node))


def _label(node: Node) -> Label:
    _no_flags(node)
    return Label(_pairs(node))


def _pairs(node: Node) -> Pairs:
    """NAME=value words, or the old form NAME value."""
    _required(node)
    words = quoted_words(node.rest)
    if "=" not in words[0]:
        parts = node.rest.split(None, 1)
        if len(parts) < 2:
            raise _bad(node, f"{node.name} must have two arguments")
        return ((parts[0], parts[1]),)
    pairs: list[tuple[str, str]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise _bad(
                node, f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value'
            )
        if not name:
            raise _bad(node, f"{node.name} names can not be blank")
        pairs.append((name, value))
    return tuple(pairs)


def quoted_words(rest: str) -> list[str]:
    """Words with their quotes and escapes still in them (moby's parseWords)."""
    found: list[str] = []
    current: list[str] = []
    quote = ""
    position = 0
    while position < len(rest):
        char = rest[position]
        position += 1
        if not quote and char.isspace():
            if current:
                found.append("".join(current))
                current = []
            continue
        if char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        current.append(char)
        if char == "\\" and quote != "'" and position < len(rest):
            current.append(rest[position])
            position += 1
    if current:
        found.append("".join(current))
    return found


_COPY_VALUES: Final = ("from", "chown", "chmod", "exclude")
_ADD_VALUES: Final = ("chown", "chmod", "exclude", "checksum")


def _copy(node: Node) -> Copy:
    add = node.name == "ADD"
    if add:
        flags = _flags(node, _ADD_VALUES, ("link", "keep-git-dir", "unpack"))
    else:
        flags = _flags(node, _COPY_VALUES, ("link", "parents"))
    words = json_words(node.rest) or tuple(node.rest.split())
    if len(words) < 2:
        raise _bad(
            node,
            f"{node.name} requires at least two arguments, but only one was provided. "
            "Destination could not be determined",
        )
    if any(not one for one in words[:-1]):
        raise _bad(node, f"{node.name} source can not be empty")
    marks = [one for one in words[:-1] if one.startswith("<<")]
    if len(marks) != len(node.heredocs):
        raise _bad(node, f"{node.name} cannot accept a heredoc as a destination")
    if add and "checksum" in flags and len(words) > 2:
        raise _bad(node, "checksum can only be specified for a single source")
    sources = tuple(one for one in words[:-1] if one not in marks)
    single = {name: values[0] for name, values in flags.items() if name != "exclude"}
    excludes = tuple(flags.get("exclude", ()))
    return Copy(add, sources, words[-1], single, excludes, node.heredocs)


def _run(node: Node) -> Run:
    flags = _flags(node, ("mount", "network", "security"))
    _required(node)
    mounts = tuple(_mount(node, text) for text in flags.get("mount", ()))
    network = flags.get("network", [""])[0]
    if network not in ("", "default", "none", "host"):
        raise _bad(node, f'invalid network mode: "{network}"')
    security = flags.get("security", [""])[0]
    if security not in ("", "sandbox", "insecure"):
        raise _bad(node, f'security "{security}" is not valid')
    words = None if node.heredocs else json_words(node.rest)
    if words is not None:
        return Run(words, in_shell=False, mounts=mounts, network=network, security=security)
    script = _script(node)
    return Run((script,), in_shell=True, mounts=mounts, network=network, security=security)


def _script(node: Node) -> str:
    """A RUN's shell text; heredocs are given to the shell as they are written, one that stands
    alone is the script itself."""
    if not node.heredocs:
        return node.rest
    first = node.heredocs[0]
    alone = node.rest.removeprefix("<<").removeprefix("-").strip("'\"") == first.name
    if len(node.heredocs) == 1 and alone and len(node.rest.split()) == 1:
        return first.text()
    return node.rest + "".join(f"\n{one.content}{one.name}" for one in node.heredocs)


def _mount(node: Node, text: str) -> Mount:
    options: dict[str, str] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        key = key.strip().lower()
        if not key:
            raise _bad(node, f"invalid field '{part}' must be a key=value pair")
        options[key] = value.strip()
    kind = options.pop("type", "bind")
    if kind not in _TYPES:
        raise _bad(node, f'unsupported mount type "{kind}"')
    for other, name in (("dst", "target"), ("destination", "target"), ("src", "source")):
        if other in options:
            options[name] = options.pop(other)
    if kind in ("bind", "cache", "tmpfs") and not options.get("target"):
        raise _bad(node, "invalid mount: target is required")
    return Mount(kind, options)


def _command(node: Node) -> Command:
    _no_flags(node)
    words = json_words(node.rest)
    entrypoint = node.name == "ENTRYPOINT"
    if words is not None:
        return Command(entrypoint, words, in_shell=False)
    return Command(entrypoint, (node.rest,) if node.rest else (), in_shell=bool(node.rest))


def _words(node: Node) -> Words:
    _no_flags(node)
    _required(node)
    words = json_words(node.rest) if node.name == "VOLUME" else None
    words = tuple(node.rest.split()) if words is None else words
    if node.name == "VOLUME" and any(not one.strip() for one in words):
        raise _bad(node, "VOLUME specified can not be an empty string")
    return Words(node.name, words)


def _single(node: Node) -> Single:
    _no_flags(node)
    if not node.rest:
        raise _bad(node, f"{node.name} requires exactly one argument")
    if node.name in ("USER", "STOPSIGNAL") and len(node.rest.split()) != 1:
        raise _bad(node, f"{node.name} requires exactly one argument")
    return Single(node.name, node.rest)


def _onbuild(node: Node) -> OnBuild:
    _no_flags(node)
    trigger = _required(node)
    name = trigger.split(None, 1)[0].upper()
    if name == "ONBUILD":
        raise _bad(node, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if name in ("MAINTAINER", "FROM"):
        raise _bad(node, f"{name} isn't allowed as an ONBUILD trigger")
    if name not in _MAKERS:
        raise _bad(node, f"unknown instruction: {name}")
    return OnBuild(trigger)


def _shell(node: Node) -> Shell:
    _no_flags(node)
    words = json_words(node.rest)
    if words is None:
        raise _bad(node, f"SHELL requires the arguments to be in JSON form, not: {node.rest}")
    if not words:
        raise _bad(node, "SHELL requires at least one argument")
    return Shell(words)


_TIMES: Final = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


def _healthcheck(node: Node) -> Healthcheck:
    flags = _flags(node, (*_TIMES, "retries"))
    kind, _, rest = _required(node).partition(" ")
    if kind.upper() == "NONE":
        if rest.strip():
            raise _bad(node, "HEALTHCHECK NONE takes no arguments")
        return Healthcheck({"Test": ["NONE"]})
    if kind.upper() != "CMD":
        raise _bad(node, f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    rest = rest.strip()
    if not rest:
        raise _bad(node, "Missing command after HEALTHCHECK CMD")
    words = json_words(rest)
    document: dict[str, object] = {
        "Test": ["CMD-SHELL", rest] if words is None else ["CMD", *words]
    }
    for flag, key in _TIMES.items():
        if flag in flags:
            document[key] = _duration(node, flag, flags[flag][0])
    if "retries" in flags:
        text = flags["retries"][0]
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
            raise _bad(node, f"--retries must be at least 1 (not {text})")
        document["Retries"] = int(text)
    return Healthcheck(document)


def _duration(node: Node, flag: str, text: str) -> int:
    value = durations.parse(text)
    if value is None:
        raise _bad(node, f'time: invalid duration "{text}"')
    if 0 < value < 1_000_000 or value < 0:
        raise _bad(node, f'Interval "{flag}" cannot be less than 1ms')
    return value


_MAKERS: Final[Mapping[str, Callable[[Node], Body]]] = {
    "ADD": _copy,
    "ARG": _arg,
    "CMD": _command,
    "COPY": _copy,
    "ENTRYPOINT": _command,
    "ENV": _env,
    "EXPOSE": _words,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _single,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _single,
    "USER": _single,
    "VOLUME": _words,
    "WORKDIR": _single,
}
