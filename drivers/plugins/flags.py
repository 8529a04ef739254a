"""A plugin's flags as our options, and their values as the plugin wants them.

Which flags are secrets is not said by the protocol: it is guessed from their names (`is_secret`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Final

from drivers.errors import DriverError
from drivers.options import Kind, OptionSpec, Value
from drivers.plugins import gob

_MOST: Final = 200
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
_ENV: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_KINDS: Final = {
    "StringFlag": Kind.TEXT,
    "IntFlag": Kind.INTEGER,
    "BoolFlag": Kind.FLAG,
    "StringSliceFlag": Kind.LIST,
}
_SECRET_WORDS: Final = frozenset(
    {"token", "secret", "password", "passwd", "pass", "passphrase", "passcode"}
    | {"credential", "credentials", "apikey"}
)
_NO_SECRET_KEYS: Final = frozenset({"ssh", "public", "existing"})
_TEXTS: Final = gob.Slice(gob.STRING)


@dataclasses.dataclass(frozen=True)
class Flags:
    """What GetCreateFlags said. `family` is how the plugin registered its types (`name_of`)."""

    specs: tuple[OptionSpec, ...]
    family: str


def read_flags(answer: object) -> Flags:
    """Raises DriverError when the answer is no list of docker-machine's flags."""
    if not isinstance(answer, list) or len(answer) > _MOST:
        raise DriverError("the plugin's answer to GetCreateFlags is no list of flags")
    specs: dict[str, OptionSpec] = {}
    family = ""
    for entry in answer:
        if not isinstance(entry, gob.Concrete) or not isinstance(entry.value, dict):
            raise DriverError("the plugin's answer to GetCreateFlags is no list of flags")
        family, _, kind = entry.name.rpartition(".")
        if kind not in _KINDS:
            raise DriverError(f"the plugin has a flag of an unknown type: {entry.name[:80]!r}")
        spec = _spec(_KINDS[kind], entry.value)
        specs.setdefault(spec.name, spec)
    return Flags(tuple(specs.values()), family)


def _spec(kind: Kind, flag: Mapping[str, object]) -> OptionSpec:
    name, usage = str(flag.get("Name", "")), str(flag.get("Usage", ""))
    if not _NAME.fullmatch(name):
        raise DriverError(f"the plugin has a flag that can't be an option: {name[:80]!r}")
    secret = kind is Kind.TEXT and is_secret(name)
    env = str(flag.get("EnvVar", "")) or (_own_env(name) if secret else "")
    note = " (never stored: give it in the environment)" if secret else ""
    return OptionSpec(
        name,
        (f"--{name}",),
        (" ".join(usage.split()) or f"The plugin's {name}") + note,
        kind=kind,
        default=_default(kind, flag.get("Value")),
        env=(env,) if _ENV.fullmatch(env) else (),
        secret=secret,
    )


def _own_env(name: str) -> str:
    """A secret that the plugin reads from its flag only needs a variable: it is not stored."""
    return re.sub("[^A-Z0-9]", "_", name.upper())


def _default(kind: Kind, value: object) -> Value:
    if kind is Kind.LIST:
        return tuple(str(one) for one in value) if isinstance(value, list) else ()
    if kind is Kind.INTEGER:
        return value if isinstance(value, int) else 0
    return False if kind is Kind.FLAG else str(value or "")


def words_of(name: str) -> list[str]:
    """`digitalocean-access-token`, `AccessToken` and `API_TOKEN` in lower-case words."""
    parted = re.sub(r"([a-z0-9])([A-Z])|([A-Z]+)([A-Z][a-z])", r"\1\3 \2\4", name)
    return [word for word in re.split(r"[^a-z0-9]+", parted.lower()) if word]


def is_secret(name: str) -> bool:
    """Whether something of that name holds a credential.

    `...token`, `...secret`, `...password` and their like anywhere; `...key` only at the end and not
    an SSH or public one, which are paths and ids (`ssh-key`, `key-name`, `ssh-key-fingerprint`).
    """
    words = words_of(name)
    if _SECRET_WORDS.intersection(words):
        return words[-1] not in {"path", "file", "ttl", "url", "endpoint", "id", "name"}
    return words[-1:] == ["key"] and not _NO_SECRET_KEYS.intersection(words)


def name_of(family: str, *, old: bool) -> str:
    """The registered name of the type that SetConfigFromFlags takes, in the plugin's own family.

    Plugins register pointers, whose name has the package only (`*mcnflag.StringFlag`), whoever's
    fork they are built from; a type registered as a value has the import path of its fork.
    """
    kind = "RpcFlags" if old else "RPCFlags"
    star = "*" if family.startswith("*") else ""
    package = family.removeprefix("*")
    if "/" not in package:
        return f"{star or '*'}rpcdriver.{kind}"
    return f"{star}{package.rpartition('/')[0]}/drivers/rpc.{kind}"


def values_for(flags: Flags, values: Mapping[str, Value], *, old: bool) -> gob.Concrete:
    """SetConfigFromFlags' argument: every flag with its value."""
    held = {spec.name: _value(values.get(spec.name, spec.default)) for spec in flags.specs}
    name = name_of(flags.family, old=old)
    kind = gob.Struct(name.rpartition(".")[2], (("Values", gob.Map(gob.STRING, gob.INTERFACE)),))
    return gob.Concrete(name, {"Values": held}, kind)


def _value(value: Value) -> gob.Concrete:
    if isinstance(value, bool):
        return gob.Concrete("bool", value, gob.BOOL)
    if isinstance(value, int):
        return gob.Concrete("int", value, gob.INT)
    if isinstance(value, tuple):
        return gob.Concrete("[]string", list(value), _TEXTS)
    return gob.Concrete("string", value, gob.STRING)
