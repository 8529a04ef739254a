"""Driver options as rows of a table: they give flags, environment names, help, docs and secrets.

Names and environment variables are docker-machine's where it had them, so that old scripts work.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping
from typing import Final

from drivers.errors import DriverError


class Kind(enum.Enum):
    """What an option's value is: docker-machine's four types, and two it lacked."""

    TEXT = "string"
    INTEGER = "int"
    FLAG = "bool"
    LIST = "list"  # given several times; in the environment separated by commas
    PATH = "path"  # a file of the user's; ~ is expanded
    PORT = "port"  # an integer of 1 to 65535


Value = str | int | bool | tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class OptionSpec:
    """One option of a driver.

    `name` is the key in `DriverContext.options` and in the record; `flags` are the long options
    that give it, the first one shown in help; `env` the environment variables, the first one set
    wins. A `secret` option's value is never stored, logged or shown. `required` is checked when
    all sources were read.
    """

    name: str
    flags: tuple[str, ...]
    help: str
    kind: Kind = Kind.TEXT
    default: Value = ""
    env: tuple[str, ...] = ()
    secret: bool = False
    required: bool = False


_TRUE: Final = frozenset({"1", "t", "true", "yes"})
_FALSE: Final = frozenset({"0", "f", "false", "no", ""})


def resolve(
    specs: Iterable[OptionSpec], given: Mapping[str, Value | None], env: Mapping[str, str]
) -> dict[str, Value]:
    """Every option's value: the command line's, else the environment's, else the default.

    Raises DriverError that names all wrong and missing options at once.
    """
    out: dict[str, Value] = {}
    problems: list[str] = []
    for spec in specs:
        try:
            out[spec.name] = _one(spec, given.get(spec.name), env)
        except ValueError as err:
            problems.append(str(err))
            continue
        if spec.required and out[spec.name] in {"", ()}:
            problems.append(_missing(spec))
    if problems:
        raise DriverError("\n".join(problems))
    return out


def stored(specs: Iterable[OptionSpec], values: Mapping[str, Value]) -> dict[str, object]:
    """What may go into a record: everything but secrets; lists as JSON has them."""
    hidden = {spec.name for spec in specs if spec.secret}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if name not in hidden
    }


def from_stored(
    specs: Iterable[OptionSpec], record: Mapping[str, object], env: Mapping[str, str]
) -> dict[str, Value]:
    """Option values of an existing machine: the record's; secrets come from the environment again.

    Raises DriverError when the record holds a value of the wrong type.
    """
    out: dict[str, Value] = {}
    for spec in specs:
        raw = record.get(spec.name)
        if raw is None:
            out[spec.name] = _one(spec, None, env if spec.secret else {})
        elif isinstance(raw, list):
            out[spec.name] = tuple(str(v) for v in raw)
        elif isinstance(raw, str | int):
            out[spec.name] = parse(spec, raw)
        else:
            raise DriverError(f"the record's value of {spec.name} is no {spec.kind.value}")
    return out


def parse(spec: OptionSpec, raw: Value) -> Value:
    """One value as its kind's type. Raises ValueError with a text for the user."""
    where = spec.flags[0] if spec.flags else spec.name
    if spec.kind is Kind.LIST:
        return raw if isinstance(raw, tuple) else tuple(v for v in str(raw).split(",") if v)
    if spec.kind is Kind.FLAG:
        return _flag(where, raw)
    if spec.kind in {Kind.INTEGER, Kind.PORT}:
        return _number(spec, where, raw)
    text = str(raw)
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise ValueError(f"{where} holds a control character")
    return text


def _one(spec: OptionSpec, given: Value | None, env: Mapping[str, str]) -> Value:
    if given is not None and given != ():
        return parse(spec, given)
    for name in spec.env:
        if env.get(name):
            return parse(spec, env[name])
    return parse(spec, spec.default)


def _flag(where: str, raw: Value) -> bool:
    word = str(raw).lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f'{where} takes true or false, not "{raw}"')


def _number(spec: OptionSpec, where: str, raw: Value) -> int:
    try:
        number = int(str(raw))
    except ValueError:
        raise ValueError(f'{where} takes a number, not "{raw}"') from None
    if spec.kind is Kind.PORT and not 0 < number < 65536:
        raise ValueError(f"{where} takes a port of 1 to 65535, not {number}")
    return number


def _missing(spec: OptionSpec) -> str:
    env = f" (or the environment variable {spec.env[0]})" if spec.env else ""
    return f"{spec.flags[0]} is required{env}: {spec.help}"
