"""What only some drivers can do: snapshots, sizes, the console, and what is left over at a provider."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Final, Protocol

from drivers.api import (
    Console,
    Driver,
    DriverContext,
    HostState,
    ListOwned,
    Needs,
    Resize,
    Size,
    Snapshot,
)
from drivers.errors import CannotError
from drivers.options import Value
from machine.errors import EXIT_ERROR, MachineError, printable
from machine.hosts import Hosts, driver_errors
from machine.model import MachineRecord
from machine.progress import Progress
from machine.store import Store

_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Refresh(Protocol):
    """Brings a machine back after its host was off: waits for SSH and the engine."""

    def __call__(self, record: MachineRecord) -> None: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Orphan:
    """Something at a provider that carries our tag and belongs to no machine of this store."""

    uuid: str
    things: tuple[str, ...]
    ours: bool  # this store has made a machine of that uuid


class Abilities:
    """Use cases over one store, for the drivers that can. Each raises MachineError."""

    def __init__(self, store: Store, hosts: Hosts, progress: Progress, refresh: Refresh) -> None:
        self._store = store
        self._hosts = hosts
        self._progress = progress
        self._refresh = refresh

    def snapshot(self, name: str, label: str) -> None:
        """Keep the host as it is now under `label`."""
        _check_label(label)
        with self._store.operating(name):
            record, driver = self._keeper(name)
            with driver_errors():
                driver.snapshot(self._hosts.context(record), label)

    def snapshots(self, name: str) -> list[str]:
        """The labels, oldest first."""
        record, driver = self._keeper(name)
        with driver_errors():
            return driver.snapshots(self._hosts.context(record))

    def restore(self, name: str, label: str) -> None:
        """Put the host back to `label`; a running one answers again when this returns."""
        with self._store.operating(name):
            record, driver = self._keeper(name)
            with driver_errors():
                driver.restore(self._hosts.context(record), label)
            self._awake(record)

    def drop_snapshot(self, name: str, label: str) -> None:
        with self._store.operating(name):
            record, driver = self._keeper(name)
            with driver_errors():
                if label not in driver.snapshots(self._hosts.context(record)):
                    raise MachineError(
                        f'Machine "{name}" has no snapshot "{label}"',
                        hint=f"See what there is: machine snapshot ls {name}",
                    )
                driver.drop_snapshot(self._hosts.context(record), label)

    def resize(self, name: str, size: Size) -> None:
        """Give the host another size; a running one answers again when this returns."""
        if size == Size():
            raise MachineError("Nothing to change", hint="Give --cpus, --memory, --disk or --size.")
        with self._store.operating(name):
            record = self._store.load(name)
            driver = self._hosts.driver(record)
            if not isinstance(driver, Resize):
                raise _cannot(record.driver, "change the size of a host")
            with driver_errors():
                driver.resize(self._hosts.context(record), size)
            self._awake(record)

    def console(self, name: str) -> str:
        """What the host wrote on its console."""
        record = self._store.load(name)
        driver = self._hosts.driver(record)
        if not isinstance(driver, Console):
            raise _cannot(record.driver, "show a console")
        with driver_errors():
            return driver.console(self._hosts.context(record))

    # -- what is left over

    def orphans(self, driver_name: str, values: Mapping[str, Value]) -> list[Orphan]:
        """What the provider has of ours that no machine of this store accounts for (case 160).

        A tag with anything but a uuid, which others may have put there, is none of ours.
        """
        ctx, driver = self._account(driver_name, values)
        if not isinstance(driver, ListOwned):
            raise cannot_list(driver_name)
        with driver_errors():
            found = driver.owned(ctx)
        known = {e.record.uuid for e in self._store.entries() if e.record}
        made = self._store.made()
        things: dict[str, list[str]] = {}
        for uuid, what in found:
            if uuid not in known and _UUID.fullmatch(uuid):
                things.setdefault(uuid, []).append(printable(what))
        return [
            Orphan(uuid, tuple(sorted(whats)), ours=uuid in made)
            for uuid, whats in sorted(things.items())
        ]

    def collect(self, driver_name: str, values: Mapping[str, Value], orphan: Orphan) -> None:
        """Remove an orphan at its provider, by its tag alone."""
        ctx, driver = self._account(driver_name, values, orphan.uuid)
        with driver_errors(f"Error removing {orphan.uuid}"):
            driver.remove(ctx)

    def missing(self, driver: Driver) -> list[str]:
        """What this computer lacks for the driver, with how to get it; [] when it can be used."""
        if not isinstance(driver, Needs):
            return []
        bare = MachineRecord(name="drivers", uuid="", driver=driver.name, created="")
        with driver_errors():
            return driver.missing(
                self._hosts.context(bare, {s.name: s.default for s in driver.options})
            )

    def _account(
        self, driver_name: str, values: Mapping[str, Value], uuid: str = ""
    ) -> tuple[DriverContext, Driver]:
        bare = MachineRecord(name=f"gc-{uuid[:8]}", uuid=uuid, driver=driver_name, created="")
        return self._hosts.context(bare, values), self._hosts.driver(bare)

    def _awake(self, record: MachineRecord) -> None:
        if self._hosts.state(record) is HostState.RUNNING:
            self._refresh(record)

    def _keeper(self, name: str) -> tuple[MachineRecord, Snapshot]:
        record = self._store.load(name)
        driver = self._hosts.driver(record)
        if not isinstance(driver, Snapshot):
            raise _cannot(record.driver, "keep snapshots")
        return record, driver


def cannot_list(driver: str) -> MachineError:
    """What is said when a driver without ListOwned is asked for what is left over."""
    err = _cannot(driver, "list what it has made")
    err.hint = "Name one that can, as in: machine gc -d DRIVER (machine drivers says which)"
    return err


def _cannot(driver: str, what: str) -> MachineError:
    err = CannotError(f"{driver} driver cannot {what}")
    return MachineError(
        err.message,
        hint="What each driver can do: machine drivers",
        exit_code=EXIT_ERROR,
    )


def _check_label(label: str) -> None:
    if not _LABEL.fullmatch(label):
        raise MachineError(
            f"{label!r} can't be a snapshot's name",
            hint="Letters, digits, dots, dashes and underscores; 63 at most.",
        )
