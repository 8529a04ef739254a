"""The fault table on the reference driver."""

import dataclasses
from pathlib import Path

from drivers.api import DriverContext
from drivers.fake import FakeCloud, FakeDriver
from drivers.faults import BreakableDoor, FaultSuite, Rig
from drivers.testkit import UUID, context


class FakeRig:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.cloud = FakeCloud()
        self.cloud.make_key("someone")
        self.cloud.make_server("someone")
        self.driver = FakeDriver(self.cloud)

    def context(self, door: BreakableDoor, uuid: str = UUID) -> DriverContext:
        ctx = context(self._folder, self.driver.options, {"token": "t"})
        return dataclasses.replace(ctx, door=door, uuid=uuid)

    def inventory(self, uuid: str) -> list[str]:
        keys, servers = self.cloud.find(uuid)
        return sorted([f"key {k}" for k in keys] + [f"host {s.ident}" for s in servers])

    def foreign(self) -> object:
        return self.inventory("someone")


class TestFakeFaults(FaultSuite):
    creates = ("make_key", "make_server")

    def rig(self, folder: Path) -> Rig:
        return FakeRig(folder)
