"""The service's files for one host, from the templates in cloud-init/units. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from machine.errors import MachineError

_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=[^\x00-\x1f\x7f]*")


def systemd(template: str, python: str, env: Iterable[str]) -> str:
    """The unit; `env` is --engine-env's K=V. Raises MachineError for what no variable can be."""
    lines = "".join(f"Environment={_systemd_quoted(e)}\n" for e in checked_env(env))
    return template.replace("@PYTHON@", python).replace("@ENVIRONMENT@\n", lines)


def supervise(template: str, python: str) -> str:
    return template.replace("@PYTHON@", python)


def checked_env(env: Iterable[str]) -> list[str]:
    """K=V pairs as given; a control character would end the line that it stands in."""
    out = list(env)
    for pair in out:
        if not _ENV.fullmatch(pair):
            raise MachineError(f"--engine-env {pair.partition('=')[0]!r} is not KEY=VALUE")
    return out


def _systemd_quoted(text: str) -> str:
    """systemd.syntax(7): C escapes inside double quotes, and % starts a specifier."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
