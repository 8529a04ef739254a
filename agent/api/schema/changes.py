"""`changes` of an import: Dockerfile instructions that only set the image's configuration."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from typing import Final

from agent.errors import invalid

Config = dict[str, object]


def applied(changes: Sequence[str]) -> Config:
    """The image's `config` document.  INVALID for anything but the instructions below."""
    config: Config = {}
    for change in changes:
        for line in change.replace("\\\n", " ").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                _apply(config, line.strip())
    return config


def _apply(config: Config, line: str) -> None:
    word, _, rest = line.partition(" ")
    maker = _MAKERS.get(word.upper())
    rest = rest.strip()
    if maker is None:
        raise invalid(f"{word[:64]} is not a valid change command")
    if not rest:
        raise invalid(f"{word.upper()} requires at least one argument")
    maker(config, rest)


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise invalid(f"can't read the change {text[:200]!r}: {error}") from error


def _pairs(text: str) -> list[tuple[str, str]]:
    words = _words(text)
    if "=" not in words[0]:  # the old form: NAME the rest
        name, _, value = text.partition(" ")
        return [(name, value.strip())]
    pairs = [word.partition("=") for word in words]
    if any(not equals for _, equals, _ in pairs):
        raise invalid(f"Syntax error - can't find = in {text[:200]!r}. Must be of the form: k=v")
    return [(name, value) for name, _, value in pairs]


def _listed(text: str) -> list[str] | None:
    """The JSON form of an argument list."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    good = isinstance(found, list) and all(isinstance(one, str) for one in found)
    return found if good else None


def _command(key: str) -> Callable[[Config, str], None]:
    def make(config: Config, text: str) -> None:
        listed = _listed(text)
        config[key] = ["/bin/sh", "-c", text] if listed is None else listed

    return make


def _text(key: str) -> Callable[[Config, str], None]:
    def make(config: Config, text: str) -> None:
        config[key] = text

    return make


def _env(config: Config, text: str) -> None:
    known = config.setdefault("Env", [])
    if isinstance(known, list):
        for name, value in _pairs(text):
            known[:] = [one for one in known if one.partition("=")[0] != name]
            known.append(f"{name}={value}")


def _label(config: Config, text: str) -> None:
    known = config.setdefault("Labels", {})
    if isinstance(known, dict):
        known.update(_pairs(text))


def _set(key: str, *, port: bool = False) -> Callable[[Config, str], None]:
    def make(config: Config, text: str) -> None:
        known = config.setdefault(key, {})
        listed = None if port else _listed(text)
        for word in listed if listed is not None else _words(text):
            if isinstance(known, dict):
                known[f"{word}/tcp" if port and "/" not in word else word] = {}

    return make


def _on_build(config: Config, text: str) -> None:
    known = config.setdefault("OnBuild", [])
    if isinstance(known, list):
        known.append(text)


_MAKERS: Final[dict[str, Callable[[Config, str], None]]] = {
    "CMD": _command("Cmd"),
    "ENTRYPOINT": _command("Entrypoint"),
    "ENV": _env,
    "EXPOSE": _set("ExposedPorts", port=True),
    "LABEL": _label,
    "ONBUILD": _on_build,
    "STOPSIGNAL": _text("StopSignal"),
    "USER": _text("User"),
    "VOLUME": _set("Volumes"),
    "WORKDIR": _text("WorkingDir"),
}
