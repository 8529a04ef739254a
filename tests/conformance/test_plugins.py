"""The bridge to docker-machine's plugin binaries against the contract, before a stand-in."""

import dataclasses
import json
from pathlib import Path

from drivers.api import Driver, DriverContext
from drivers.faults import BreakableDoor, FaultSuite, Rig
from drivers.plugins.driver import PluginDriver
from drivers.plugins.session import Binary
from drivers.testkit import UUID, DriverSuite, context
from tests.support.goplugin.standin import Spawner


def standin_driver(spawner: Spawner) -> PluginDriver:
    """The bridge before a stand-in; what it says is not shown."""
    place = Path("/nowhere/docker-machine-driver-standin")
    return PluginDriver(Binary("standin", place, spawner, lambda _: None, lambda _: None))


def given(cloud: Path) -> dict[str, str]:
    return {"standin-token": "good-token", "standin-cloud": str(cloud)}


class TestPlugin(DriverSuite):
    def make(self, folder: Path) -> tuple[Driver, DriverContext]:
        cloud = folder.parent / f"{folder.name}-cloud"
        cloud.mkdir()
        driver = standin_driver(Spawner())
        return driver, context(folder, driver.options, given(cloud))


class PluginRig:
    """The provider is a folder; a server is a machine's by the store that its plugin was given."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cloud = folder / "cloud"
        self._cloud.mkdir()
        someone = {"name": "conformance", "store": "/someone/else", "state": 1}
        (self._cloud / "0000.json").write_text(json.dumps(someone))
        self.driver = standin_driver(Spawner())

    def context(self, door: BreakableDoor, uuid: str = UUID) -> DriverContext:
        machine = self._folder / uuid
        machine.mkdir(exist_ok=True)
        ctx = context(machine, self.driver.options, given(self._cloud))
        return dataclasses.replace(ctx, door=door, uuid=uuid)

    def inventory(self, uuid: str) -> list[str]:
        return self._of(str(self._folder / uuid / "plugin"))

    def foreign(self) -> object:
        return self._of("/someone/else")

    def _of(self, store: str) -> list[str]:
        servers = sorted(self._cloud.glob("*.json"))
        return [f"host {s.stem}" for s in servers if json.loads(s.read_text())["store"] == store]


class TestPluginFaults(FaultSuite):
    creates = ("Create",)

    def rig(self, folder: Path) -> Rig:
        return PluginRig(folder)
