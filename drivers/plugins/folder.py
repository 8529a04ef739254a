"""The folder that a plugin takes for docker-machine's store, and what we keep of its driver there.

`MACHINE/plugin` is the plugin's StorePath: it sees docker-machine's layout (machines/NAME, cache)
and nothing of ours. driver.json has the driver's configuration without credentials and how far
`create` got; it is written before Create is asked for, and while Create works.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from drivers.errors import DriverError
from drivers.plugins.child import Identity
from drivers.plugins.vault import Json, Sealed, rebased, seal, unseal

STATE_FILE: Final = "plugin/driver.json"
_LIMIT: Final = 1 << 20

CREATING, CREATED, REMOVED = "creating", "created", "removed"


@dataclasses.dataclass(frozen=True)
class Kept:
    """What driver.json says; `stage` "" when there is none."""

    stage: str = ""
    config: Json = None
    secrets: Mapping[str, Json] = dataclasses.field(default_factory=dict)
    plugin: Identity | None = None  # of the create that is at work, or was cut off


class Folder:
    """The plugin's part of a machine's folder. Nothing is written before `save`."""

    def __init__(self, machine: Path, name: str) -> None:
        self.store = machine / "plugin"
        self._name = name
        self._state = machine / STATE_FILE
        self._secrets = self.store / "kept.json"

    def fresh(self) -> dict[str, Json]:
        """The configuration that a new machine begins with, as docker-machine gives it."""
        return {"MachineName": self._name, "StorePath": str(self.store)}

    def load(self) -> Kept:
        """Raises DriverError when the file is there and is none of ours."""
        if not self._state.exists():
            return Kept()
        found = _read(self._state)
        stage, config = found.get("stage"), found.get("config")
        if stage not in {CREATING, CREATED, REMOVED} or not isinstance(config, dict):
            raise DriverError(f"{self._state} is no state of a plugin's driver")
        secrets = _read(self._secrets) if self._secrets.exists() else {}
        return Kept(stage, config, secrets, _identity(found.get("plugin")))

    def save(
        self,
        stage: str,
        config: Mapping[str, Json],
        secrets: Mapping[str, str],
        plugin: Identity | None = None,
    ) -> None:
        """Keep the driver's configuration, sealed; the machine's folder is made for the plugin."""
        sealed: Sealed = seal(dict(config), secrets)
        content: dict[str, Json] = {"stage": stage, "config": sealed.config}
        if plugin is not None and stage == CREATING:
            content["plugin"] = dataclasses.asdict(plugin)
        try:
            (self.store / "machines" / self._name).mkdir(mode=0o700, parents=True, exist_ok=True)
            self.store.chmod(0o700)
            _write(self._secrets, sealed.kept)
            _write(self._state, content)
        except OSError as err:
            raise DriverError(f"cannot write {self._state}: {err.strerror}") from err

    def mark(self, stage: str, kept: Kept) -> None:
        """The same configuration at another stage."""
        _write(self._state, {"stage": stage, "config": kept.config})

    def config(self, kept: Kept, secrets: Mapping[str, str]) -> dict[str, Json]:
        """The configuration with its credentials, for the folder where it is now.

        Raises AuthError when a credential is missing.
        """
        whole = unseal(kept.config, secrets, kept.secrets)
        if not isinstance(whole, dict):
            raise DriverError(f"{self._state} is no state of a plugin's driver")
        moved = rebased(whole, str(whole.get("StorePath", "")), str(self.store))
        return {**moved, **self.fresh()} if isinstance(moved, dict) else self.fresh()


def parse_config(data: object) -> dict[str, Json]:
    """GetConfigRaw's answer. Raises DriverError."""
    if isinstance(data, bytes) and len(data) <= _LIMIT:
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            return found
    raise DriverError("the plugin's configuration is no JSON object")


def _identity(found: Json) -> Identity | None:
    if not isinstance(found, dict):
        return None
    pid, address = found.get("pid"), found.get("address")
    return Identity(pid, str(address)) if isinstance(pid, int) else None


def _read(path: Path) -> dict[str, Json]:
    try:
        return parse_config(path.read_bytes()[: _LIMIT + 1])
    except (OSError, DriverError) as err:
        raise DriverError(f"{path} can't be read: {err}") from err


def _write(path: Path, content: Json) -> None:
    """Whole or not at all, readable by nobody else."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
