"""The VirtualBox driver with host-only networks and without, before a VBoxManage in memory.

test_virtualbox has the real one, which is too slow for the whole fault table and has no host-only
networks here.
"""

import dataclasses
from pathlib import Path
from typing import ClassVar

import pytest

from drivers.api import Driver, DriverContext, HostState
from drivers.errors import ConflictError, InvalidError
from drivers.faults import OTHER_UUID, BreakableDoor, FaultSuite, Rig
from drivers.options import Value
from drivers.testkit import UUID, DriverSuite, FixedSeeds, context, created
from drivers.virtualbox.driver import VirtualBoxDriver
from tests.support.vboxmanage import FakeVBoxManage

SOMEONE = "11111111-2222-4333-8444-555555555555"


def machine(
    folder: Path, box: FakeVBoxManage, **given: Value | None
) -> tuple[VirtualBoxDriver, DriverContext]:
    disk = folder.parent / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    driver = VirtualBoxDriver()
    options: dict[str, Value | None] = {"image": str(disk), "no-vtx-check": True}
    ctx = context(folder, driver.options, options | given)
    return driver, dataclasses.replace(ctx, runner=box)


class TestVirtualBoxWithHostOnly(DriverSuite):
    def make(self, folder: Path) -> tuple[Driver, DriverContext]:
        return machine(folder, FakeVBoxManage())


class TestVirtualBoxWithNatOnly(DriverSuite):
    def make(self, folder: Path) -> tuple[Driver, DriverContext]:
        return machine(folder, FakeVBoxManage(no_hostonly=True))


class FakeRig:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.box = FakeVBoxManage()
        self.driver, _ = machine(folder, self.box)
        theirs = folder / "someone"
        told = ["--name", "conformance", "--uuid", SOMEONE, "--basefolder", str(theirs)]
        self._do("createvm", *told, "--register")
        self._do("hostonlyif", "create")
        self._do(
            "hostonlyif", "ipconfig", "vboxnet0", "--ip=192.168.56.1", "--netmask=255.255.255.0"
        )
        network = "--network=HostInterfaceNetworking-vboxnet0"
        self._do("dhcpserver", "add", network)
        self._do(
            "dhcpserver", "modify", network, f"--vm={SOMEONE}", "--fixed-address=192.168.56.70"
        )

    def _do(self, *argv: str) -> None:
        done = self.box.run(["VBoxManage", *argv])
        assert done.status == 0, done.stderr

    def context(self, door: BreakableDoor, uuid: str = UUID) -> DriverContext:
        folder = self._folder / uuid
        folder.mkdir(exist_ok=True)
        _, ctx = machine(folder, self.box)
        return dataclasses.replace(ctx, door=door, uuid=uuid, cache=self._folder / "cache")

    def inventory(self, uuid: str) -> list[str]:
        folder = f"{self._folder / uuid}/"
        found = [f"host {ident}" for ident in self.box.machines if ident == uuid]
        found += [f"medium {p}" for p in (*self.box.disks, *self.box.discs) if p.startswith(folder)]
        found += [f"address {a[uuid]}" for a in self.box.servers.values() if uuid in a]
        if uuid not in self.box.machines and Path(folder).exists():
            found += [f"file {path.name}" for path in Path(folder).iterdir()]
        return sorted(found)

    def foreign(self) -> object:
        theirs = self.box.machines[SOMEONE]
        fixed = [a.get(SOMEONE) for a in self.box.servers.values()]
        return dataclasses.asdict(theirs), dict(self.box.adapters), fixed


class TestVirtualBoxFakeFaults(FaultSuite):
    every: ClassVar[int] = 1
    creates = ("createvm", "convertfromraw")

    def rig(self, folder: Path) -> Rig:
        return FakeRig(folder)


def test_the_engine_is_at_the_host_only_address_and_ssh_at_the_forwarded_port(
    tmp_path: Path,
) -> None:
    box = FakeVBoxManage()
    driver, ctx = machine(tmp_path, box)
    ctx = created(driver, ctx)
    address = driver.address(ctx)
    assert box.adapters == {"vboxnet0": ("192.168.56.1", "255.255.255.0")}
    assert address.host == box.servers["HostInterfaceNetworking-vboxnet0"][UUID]
    assert address.host.startswith("192.168.56.")
    assert address.engine_port == 2376
    assert address.ssh is not None
    assert address.ssh.host == "127.0.0.1"
    driver.stop(ctx)
    driver.start(ctx)
    assert driver.address(ctx) == address
    other = dataclasses.replace(ctx, uuid=OTHER_UUID, state={}, folder=tmp_path / "other")
    other.folder.mkdir()
    assert driver.address(created(driver, other)).host != address.host
    assert list(box.adapters) == ["vboxnet0"], "the adapter is shared"
    driver.remove(ctx)
    assert UUID not in box.servers["HostInterfaceNetworking-vboxnet0"]
    assert OTHER_UUID in box.servers["HostInterfaceNetworking-vboxnet0"]


