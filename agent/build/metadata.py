"""The instructions that change the configuration only, for builds and for commit's `changes`."""

from __future__ import annotations

import dataclasses
import json
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from agent.build import draft as drafts
from agent.build.instructions import (
    Arg,
    Body,
    Command,
    Env,
    Healthcheck,
    Label,
    OnBuild,
    Shell,
    Single,
    Words,
)
from agent.build.scope import ConfigState
from agent.engine import signals
from agent.errors import invalid

_PORT: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_MAX_RANGE: Final = 65536


def apply(stage: ConfigState, one: Body) -> bool:
    """Perform it; False when it is none of these.  Raises INVALID."""
    maker = _MAKERS.get(type(one))
    if maker is None:
        return False
    maker(stage, one)
    return True


def go_list(words: Sequence[str]) -> str:
    """Go's %q of a list: ["a" "b"]."""
    return "[" + " ".join(json.dumps(one, ensure_ascii=False) for one in words) + "]"


def _env(stage: ConfigState, one: Env) -> None:
    # All values are expanded with what held before the instruction.
    pairs = [(stage.word(name), stage.word(value)) for name, value in one.pairs]
    shown = " ".join(f"{name}={value}" for name, value in pairs)
    env = drafts.with_env(stage.draft.texts("Env") or (), pairs)
    stage.metadata(f"ENV {shown}", stage.draft.with_config(Env=env))


def _label(stage: ConfigState, one: Label) -> None:
    pairs = [(stage.word(name), stage.word(value)) for name, value in one.pairs]
    shown = " ".join(f"{name}={value}" for name, value in pairs)
    labels = {**stage.draft.labels(), **dict(pairs)}
    stage.metadata(f"LABEL {shown}", stage.draft.with_config(Labels=labels))


def _arg(stage: ConfigState, one: Arg) -> None:
    shown = []
    for name, default in one.pairs:
        value = None if default is None else stage.word(default)
        stage.args.add(name, value)
        shown.append(name if value is None else f"{name}={value}")
    stage.metadata(f"ARG {' '.join(shown)}", stage.draft)


def _command(stage: ConfigState, one: Command) -> None:
    words = [*stage.draft.shell(), *one.words] if one.in_shell else list(one.words)
    name = "ENTRYPOINT" if one.entrypoint else "CMD"
    if one.entrypoint:
        wanted = _with_list(stage, "Entrypoint", words)
        if not stage.command_set:
            wanted = wanted.with_config(Cmd=None)
    else:
        wanted = _with_list(stage, "Cmd", words)
        stage.command_set = True
    stage.metadata(f"{name} {go_list(words)}", wanted)


def _with_list(stage: ConfigState, key: str, words: list[str]) -> drafts.Draft:
    """An empty list is a value of its own: it takes the base's away."""
    return stage.draft.with_config(**{key: words})


def ports(words: Sequence[str]) -> list[str]:
    """EXPOSE's "80", "80/udp", "80-82" as "80/tcp", ...  INVALID."""
    found: list[str] = []
    for word in words:
        match = _PORT.fullmatch(word)
        if match is None:
            raise invalid(f"invalid containerPort: {word}")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 0 < first <= last < _MAX_RANGE:
            raise invalid(f"invalid containerPort: {word}")
        found += [f"{port}/{(match[3] or 'tcp').lower()}" for port in range(first, last + 1)]
    return found


def _words(stage: ConfigState, one: Words) -> None:
    if one.name == "EXPOSE":
        words = stage.words(one.words)
        exposed = {**_set(stage, "ExposedPorts"), **{name: {} for name in ports(words)}}
        wanted = stage.draft.with_config(ExposedPorts=dict(sorted(exposed.items())))
        stage.metadata(f"EXPOSE {' '.join(words)}", wanted)
        return
    volumes = [stage.word(word) for word in one.words]
    if any(not word.strip() for word in volumes):
        raise invalid("VOLUME specified can not be an empty string")
    wanted = stage.draft.with_config(
        Volumes={**_set(stage, "Volumes"), **{word: {} for word in volumes}}
    )
    stage.metadata(f"VOLUME [{' '.join(volumes)}]", wanted)


def _set(stage: ConfigState, key: str) -> dict[str, object]:
    return {name: {} for name in stage.draft.names(key)}


def _single(stage: ConfigState, one: Single) -> None:
    if one.name == "WORKDIR":
        workdir(stage, stage.word(one.value))
    elif one.name == "USER":
        user = stage.word(one.value)
        stage.metadata(f"USER {user}", stage.draft.with_config(User=user))
    elif one.name == "STOPSIGNAL":
        value = stage.word(one.value)
        signals.number(value)
        stage.metadata(f"STOPSIGNAL {value}", stage.draft.with_config(StopSignal=value))
    else:
        wanted = dataclasses.replace(stage.draft, author=one.value)
        stage.metadata(f"MAINTAINER {one.value}", wanted)


def workdir(stage: ConfigState, value: str) -> None:
    """The folder is made when the image does not have it."""
    if not value:
        raise invalid("WORKDIR requires exactly one argument")
    clean = posixpath.normpath(posixpath.join("/", stage.draft.text("WorkingDir") or "/", value))
    clean = "/" + clean.lstrip("/")
    wanted = stage.draft.with_config(WorkingDir=clean)
    stage.step(stage.comment(f"WORKDIR {clean}"), wanted, lambda: stage.make_folder(clean))


def _onbuild(stage: ConfigState, one: OnBuild) -> None:
    triggers = [*(stage.draft.texts("OnBuild") or ()), one.trigger]
    stage.metadata(f"ONBUILD {one.trigger}", stage.draft.with_config(OnBuild=triggers))


def _shell(stage: ConfigState, one: Shell) -> None:
    wanted = stage.draft.with_config(Shell=list(one.words))
    stage.metadata(f"SHELL [{' '.join(one.words)}]", wanted)


def _healthcheck(stage: ConfigState, one: Healthcheck) -> None:
    shown = json.dumps(one.document, separators=(",", ":"))
    wanted = stage.draft.with_config(Healthcheck=dict(one.document))
    stage.metadata(f"HEALTHCHECK {shown}", wanted)


_MAKERS: Final[Mapping[type, Callable[..., None]]] = {
    Env: _env,
    Label: _label,
    Arg: _arg,
    Command: _command,
    Words: _words,
    Single: _single,
    OnBuild: _onbuild,
    Shell: _shell,
    Healthcheck: _healthcheck,
}
