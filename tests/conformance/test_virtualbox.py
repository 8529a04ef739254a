"""The VirtualBox driver against the contract and the fault table, with the real VBoxManage.

The machines have a blank disk and run by VirtualBox's own emulation, so they start in half a second
and never answer. There is no host-only network here: VirtualBox's kernel module is not to be had.
"""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from drivers.api import Driver, DriverContext
from drivers.faults import BreakableDoor, Fault, FaultSuite, Rig
from drivers.options import Value
from drivers.testkit import UUID, DriverSuite, context
from drivers.virtualbox.driver import VirtualBoxDriver
from machine.process import LocalRunner
from tests.lab.cache import Cache
from tests.lab.settings import Settings
from tests.lab.virtualbox import VirtualBox, home, running

SOMEONE = "11111111-2222-4333-8444-555555555555"


@pytest.fixture(scope="module")
def virtualbox(
    lab_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VirtualBox]:
    shared = tmp_path_factory.getbasetemp()
    with home(lab_settings) as folder, running(Cache(lab_settings.cache), folder, shared) as box:
        yield box


def machine(folder: Path, box: VirtualBox, disk: Path) -> tuple[VirtualBoxDriver, DriverContext]:
    if not disk.exists():
        disk.write_bytes(bytes(1 << 20))
    driver = VirtualBoxDriver()
    given: dict[str, Value | None] = {
        "image": str(disk),
        "memory": 64,
        "disk-size": 8,
        "no-vtx-check": True,
        "modify": ("vm-execution-engine=recompiler",),
        "program": str(box.direct),
    }
    ctx = context(folder, driver.options, given)
    return driver, dataclasses.replace(ctx, runner=LocalRunner(dict(os.environ)))


class TestVirtualBox(DriverSuite):
    box: VirtualBox
    disk: Path

    @pytest.fixture(autouse=True)
    def _empty(
        self, virtualbox: VirtualBox, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[None]:
        self.box, self.disk = virtualbox, tmp_path_factory.getbasetemp() / "blank.img"
        yield
        virtualbox.sweep()

    def make(self, folder: Path) -> tuple[Driver, DriverContext]:
        self.box.sweep()
        return machine(folder, self.box, self.disk)


class VirtualBoxRig:
    """Two machines of one name have their folders, as in the store; someone else has a machine."""

    def __init__(self, folder: Path, box: VirtualBox, disk: Path) -> None:
        self._folder = folder
        self._box = box
        self._disk = disk
        self.driver, _ = machine(folder, box, disk)
        folders = ["--basefolder", str(folder / "someone")]
        box.manage("createvm", "--name", "conformance", "--uuid", SOMEONE, *folders, "--register")

    def context(self, door: BreakableDoor, uuid: str = UUID) -> DriverContext:
        folder = self._folder / uuid
        folder.mkdir(exist_ok=True)
        _, ctx = machine(folder, self._box, self._disk)
        return dataclasses.replace(ctx, door=door, uuid=uuid, cache=self._folder / "cache")

    def inventory(self, uuid: str) -> list[str]:
        found = [f"host {ident}" for ident in self._box.machines() if ident == uuid]
        media = self._box.manage("list", "hdds") + self._box.manage("list", "dvds")
        folder = self._folder / uuid
        found += [f"medium {line}" for line in media.splitlines() if f"{folder}/" in line]
        if folder.exists() and uuid not in self._box.machines():
            found += [f"file {path.name}" for path in folder.iterdir() if path.name != "cache"]
        return sorted(found)

    def foreign(self) -> object:
        text = self._box.manage("showvminfo", SOMEONE, "--machinereadable")
        # VirtualBox rounds the time when it reads its files again
        info = [row for row in text.splitlines() if not row.startswith("VMStateChangeTime")]
        extra = self._box.manage("getextradata", SOMEONE, "enumerate")
        return info, extra, self._box.manage("list", "dhcpservers")


class TestVirtualBoxFaults(FaultSuite):
    every: ClassVar[int] = 40
    creates = ("createvm", "convertfromraw")
    box: VirtualBox
    disk: Path

    @pytest.fixture(autouse=True)
    def _empty(
        self, virtualbox: VirtualBox, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[None]:
        self.box, self.disk = virtualbox, tmp_path_factory.getbasetemp() / "blank.img"
        yield
        virtualbox.sweep()

    def _table(self, calls: int) -> Iterator[tuple[int, Fault]]:
        """A few that say most: each costs seconds. test_virtualbox_fake has the whole table."""
        if self.every == 1:
            yield from super()._table(calls)
            return
        yield calls // 3, Fault.KILLED_AFTER
        yield calls * 2 // 3, Fault.TIMEOUT_AFTER
        yield calls - 2, Fault.KILLED_AFTER

    def rig(self, folder: Path) -> Rig:
        self.box.sweep()
        return VirtualBoxRig(folder, self.box, self.disk)
