"""The DigitalOcean driver against the contract, before the emulator of its API."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers import registry
from drivers.api import Driver, DriverContext
from drivers.faults import OTHER_UUID, BreakableDoor, FaultSuite, Rig
from drivers.options import Value
from drivers.testkit import UUID, DriverSuite, context
from tests.support.dolab import ApiError, Cloud, DoLab, Lag

TOKEN = "dop_v1_conformance"
SOMEONE = "5f2f6d4e-1111-4222-8333-444455556666"


@pytest.fixture(autouse=True)
def dolab(request: pytest.FixtureRequest) -> Iterator[DoLab]:
    with DoLab() as lab:
        request.instance.lab = lab
        yield lab


def options(lab: DoLab, **more: Value) -> dict[str, Value | None]:
    return {
        "access-token": TOKEN,
        "endpoint": lab.endpoint,
        "open-to": ("198.51.100.7/32",),
        "volume-size": 10,
        **more,
    }


class TestDigitalOcean(DriverSuite):
    lab: DoLab

    def make(self, folder: Path) -> tuple[Driver, DriverContext]:
        cloud = self.lab.account(TOKEN)
        cloud.lag = Lag(listed=2, known=2, new=2, action=2, attached=2, snapshot=2)
        driver = registry.load("digitalocean")
        return driver, context(folder, driver.options, options(self.lab))


class DigitalOceanRig:
    """An account in which someone else has one of everything."""

    def __init__(self, lab: DoLab, folder: Path) -> None:
        self._lab = lab
        self._folder = folder
        self.driver = registry.load("digitalocean")
        self.cloud: Cloud = lab.account(TOKEN)
        self.cloud.lag = Lag(listed=2, known=1, new=1, action=1, attached=1, snapshot=1)
        _furnish(self.cloud)

    def context(self, door: BreakableDoor, uuid: str = UUID) -> DriverContext:
        ctx = context(self._folder, self.driver.options, options(self._lab))
        return dataclasses.replace(ctx, door=door, uuid=uuid)

    def inventory(self, uuid: str) -> list[str]:
        return [line for line in self.cloud.inventory() if uuid in line]

    def foreign(self) -> object:
        lines = self.cloud.inventory()
        return [line for line in lines if UUID not in line and OTHER_UUID not in line]


class TestDigitalOceanFaults(FaultSuite):
    every = 3
    creates = ("tags_create", "sshKeys_create", "firewalls_create", "droplets_create")
    reads = ("droplets_get",)
    lab: DoLab

    def rig(self, folder: Path) -> Rig:
        return DigitalOceanRig(self.lab, folder)


def _furnish(cloud: Cloud) -> None:
    """Of a machine of another store, and of nobody."""
    tag, name = f"machine:{SOMEONE}", f"machine-{SOMEONE}"
    rule = {"protocol": "tcp", "ports": "22", "sources": {"addresses": ["0.0.0.0/0"]}}
    for title, label in ((name, tag), ("office", "web")):
        cloud.make_tag({"name": label})
        body = {"name": title, "tags": [label]}
        cloud.make_firewall({**body, "inbound_rules": [rule]})
        cloud.make_volume({**body, "region": "nyc3", "size_gigabytes": 5})
        made = {"region": "nyc3", "size": "s-1vcpu-1gb", "image": "debian-12-x64"}
        droplet, _ = cloud.make_droplet({**body, **made})
        while droplet["status"] == "new":
            with contextlib.suppress(ApiError):
                droplet = cloud.droplet(droplet["id"])
        action = cloud.act(droplet["id"], {"type": "snapshot", "name": f"{title}-first"})
        while action["status"] != "completed":
            action = cloud.action(action["id"])
    cloud.make_key({"name": "laptop", "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"})
