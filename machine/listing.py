"""What `ls` shows of a machine, and which machines a filter lets through.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from machine.errors import MachineError
from machine.model import MachineRecord

HEADERS: Mapping[str, str] = {
    "Name": "NAME",
    "Active": "ACTIVE",
    "ActiveHost": "ACTIVE_HOST",
    "ActiveSwarm": "ACTIVE_SWARM",
    "DriverName": "DRIVER",
    "State": "STATE",
    "URL": "URL",
    "SwarmOptions": "SWARM_OPTIONS",
    "Swarm": "SWARM",
    "EngineOptions": "ENGINE_OPTIONS",
    "Error": "ERRORS",
    "DockerVersion": "DOCKER",
    "ResponseTime": "RESPONSE",
}
TABLE = ("Name", "Active", "DriverName", "State", "URL", "Swarm", "DockerVersion", "Error")
FILTERS = ("swarm", "driver", "state", "name", "label")


@dataclass(frozen=True)
class Row:
    """One machine as it was found.  `record` is None when its record can't be read."""

    name: str
    record: MachineRecord | None
    state: str = ""
    url: str = ""
    version: str = ""
    error: str = ""
    seconds: float = 0.0

    def cells(self, docker_host: str) -> dict[str, str]:
        """The template fields of docker-machine's ls."""
        active = bool(self.url) and self.state == "Running" and self.url == docker_host
        return {
            "Name": self.name,
            "Active": "*" if active else "-",
            "ActiveHost": str(active).lower(),
            "ActiveSwarm": "false",
            "DriverName": self.record.driver if self.record else "not found",
            "State": self.state,
            "URL": self.url,
            "SwarmOptions": "",
            "Swarm": "",
            "EngineOptions": " ".join(self.record.engine.labels) if self.record else "",
            "Error": "" if self.error == "Host is not running" else self.error,
            "DockerVersion": f"v{self.version}" if self.version else "Unknown",
            "ResponseTime": f"{self.seconds * 1000:.0f}ms",
        }


def parse_filters(words: Iterable[str]) -> dict[str, list[str]]:
    """--filter words.  Same key: any of them; different keys: all of them."""
    found: dict[str, list[str]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise MachineError("Unsupported filter syntax", hint="Write it as key=value.")
        if key not in FILTERS:
            raise MachineError(
                f"Unsupported filter key '{key}'", hint=f"Known keys: {', '.join(FILTERS)}."
            )
        found.setdefault(key, []).append(value)
    _check_names(found.get("name", []))
    return found


def _check_names(patterns: Sequence[str]) -> None:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise MachineError(f"Bad name filter {pattern!r}", details=str(error)) from error


def matches(row: Row, filters: Mapping[str, Sequence[str]]) -> bool:
    """Whether a machine is shown."""
    return all(any(_one(row, key, value) for value in values) for key, values in filters.items())


def _one(row: Row, key: str, value: str) -> bool:
    if key == "name":
        return re.search(value, row.name) is not None
    if key == "state":
        return row.state.lower() == value.lower()
    if row.record is None or key == "swarm":
        return False
    if key == "driver":
        return row.record.driver.lower() == value.lower()
    return value.lower() in (label.lower() for label in row.record.engine.labels)
