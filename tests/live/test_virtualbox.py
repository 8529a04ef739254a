"""VirtualBox as Debian sid has it: machines that run by its own emulation, and our command.

The guest is 512 bytes: it says hello on its serial line and goes off at the power button. It never
answers SSH; see test_virtualbox_boot for one that does.
"""

import dataclasses
import functools
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.api import DriverContext, HostState, Size
from drivers.errors import CannotError, ConflictError, GoneError, InvalidError
from drivers.options import Value
from drivers.polling import SystemClock
from drivers.testkit import UUID, context, created
from drivers.virtualbox import DRIVER
from machine.process import LocalRunner
from tests.lab.cache import Cache
from tests.lab.settings import Settings
from tests.lab.virtualbox import HELLO, VirtualBox, home, running, tiny_disk
from tests.lab.waiting import wait_until
from tests.support.installed import MACHINE

EMULATED = "vm-execution-engine=recompiler"


@pytest.fixture(scope="module")
def virtualbox(
    lab_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VirtualBox]:
    shared = tmp_path_factory.getbasetemp()
    with home(lab_settings) as folder, running(Cache(lab_settings.cache), folder, shared) as box:
        yield box


@pytest.fixture
def box(virtualbox: VirtualBox) -> Iterator[VirtualBox]:
    """VirtualBox without machines, before and after."""
    yield virtualbox
    virtualbox.sweep()


def planned(folder: Path, box: VirtualBox, **more: Value | None) -> DriverContext:
    """A context with all that is real, through Debian's wrapper and its warning."""
    image = folder / "tiny.img"
    image.write_bytes(tiny_disk())
    given: dict[str, Value | None] = {
        "image": str(image),
        "memory": 64,
        "disk-size": 8,
        "no-vtx-check": True,
        "modify": (EMULATED,),
        "program": str(box.program),
    }
    ctx = context(folder / "machine", DRIVER.options, given | more)
    ctx.folder.mkdir()
    return dataclasses.replace(ctx, runner=LocalRunner(dict(os.environ)), clock=SystemClock())


@pytest.fixture
def ctx(tmp_path: Path, box: VirtualBox) -> DriverContext:
    """A machine that runs."""
    return created(DRIVER, planned(tmp_path, box))


def test_a_machine_boots_and_heeds_its_power_button(ctx: DriverContext) -> None:
    wait_until(lambda: HELLO.decode() in DRIVER.console(ctx), 20, "the guest says hello")
    began = time.monotonic()
    DRIVER.stop(ctx)
    assert time.monotonic() - began < 30, "it was not cut off"
    assert DRIVER.state(ctx) is HostState.STOPPED
    DRIVER.start(ctx)
    wait_until(lambda: HELLO.decode() in DRIVER.console(ctx), 20, "the guest says hello again")
    DRIVER.restart(ctx)
    assert DRIVER.state(ctx) is HostState.RUNNING
    DRIVER.kill(ctx)
    assert DRIVER.state(ctx) is HostState.STOPPED


def test_the_forwarded_ports_listen_on_this_computer_only(ctx: DriverContext) -> None:
    address = DRIVER.address(ctx)
    assert address.host == "127.0.0.1"
    assert address.ssh is not None
    for port in (address.ssh.port, address.engine_port):
        wait_until(functools.partial(listens, port), 20.0, "the forwarded port listens")
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", port), timeout=10)


