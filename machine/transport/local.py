"""This computer as the host: `sh -c` of a constant line, no SSH."""

from __future__ import annotations

from collections.abc import Mapping

from machine.process import Child
from machine.transport.api import Running


class LocalTransport:
    """Runs commands as the user who runs `machine`; the provisioner's own commands use sudo."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)

    def start(self, command: str) -> Running:
        return Child(["/bin/sh", "-c", command], self._env)

    def close(self) -> None:
        """Nothing stays open between commands."""
