"""The driver against the contract (drivers.testkit, drivers.faults), and what is Nimbus' alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest
from machine_driver_nimbus import DRIVER
from machine_driver_nimbus.emulator import ACCOUNT, Emulator
from machine_driver_nimbus.provider import Nimbus, _decoded

from drivers.api import Driver, DriverContext, SeedRequest
from drivers.errors import AuthError, DriverError, InvalidError, QuotaError, TransientError
from drivers.faults import BreakableDoor, FaultSuite, Rig
from drivers.testkit import UUID, DriverSuite, context

SEED = SeedRequest("someone")


class EmulatedHttp:
    """drivers.api.Http whose other end is the emulator."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout: float = 60.0,
    ) -> tuple[int, bytes]:
        del timeout
        target = url.removeprefix("https://api.nimbus.example")
        return self._emulator.handle(method, target, headers or {}, body)


def ready(emulator: Emulator, folder: Path, **given: str) -> DriverContext:
    ctx = context(folder, DRIVER.options, {"token": ACCOUNT, **given})
    return dataclasses.replace(ctx, http=EmulatedHttp(emulator))


class TestContract(DriverSuite):
    def make(self, folder: Path) -> tuple[Driver, DriverContext]:
        return DRIVER, ready(Emulator(), folder)


class NimbusRig:
    """An account in which someone has a key and a server already."""

    driver = DRIVER

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._emulator = Emulator()
        ctx = dataclasses.replace(ready(self._emulator, folder), uuid="someone")
        nimbus = Nimbus(ctx)
        nimbus.make_server(nimbus.make_key("ssh-ed25519 AAAA"), ctx.seeds.seed(SEED))

    def context(self, door: BreakableDoor, uuid: str = UUID) -> DriverContext:
        return dataclasses.replace(ready(self._emulator, self._folder), door=door, uuid=uuid)

    def inventory(self, uuid: str) -> list[str]:
        mine = [f"host {i}" for i, one in self._emulator.servers.items() if one["tag"] == uuid]
        return sorted(
            mine + [f"key {i}" for i, one in self._emulator.keys.items() if one["tag"] == uuid]
        )

    def foreign(self) -> object:
        return self.inventory("someone")


class TestFaults(FaultSuite):
    creates = ("CreateKey", "CreateServer")
    reads = ("GetServer",)
    every = 2

    def rig(self, folder: Path) -> Rig:
        return NimbusRig(folder)


def test_all_problems_at_once(tmp_path: Path) -> None:
    ctx = ready(Emulator(), tmp_path, size="huge", userdata="/nothing")
    assert DRIVER.check(ctx) == [
        "--nimbus-userdata /nothing: there is no such file",
        "--nimbus-size huge: there is small, large",
    ]
    wrong = ready(Emulator(), tmp_path, token="wrong")
    assert DRIVER.check(wrong) == ["ListSizes: 401 this token is not known"]


@pytest.mark.parametrize(
    ("status", "answer", "kind"),
    [
        (401, b'{"error": "expired"}', AuthError),
        (402, b'{"error": "limit"}', QuotaError),
        (422, b'{"error": "size"}', InvalidError),
        (429, b'{"error": "slow down", "retry_after": 3}', TransientError),
        (503, b"{}", TransientError),
        (502, b"<html>", TransientError),
        (418, b"{}", DriverError),
    ],
)
def test_errors(status: int, answer: bytes, kind: type[DriverError]) -> None:
    with pytest.raises(DriverError) as caught:
        _decoded("CreateServer", status, answer)
    assert type(caught.value) is kind
    assert isinstance(caught.value, TransientError) is (status in {429, 502, 503})