@pytest.mark.parametrize(
    ("options", "without_module", "why"),
    [
        ({"no-hostonly": True}, False, ""),
        ({}, True, "Failed to create the host-only adapter"),
        ({"hostonly-cidr": "10.9.0.1/24"}, False, "Access denied"),
    ],
)
def test_without_a_host_only_network_port_forwards_do(
    tmp_path: Path, options: dict[str, Value | None], *, without_module: bool, why: str
) -> None:
    box = FakeVBoxManage(no_hostonly=without_module)
    driver, ctx = machine(tmp_path, box, **options)
    notes = {made.key: made.note for made in driver.create(ctx)}
    assert why in notes["address"]
    assert bool(notes["address"]) == bool(why)
    assert box.adapters == {}, "an adapter that can't be used is taken away again"
    address = driver.address(ctx)
    assert address.host == "127.0.0.1"
    assert 20000 <= address.engine_port < 32000
    assert box.machines[UUID].values.get("nic2", "none") == "none"


def test_without_our_dhcp_the_card_is_there_and_the_address_is_natted(tmp_path: Path) -> None:
    box = FakeVBoxManage()
    driver, ctx = machine(tmp_path, box, **{"hostonly-no-dhcp": True})
    ctx = created(driver, ctx)
    assert driver.address(ctx).host == "127.0.0.1"
    assert box.machines[UUID].values["nic2"] == "hostonly"
    assert box.servers == {}


def test_a_shared_folder_is_mounted_by_cloud_init(tmp_path: Path) -> None:
    box = FakeVBoxManage()
    driver, ctx = machine(tmp_path, box, **{"share-folder": f"{tmp_path}:work"})
    assert driver.check(ctx) == []
    created(driver, ctx)
    add = next(call for call in box.calls if call[0] == "sharedfolder")
    assert add[2:] == [UUID, "--name", "work", "--hostpath", str(tmp_path)]
    assert isinstance(ctx.seeds, FixedSeeds)
    assert ctx.seeds.asked[0].mounts == (("work", "/work", "vboxsf"),)


def test_check_tells_what_is_missing(tmp_path: Path) -> None:
    box = FakeVBoxManage()
    driver, ctx = machine(tmp_path, box, **{"no-vtx-check": False})
    (module,) = driver.check(ctx)
    assert "kernel module is not loaded" in module
    given: dict[str, Value | None] = {
        "image": str(tmp_path / "no.img"),
        "userdata": str(tmp_path / "no.yaml"),
        "share-folder": f"{tmp_path / 'no'}:no",
        "memory": 1,
    }
    driver, ctx = machine(tmp_path, box, **given)
    problems = "\n".join(driver.check(ctx))
    for part in ("no such image file", "no.yaml: No such file", "is no directory", "64 MiB"):
        assert part in problems
    _, ctx = machine(tmp_path, box)
    nobody = dataclasses.replace(ctx, runner=context(tmp_path, driver.options, {}).runner)
    assert driver.missing(nobody) == driver.check(nobody)
    assert "VBoxManage can't be run" in driver.missing(nobody)[0]


def test_user_data_goes_into_the_seed(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_bytes(b"#cloud-config\nruncmd: [true]\n")
    driver, ctx = machine(tmp_path, FakeVBoxManage(), userdata=str(own))
    created(driver, ctx)
    assert isinstance(ctx.seeds, FixedSeeds)
    assert ctx.seeds.asked[0].user_data == own.read_bytes()
    assert (ctx.folder / "seed.iso").stat().st_mode & 0o777 == 0o600


def test_two_adapters_that_overlap_are_told_in_the_note(tmp_path: Path) -> None:
    box = FakeVBoxManage()
    box.adapters["vboxnet0"] = ("192.168.56.5", "255.255.255.0")
    driver, ctx = machine(tmp_path, box)
    notes = {made.key: made.note for made in driver.create(ctx)}
    assert "overlaps with 192.168.56.1/24" in notes["address"]
    assert driver.state(ctx) is HostState.RUNNING


def test_errors_of_the_verbs(tmp_path: Path) -> None:
    driver, ctx = machine(tmp_path, FakeVBoxManage())
    ctx = created(driver, ctx)
    driver.snapshot(ctx, "one")
    with pytest.raises(ConflictError, match="one already"):
        driver.snapshot(ctx, "one")
    with pytest.raises(InvalidError, match="no label"):
        driver.snapshot(ctx, "--live")
    assert driver.console(ctx) == ""
    assert driver.owned(ctx) == [(UUID, 'virtual machine "conformance"')]
