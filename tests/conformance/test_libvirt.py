"""The libvirt driver before a real libvirtd, with guests of 512 bytes that switch off when told.

Each takes a second or two: emulated, no operating system. Their DHCP leases are written down for
them, since they never ask for one.
"""

import contextlib
import dataclasses
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from drivers.api import Driver, DriverContext, HostState, Size
from drivers.errors import ConflictError, DriverError, GoneError, InvalidError
from drivers.faults import (
    OTHER_UUID,
    BreakableDoor,
    Fault,
    FaultSuite,
    Killed,
    Rig,
    hosts,
)
from drivers.libvirt import DRIVER, documents, plan
from drivers.libvirt.hypervisor import connected
from drivers.polling import SystemClock
from drivers.testkit import UUID, DriverSuite, OpenDoor, context, created
from tests.lab import syscalls
from tests.lab.libvirtd import Libvirtd
from tests.support.bootsector import HELLO, tiny_disk

pytestmark = [pytest.mark.live, pytest.mark.timeout(1800)]  # the whole fault table takes minutes
SOMEONE = "11111111-2222-4333-8444-555555555555"
NETWORK = "someones"
BRIDGE = "virbr-someone"
SHARED_CALLS = frozenset(
    {
        "virStoragePoolDefineXML", "virStoragePoolCreate", "virStorageVolUpload",
        "virNetworkDefineXML", "virNetworkCreate",
    }
)  # fmt: skip
SOMEONES_DISK = "machine-someones.qcow2"