def listens(port: int) -> bool:
    """VirtualBox opens its forwarded ports a little after it says that the machine runs."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_port_that_became_someone_elses_is_changed_at_the_next_start(ctx: DriverContext) -> None:
    before = DRIVER.address(ctx)
    DRIVER.stop(ctx)
    with socket.create_server(("127.0.0.1", before.engine_port)):
        DRIVER.start(ctx)
        after = DRIVER.address(ctx)
        assert after.engine_port != before.engine_port
        assert after.ssh == before.ssh
        wait_until(lambda: listens(after.engine_port), 20.0, "the new port listens")


def test_paused_saved_and_back(ctx: DriverContext, box: VirtualBox) -> None:
    box.manage("controlvm", UUID, "pause")
    assert DRIVER.state(ctx) is HostState.PAUSED
    DRIVER.resume(ctx)
    assert DRIVER.state(ctx) is HostState.RUNNING
    for _ in range(2):
        DRIVER.suspend(ctx)
        assert DRIVER.state(ctx) is HostState.SAVED
    DRIVER.resume(ctx)
    assert DRIVER.state(ctx) is HostState.RUNNING
    DRIVER.suspend(ctx)
    DRIVER.kill(ctx)
    assert DRIVER.state(ctx) is HostState.STOPPED
    with pytest.raises(ConflictError, match="is off"):
        DRIVER.suspend(ctx)


def test_snapshots_hold_the_memory_and_go_with_the_machine(ctx: DriverContext) -> None:
    for label in ("zebra", "ape"):
        DRIVER.snapshot(ctx, label)
    assert DRIVER.snapshots(ctx) == ["zebra", "ape"]
    with pytest.raises(ConflictError, match="a snapshot ape already"):
        DRIVER.snapshot(ctx, "ape")
    with pytest.raises(GoneError, match="no snapshot gnu"):
        DRIVER.restore(ctx, "gnu")
    assert DRIVER.state(ctx) is HostState.RUNNING, "nothing was touched"
    DRIVER.restore(ctx, "zebra")
    assert DRIVER.state(ctx) is HostState.RUNNING
    with pytest.raises(ConflictError, match="a disk with snapshots"):
        DRIVER.resize(ctx, Size(disk=1))
    DRIVER.drop_snapshot(ctx, "ape")
    assert DRIVER.snapshots(ctx) == ["zebra"]
    DRIVER.remove(ctx)
    assert DRIVER.state(ctx) is HostState.NOT_FOUND
    assert [p.name for p in ctx.folder.iterdir()] == ["cache"]


def test_a_machine_is_made_larger(ctx: DriverContext, box: VirtualBox) -> None:
    DRIVER.resize(ctx, Size(cpus=2, memory=96, disk=1))
    info = box.manage("showvminfo", UUID, "--machinereadable")
    assert "\ncpus=2\n" in info
    assert "\nmemory=96\n" in info
    assert DRIVER.state(ctx) is HostState.RUNNING
    DRIVER.stop(ctx)
    # while it runs, VBoxSVC goes on saying what it knew when the disk was attached
    disk = box.manage("showmediuminfo", "disk", str(ctx.folder / "disk.vdi"))
    assert "Capacity:       1024 MBytes" in disk
    DRIVER.resize(ctx, Size(memory=64))
    assert DRIVER.state(ctx) is HostState.STOPPED
    for size, kind in ((Size(plan="large"), CannotError), (Size(cpus=1000), InvalidError)):
        with pytest.raises(kind):
            DRIVER.resize(ctx, size)


def test_a_disk_is_never_made_smaller(tmp_path: Path, box: VirtualBox) -> None:
    ctx = created(DRIVER, planned(tmp_path, box, **{"disk-size": 2000}))
    with pytest.raises(InvalidError, match="can't be made smaller"):
        DRIVER.resize(ctx, Size(disk=1))
    assert DRIVER.state(ctx) is HostState.RUNNING


def test_what_is_ours_is_known_by_its_tag(ctx: DriverContext, box: VirtualBox) -> None:
    box.manage("createvm", "--name", "someone's", "--register")
    assert DRIVER.owned(ctx) == [(UUID, 'virtual machine "conformance"')]


def test_a_folder_and_a_medium_that_were_left_behind(tmp_path: Path, box: VirtualBox) -> None:
    """createvm was killed before it registered; a disk was made and stands in VirtualBox's list."""
    ctx = planned(tmp_path, box)
    half = ctx.folder / "vm/conformance/conformance.vbox"
    half.parent.mkdir(parents=True)
    half.write_text("<half")
    part = ctx.folder / "disk.part.vdi"
    box.manage("createmedium", "disk", "--filename", str(part), "--size", "5")
    assert str(part) in box.manage("list", "hdds")
    ctx = created(DRIVER, ctx)
    assert DRIVER.state(ctx) is HostState.RUNNING
    DRIVER.remove(ctx)
    box.manage("createmedium", "disk", "--filename", str(part), "--size", "5")
    half.parent.mkdir(parents=True)
    half.write_text("<half")
    DRIVER.remove(ctx)
    assert box.manage("list", "hdds").strip() == ""
    assert [p.name for p in ctx.folder.iterdir()] == ["cache"]


def test_a_machine_whose_files_are_gone(ctx: DriverContext, box: VirtualBox) -> None:
    """VirtualBox calls it inaccessible once it has started anew: it can be removed, or made again."""
    for again in (True, False):
        DRIVER.kill(ctx)
        (ctx.folder / "vm/conformance/conformance.vbox").unlink()
        box.restart()
        assert box.machines() == {UUID: "<inaccessible>"}
        assert DRIVER.state(ctx) is HostState.NOT_FOUND
        if again:
            assert [made.key for made in DRIVER.create(ctx)] == ["vm", "address", "started"]
            assert DRIVER.state(ctx) is HostState.RUNNING
    DRIVER.remove(ctx)
    assert box.machines() == {}
    assert [p.name for p in ctx.folder.iterdir()] == ["cache"]


