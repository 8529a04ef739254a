"""A driver's own JSON without its credentials, and with them again.

docker-machine kept them in clear in config.json. Here what came from a secret option is replaced by
the option's name and put back from the environment at each use; what the driver made itself (a
root password) goes to a file beside the machine's SSH key, since nobody else knows it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from drivers.errors import AuthError, DriverError
from drivers.plugins.flags import is_secret

_OPTION: Final = "$secret"  # {"$secret": OPTION}
_PARTS: Final = "$parts"  # {"$parts": [TEXT or {"$secret": OPTION}, ...]}
_KEPT: Final = "$kept"  # {"$kept": PLACE}
_INSIDE: Final = 8  # characters; a shorter secret is not looked for inside other texts
_DEEPEST: Final = 32

Json = object  # what json.loads gives


@dataclasses.dataclass(frozen=True)
class Sealed:
    """`config` may be stored and shown; `kept` are the driver's own secrets by their place."""

    config: Json
    kept: Mapping[str, Json]


def seal(config: Json, secrets: Mapping[str, str]) -> Sealed:
    """`secrets` are the secret options' values by name; empty ones are no secrets."""
    kept: dict[str, Json] = {}
    known = {name: value for name, value in secrets.items() if value}
    return Sealed(_sealed(config, "", known, kept), kept)


def unseal(config: Json, secrets: Mapping[str, str], kept: Mapping[str, Json]) -> Json:
    """Raises AuthError when an option that is needed has no value now."""
    return _unsealed(config, secrets, kept)


def needed(config: Json) -> set[str]:
    """The secret options whose values `unseal` puts back."""
    if isinstance(config, list):
        return set().union(*map(needed, config))
    if not isinstance(config, dict):
        return set()
    if set(config) == {_OPTION}:
        return {str(config[_OPTION])}
    return set().union(*map(needed, config.values()))


def _sealed(value: Json, place: str, secrets: Mapping[str, str], kept: dict[str, Json]) -> Json:
    if place.count(".") > _DEEPEST:
        raise DriverError("the plugin's configuration is nested too deep")
    if isinstance(value, str):
        hidden = _hidden(value, secrets)
        if hidden is not value:
            return hidden
    if value and not isinstance(value, bool | int) and is_secret(place.rpartition(".")[2]):
        kept[place] = value
        return {_KEPT: place}
    if isinstance(value, dict):
        return {k: _sealed(v, f"{place}.{k}", secrets, kept) for k, v in value.items()}
    if isinstance(value, list):
        return [_sealed(v, f"{place}.{i}", secrets, kept) for i, v in enumerate(value)]
    return value


def _hidden(text: str, secrets: Mapping[str, str]) -> Json:
    for name, secret in secrets.items():
        if text == secret:
            return {_OPTION: name}
    for name, secret in secrets.items():
        if len(secret) >= _INSIDE and secret in text:
            parts: list[Json] = []
            for piece in text.split(secret):
                parts += [_hidden(piece, secrets), {_OPTION: name}]
            return {_PARTS: parts[:-1]}
    return text


def _unsealed(value: Json, secrets: Mapping[str, str], kept: Mapping[str, Json]) -> Json:
    if isinstance(value, list):
        return [_unsealed(one, secrets, kept) for one in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {_OPTION}:
        name = str(value[_OPTION])
        if not secrets.get(name):
            raise AuthError(f"--{name} has no value")
        return secrets[name]
    if set(value) == {_PARTS} and isinstance(value[_PARTS], list):
        return "".join(str(_unsealed(part, secrets, kept)) for part in value[_PARTS])
    if set(value) == {_KEPT}:
        return kept.get(str(value[_KEPT]), "")
    return {k: _unsealed(v, secrets, kept) for k, v in value.items()}


def rebased(value: Json, old: str, new: str) -> Json:
    """Paths below the folder `old` as paths below `new`: a store may have moved."""
    if not old or old == new:
        return value
    if isinstance(value, str):
        inside = value == old or value.startswith(old.rstrip("/") + "/")
        return new + value[len(old.rstrip("/")) :] if inside else value
    if isinstance(value, list):
        return [rebased(one, old, new) for one in value]
    if isinstance(value, dict):
        return {k: rebased(v, old, new) for k, v in value.items()}
    return value