@pytest.fixture(autouse=True)
def _empty(
    libvirtd: Libvirtd, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """The suite sees the hypervisor; nothing is left on it between tests, but someone's network."""
    suite = request.instance
    suite.libvirtd = libvirtd
    suite.image = tmp_path_factory.mktemp("image") / "tiny.raw"
    suite.image.write_bytes(tiny_disk())
    sweep(libvirtd)
    yield
    sweep(libvirtd)


def sweep(libvirtd: Libvirtd) -> None:
    """Remove everything from the hypervisor but someone's network, which is made if it is missing."""
    with connected(libvirtd.uri, OpenDoor()) as hv:
        for document in hv.domains():
            domain = documents.text_of(document, "uuid")
            if hv.state(domain) not in {HostState.STOPPED, HostState.SAVED}:
                hv.destroy(domain)
            hv.undefine(domain)
        for pool in hv.pools():
            for volume in hv.volumes(pool):
                hv.delete_volume(pool, volume.name)
            hv.stop_pool(pool)
            hv.undefine_pool(pool)
        names = [documents.text_of(document, "name") for document in hv.networks()]
        if plan.NETWORK in names:
            with contextlib.suppress(ConflictError):
                hv.stop_network(plan.NETWORK)
            hv.undefine_network(plan.NETWORK)
        if NETWORK not in names:
            subnet = plan.subnets([])[1]
            hv.define_network(documents.network(NETWORK, str(uuid.uuid4()), BRIDGE, subnet))
            hv.start_network(NETWORK)


def leases(libvirtd: Libvirtd) -> None:
    for number, machine in enumerate((UUID, OTHER_UUID), 10):
        libvirtd.lease(plan.BRIDGE, plan.mac(machine), f"192.168.150.{number}")
        libvirtd.lease(BRIDGE, plan.mac(machine), f"192.168.151.{number}")


def real(folder: Path, libvirtd: Libvirtd, image: Path, **options: object) -> DriverContext:
    """A context with a real clock, small numbers, and this hypervisor."""
    leases(libvirtd)
    given = {
        "uri": libvirtd.uri, "image": str(image), "memory": 256, "cpus": 1, "disk-size": 1, **options
    }  # fmt: skip
    ctx = context(folder, DRIVER.options, given)  # type: ignore[arg-type]
    return dataclasses.replace(ctx, clock=SystemClock())


class TestLibvirt(DriverSuite):
    libvirtd: Libvirtd
    image: Path

    def make(self, folder: Path) -> tuple[Driver, DriverContext]:
        sweep(self.libvirtd)  # "a new, empty provider"
        return DRIVER, real(folder, self.libvirtd, self.image, network=NETWORK)

    def _cut(self, folder: Path, cut: int, stored: int, whole: DriverContext) -> None:
        """A part of them, a second each: the fault table has the others."""
        if cut % 4 == 0:
            super()._cut(folder, cut, stored, whole)

    def test_what_it_makes_is_what_was_asked_for(self, tmp_path: Path) -> None:
        sweep(self.libvirtd)
        ctx = real(
            tmp_path, self.libvirtd, self.image, **{"extra-disk": ("2", "3"), "autostart": True}
        )
        ctx = created(DRIVER, ctx)
        document = self.libvirtd.run("virsh", "dumpxml", ctx.name)
        assert documents.text_of(document, "uuid") == ctx.uuid
        assert "q35" in documents.attribute_of(document, "os/type", "machine")
        assert documents.tag_of(document) is not None
        blocks = [line.split()[0] for line in self.libvirtd.virsh("domblklist", ctx.name)]
        assert blocks == ["vda", "vdb", "vdc", "vdd"]
        info = self.libvirtd.run("virsh", "domblkinfo", ctx.name, "vdd")
        assert str(3 << 30) in info
        assert "Autostart:      enable" in self.libvirtd.run("virsh", "dominfo", ctx.name)

    def test_the_console_has_what_the_guest_wrote(self, tmp_path: Path) -> None:
        driver, ctx = self.make(tmp_path)
        ctx = created(driver, ctx)
        DRIVER.stop(ctx)  # by its own hand: it has come to listen to the button
        assert HELLO.decode() in DRIVER.console(ctx)

    def test_resize_changes_all_three_and_leaves_it_running(self, tmp_path: Path) -> None:
        driver, ctx = self.make(tmp_path)
        ctx = created(driver, ctx)
        DRIVER.resize(ctx, Size(cpus=2, memory=300, disk=2))
        assert DRIVER.state(ctx) is HostState.RUNNING
        info = self.libvirtd.run("virsh", "dominfo", ctx.name)
        assert "CPU(s):         2" in info
        assert f"Max memory:     {300 * 1024} KiB" in info
        assert str(2 << 30) in self.libvirtd.run("virsh", "domblkinfo", ctx.name, "vda")
        with pytest.raises(InvalidError):
            DRIVER.resize(ctx, Size(disk=1))
        DRIVER.suspend(ctx)
        with pytest.raises(ConflictError):
            DRIVER.resize(ctx, Size(cpus=1))

    def test_snapshots_keep_their_rules(self, tmp_path: Path) -> None:
        driver, ctx = self.make(tmp_path)
        ctx = created(driver, ctx)
        DRIVER.snapshot(ctx, "one")
        with pytest.raises(ConflictError):
            DRIVER.snapshot(ctx, "one")
        with pytest.raises(GoneError):
            DRIVER.restore(ctx, "two")
        DRIVER.suspend(ctx)
        with pytest.raises(ConflictError):
            DRIVER.snapshot(ctx, "asleep")
        DRIVER.restore(ctx, "one")
        assert DRIVER.state(ctx) is HostState.RUNNING

    def test_uefi_leaves_no_variables_behind(self, tmp_path: Path) -> None:
        sweep(self.libvirtd)
        ctx = created(DRIVER, real(tmp_path, self.libvirtd, self.image, firmware="uefi"))
        nvram = "/var/lib/libvirt/qemu/nvram"
        assert self.libvirtd.run("ls", nvram).split() == [f"{ctx.name}_VARS.fd"]
        DRIVER.suspend(ctx)
        DRIVER.remove(ctx)
        assert self.libvirtd.run("ls", nvram) == ""
        assert self.libvirtd.run("ls", "/var/lib/libvirt/qemu/save") == ""

    @pytest.mark.parametrize(("kind", "mode"), [("9p", ":ro"), ("virtiofs", "")])
    def test_shared_folders_are_devices_of_the_guest(
        self, tmp_path: Path, kind: str, mode: str
    ) -> None:
        sweep(self.libvirtd)
        self.libvirtd.run("mkdir", "-p", "/srv/shared")
        options = {"share": (f"/srv/shared:/mnt/shared{mode}",), "share-type": kind}
        ctx = created(DRIVER, real(tmp_path, self.libvirtd, self.image, **options))
        document = self.libvirtd.run("virsh", "dumpxml", ctx.name)
        assert documents.attribute_of(document, "devices/filesystem/source", "dir") == "/srv/shared"
        (asked,) = ctx.seeds.asked  # type: ignore[attr-defined]
        (mount,) = asked.mounts
        assert mount[1:] == ("/mnt/shared", kind)
        assert documents.attribute_of(document, "devices/filesystem/target", "dir") == mount[0]

    def test_check_tells_all_that_the_hypervisor_knows(self, tmp_path: Path) -> None:
        _, ctx = self.make(tmp_path)
        someone(self.libvirtd)
        ctx = dataclasses.replace(
            ctx, name=SOMEONE, options={**ctx.options, "network": "none", "pool": "none", "cpus": 0}
        )
        told = "\n".join(DRIVER.check(ctx))
        assert "--libvirt-cpus 0" in told
        assert "--libvirt-network none" in told
        assert "--libvirt-pool none" in told
        assert f'a domain "{SOMEONE}" already' in told

    def test_the_last_machine_takes_network_pool_and_image_along(self, tmp_path: Path) -> None:
        driver, ctx = DRIVER, real(tmp_path, self.libvirtd, self.image)
        first = created(driver, ctx)
        second = created(driver, dataclasses.replace(ctx, uuid=OTHER_UUID, name="other"))
        bases = [
            row for row in self.libvirtd.virsh("vol-list", plan.POOL) if "machine-base-" in row
        ]
        assert len(bases) == 2  # one image, and the mark that it is whole
        assert sorted(uuid for uuid, what in DRIVER.owned(first) if "domain" in what) == sorted(
            [UUID, OTHER_UUID]
        )
        DRIVER.remove(first)
        assert self.libvirtd.virsh("net-list", "--name") == [plan.NETWORK, NETWORK]
        assert DRIVER.state(second) is HostState.RUNNING
        DRIVER.remove(second)
        for listing in ("list", "pool-list"):
            assert self.libvirtd.virsh(listing, "--all") == []
        assert self.libvirtd.virsh("net-list", "--all", "--name") == [NETWORK]

    def test_on_a_bridge_the_address_is_the_neighbours(self, tmp_path: Path) -> None:
        """No lease that libvirt knows, no agent: the host's ARP table has it."""
        sweep(self.libvirtd)
        neighbour(self.libvirtd, "192.168.151.77")
        wanted = real(tmp_path, self.libvirtd, self.image, bridge=BRIDGE)
        with inside_network(self.libvirtd) as there:
            ctx = there.submit(created, DRIVER, wanted).result()
            assert there.submit(DRIVER.address, ctx).result().host == "192.168.151.77"
        card = self.libvirtd.run("virsh", "domiflist", ctx.name)
        assert "bridge" in card
        assert BRIDGE in card

    def test_an_unprivileged_daemon_will_do_with_a_bridge(self, tmp_path: Path) -> None:
        sweep(self.libvirtd)
        neighbour(self.libvirtd, "192.168.151.78")
        uri = self.libvirtd.session(BRIDGE)
        with connected(uri, OpenDoor()) as hv:
            hv.define_pool(documents.pool("mine", str(uuid.uuid4()), self.libvirtd.session_folder))
            hv.start_pool("mine")
        ctx = real(tmp_path, self.libvirtd, self.image, uri=uri, pool="mine")
        (told,) = DRIVER.check(ctx)
        assert "--libvirt-bridge virbr0" in told
        ctx = dataclasses.replace(ctx, options={**ctx.options, "bridge": BRIDGE})
        assert DRIVER.check(ctx) == []
        with inside_network(self.libvirtd) as there:
            ctx = there.submit(created, DRIVER, ctx).result()
        assert ctx.state["address"] == "192.168.151.78"
        DRIVER.stop(ctx)
        assert HELLO.decode() in DRIVER.console(ctx)
        DRIVER.remove(ctx)
        with connected(uri, OpenDoor()) as hv:
            assert (hv.domains(), hv.volumes("mine")) == ([], [])
            hv.stop_pool("mine")
            hv.undefine_pool("mine")

    def test_three_at_once_share_one_network_and_one_image(self, tmp_path: Path) -> None:
        sweep(self.libvirtd)
        machines = [str(uuid.uuid4()) for _ in range(3)]
        first = real(tmp_path, self.libvirtd, self.image)
        for number, machine in enumerate(machines, 20):
            self.libvirtd.lease(plan.BRIDGE, plan.mac(machine), f"192.168.150.{number}")
        wanted = [
            dataclasses.replace(first, uuid=machine, name=f"m{number}", door=OpenDoor())
            for number, machine in enumerate(machines)
        ]
        with ThreadPoolExecutor(3) as pool:
            made = list(pool.map(lambda ctx: created(DRIVER, ctx), wanted))
            bases = {str(ctx.state["base"]) for ctx in made}
            assert len(bases) == 1
            assert len({DRIVER.address(ctx).host for ctx in made}) == 3
            list(pool.map(DRIVER.remove, made))
        assert self.libvirtd.virsh("list", "--all") == []
        assert self.libvirtd.virsh("pool-list", "--all") == []
        assert self.libvirtd.virsh("net-list", "--all", "--name") == [NETWORK]

    def test_kvm_is_not_used_where_it_is_not_offered(self, tmp_path: Path) -> None:
        driver, ctx = self.make(tmp_path)
        notes = [made.note for made in driver.create(ctx)]
        assert "KVM does not work here (libvirt does not offer it): emulating" in notes[0]
        assert "domain type='qemu'" in self.libvirtd.run("virsh", "dumpxml", ctx.name)

    def test_a_disk_that_is_lost_is_told(self, tmp_path: Path) -> None:
        driver, ctx = self.make(tmp_path)
        ctx = created(driver, ctx)
        DRIVER.kill(ctx)
        disk = plan.volume(ctx.uuid, "disk.qcow2")
        self.libvirtd.run("virsh", "-q", "vol-delete", "--pool", plan.POOL, disk)
        with pytest.raises(GoneError, match=disk):
            DRIVER.resize(ctx, Size(disk=5))

    def test_case_160_a_domain_without_our_tag_is_left_alone(self, tmp_path: Path) -> None:
        """Whatever a volume's name, which anyone may choose, makes `gc` believe."""
        _, ctx = self.make(tmp_path)
        someone(self.libvirtd)
        with pytest.raises(DriverError, match="left alone"):
            DRIVER.remove(dataclasses.replace(ctx, uuid=SOMEONE))
        assert SOMEONE in self.libvirtd.virsh("list", "--all", "--name")

    def test_no_daemon_is_told_with_what_to_do(self, tmp_path: Path) -> None:
        _, ctx = self.make(tmp_path)
        nowhere = {**ctx.options, "uri": "qemu+unix:///system?socket=/nowhere/libvirt-sock"}
        (told,) = DRIVER.check(dataclasses.replace(ctx, options=nowhere))
        assert "/nowhere/libvirt-sock" in told
        assert "libvirt-daemon-system" in told


def inside_network(libvirtd: Libvirtd) -> ThreadPoolExecutor:
    """Runs what is submitted in the hypervisor's network namespace, as on its own host."""

    def enter() -> None:
        syscalls.join_namespace(f"/run/netns/{libvirtd.netns}", syscalls.CLONE_NEWNET)

    return ThreadPoolExecutor(1, initializer=enter)


def neighbour(libvirtd: Libvirtd, ip: str) -> None:
    """The machine has spoken on someone's bridge."""
    link = ("lladdr", plan.mac(UUID), "dev", BRIDGE, "nud", "permanent")
    libvirtd.run("ip", "neigh", "flush", "dev", BRIDGE, "nud", "permanent")
    libvirtd.run("ip", "neigh", "replace", ip, *link)


def someone(libvirtd: Libvirtd) -> None:
    """A domain, a volume in our pool, and a network, none of them ours."""
    place = "/var/lib/libvirt/images/someone"
    domain = (
        f"<domain type='qemu'><name>{SOMEONE}</name><uuid>{SOMEONE}</uuid><memory>65536</memory>"
        "<os><type arch='x86_64' machine='q35'>hvm</type></os><devices/></domain>"
    )
    with connected(libvirtd.uri, OpenDoor()) as hv:
        hv.define(domain)
        hv.define_pool(documents.pool("someone", str(uuid.uuid4()), place))
        hv.start_pool("someone")
        hv.make_volume("someone", documents.storage(SOMEONES_DISK, 1 << 20, "qcow2"))


class LibvirtRig:
    """The hypervisor with someone else's things; machines use the network that is there, or ours."""

    driver = DRIVER

    def __init__(self, folder: Path, libvirtd: Libvirtd, image: Path, network: str) -> None:
        self._folder = folder
        self._libvirtd = libvirtd
        self._image = image
        self._network = network
        sweep(libvirtd)
        someone(libvirtd)

    def context(self, door: BreakableDoor, uuid: str = UUID) -> DriverContext:
        ctx = real(self._folder, self._libvirtd, self._image, network=self._network, pool="")
        return dataclasses.replace(ctx, door=door, uuid=uuid, clock=HastyClock())

    def inventory(self, uuid: str) -> list[str]:
        with connected(self._libvirtd.uri, OpenDoor()) as hv:
            tags = {t.uuid for t in map(documents.tag_of, hv.domains()) if t}
            found = [f"host {tag}" for tag in tags if tag == uuid]
            pools = hv.pools()
            names = [v.name for pool in pools for v in hv.volumes(pool)]
            found += [f"volume {n}" for n in names if n.startswith(plan.volume_prefix(uuid))]
            if not tags:  # what is shared goes with the last one
                found += [f"image {n}" for n in names if n.startswith(plan.BASE_PREFIX)]
                found += [f"pool {p}" for p in pools if p == plan.POOL]
                networks = [documents.text_of(one, "name") for one in hv.networks()]
                found += [f"network {n}" for n in networks if n == plan.NETWORK]
        return sorted(found)

    def foreign(self) -> object:
        with connected(self._libvirtd.uri, OpenDoor()) as hv:
            return (
                hv.domain(SOMEONE),
                [v.name for v in hv.volumes("someone")],
                documents.text_of(hv.network(NETWORK)[0], "uuid"),
                hv.network(NETWORK)[1],
            )


class HastyClock(SystemClock):
    """Real time; pauses between attempts are short, since the faults are over at once."""

    def wait(self, seconds: float) -> None:
        super().wait(min(seconds, 0.1))


class TestLibvirtFaults(FaultSuite):
    """Everything of a machine's own, on a network that is there (making one takes half a second)."""

    every = 23
    creates = ("virStorageVolCreateXML", "virDomainDefineXML", "virDomainCreate")
    libvirtd: Libvirtd
    image: Path

    def rig(self, folder: Path) -> Rig:
        return LibvirtRig(folder, self.libvirtd, self.image, NETWORK)


class TestShared:
    """Faults while network, pool and image are made, which machines share."""

    libvirtd: Libvirtd
    image: Path

    def test_a_broken_call_leaves_neither_too_much_nor_too_little(self, tmp_path: Path) -> None:
        counting = BreakableDoor()
        self._create(self._rig(tmp_path), counting, {})
        numbers = [n for n, name in enumerate(counting.calls) if name in SHARED_CALLS]
        assert len(numbers) >= len(SHARED_CALLS)
        for number in numbers:
            for fault in (Fault.KILLED_AFTER, Fault.TIMEOUT_AFTER):
                where = f"{counting.calls[number]}: {fault.value}"
                rig = self._rig(tmp_path)
                state: dict[str, object] = {}
                with contextlib.suppress(Killed):
                    self._create(rig, BreakableDoor(at=number, fault=fault), state)
                self._create(rig, BreakableDoor(), state)
                assert hosts(rig, UUID) == 1, where
                DRIVER.remove(dataclasses.replace(rig.context(BreakableDoor()), state=state))
                assert rig.inventory(UUID) == [], where

    def _rig(self, folder: Path) -> LibvirtRig:
        return LibvirtRig(folder, self.libvirtd, self.image, "")

    def _create(self, rig: LibvirtRig, door: BreakableDoor, state: dict[str, object]) -> None:
        ctx = dataclasses.replace(rig.context(door), state=dict(state))
        for made in DRIVER.create(ctx):
            state[made.key] = made.value