def test_a_vdi_is_taken_as_it_is(tmp_path: Path, box: VirtualBox) -> None:
    ctx = planned(tmp_path, box)
    vdi = tmp_path / "own.vdi"
    box.manage("convertfromraw", str(tmp_path / "tiny.img"), str(vdi), "--format", "VDI")
    options = {**ctx.options, "image": str(vdi)}
    ctx = created(DRIVER, dataclasses.replace(ctx, options=options))
    wait_until(lambda: HELLO.decode() in DRIVER.console(ctx), 20, "the guest says hello")
    assert str(vdi) not in box.manage("list", "hdds")


def test_without_the_kernels_module_it_says_so(tmp_path: Path, box: VirtualBox) -> None:
    ctx = planned(tmp_path, box, **{"no-vtx-check": False})
    (problem,) = DRIVER.check(ctx)
    assert "kernel module is not loaded" in problem
    with box.hardened(), pytest.raises(CannotError, match="terminated unexpectedly") as told:
        created(DRIVER, ctx)
    assert "modprobe vboxdrv" in told.value.hint
    DRIVER.remove(ctx)
    assert box.machines() == {}


class Laptop:
    """Our command with a store of its own and this VirtualBox on its PATH."""

    def __init__(self, folder: Path, box: VirtualBox) -> None:
        self.store = folder / "store"
        (folder / "home").mkdir()
        self._environment = {
            "PATH": f"{box.path}:/usr/bin:/bin",
            "HOME": str(folder / "home"),
            "MACHINE_STORAGE_PATH": str(self.store),
            "LANG": "C.UTF-8",
        }

    def start(self, *argv: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(MACHINE), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment,
        )

    def run(self, *argv: str) -> tuple[int, str]:
        """(status, everything that it said)."""
        with self.start(*argv) as command:
            said, _ = command.communicate(timeout=60)
        return command.returncode, said

    def interrupted(self, *argv: str, at: str) -> str:
        """What a command said that got a Ctrl-C when it said `at`."""
        said = ""
        with self.start(*argv) as command, selectors.DefaultSelector() as waiting:
            assert command.stdout is not None
            waiting.register(command.stdout, selectors.EVENT_READ)
            while at not in said and waiting.select(60):
                more = os.read(command.stdout.fileno(), 4096).decode()
                if not more:
                    break
                said += more
            command.send_signal(signal.SIGINT)
            rest, _ = command.communicate(timeout=60)
        return said + rest


def test_the_command_makes_resumes_and_removes(tmp_path: Path, box: VirtualBox) -> None:
    laptop = Laptop(tmp_path, box)
    image = tmp_path / "tiny.img"
    image.write_bytes(tiny_disk())
    options = ["--virtualbox-image", str(image), "--virtualbox-memory", "64"]
    options += ["--virtualbox-no-vtx-check", "--virtualbox-modify", EMULATED]
    create = ("create", "--driver", "virtualbox", *options, "web")
    said = laptop.interrupted(*create, at="Waiting for SSH")
    assert "(web) Virtual machine started." in said
    assert "Waiting for SSH" in said
    (uuid,) = box.machines()
    said = laptop.interrupted(*create, at="Waiting for SSH")
    assert "Resuming the create" in said
    assert "Virtual machine started" not in said
    assert list(box.machines()) == [uuid], "nothing was made twice"
    assert laptop.run("status", "web") == (0, "Running\n")
    hello = HELLO.decode().strip()
    wait_until(lambda: hello in laptop.run("console", "web")[1], 20, "the guest says hello")
    assert laptop.run("kill", "web")[0] == 0
    assert laptop.run("status", "web") == (0, "Stopped\n")
    status, said = laptop.run("rm", "-y", "web")
    assert status == 0, said
    assert box.machines() == {}
    assert not (laptop.store / "machines/web").exists()


def test_dead_options_and_missing_parts_are_told_before_anything_is_made(
    tmp_path: Path, box: VirtualBox
) -> None:
    laptop = Laptop(tmp_path, box)
    dead = ("--virtualbox-boot2docker-url", "https://x", "--virtualbox-memory", "1")
    status, said = laptop.run("create", "--driver", "virtualbox", *dead, "web")
    assert status == 3, said
    for part in ("boot2docker, which is no more", "--virtualbox-image", "64 MiB", "vboxdrv"):
        assert part in said
    assert box.machines() == {}
    status, said = laptop.run("drivers")
    assert status == 0
    row = next(line for line in said.splitlines() if line.startswith("virtualbox "))
    assert " yes " in row
    for ability in ("start/stop", "restart", "kill", "suspend", "snapshot", "resize", "console"):
        assert ability in row
