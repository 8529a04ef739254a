"""A machine of VirtualBox booted to SSH by VirtualBox's own emulation: minutes, so not in ./test.

    python -m pytest tests/live/boot_virtualbox.py --timeout 1800

The guest is real (kernel, file system, DHCP, sshd), but its process 1 stands in for cloud-init: see
tests.lab.virtualboxguest. The host's key is the seeded one, and no other is accepted.
"""

import dataclasses
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.api import DriverContext, HostState
from drivers.options import Value
from drivers.polling import SystemClock
from drivers.testkit import UUID, context, created
from drivers.virtualbox import DRIVER
from machine.cloudinit import CloudSeeds
from machine.process import LocalRunner
from tests.lab.cache import Cache
from tests.lab.debian import Debian
from tests.lab.settings import Settings
from tests.lab.virtualbox import VirtualBox, home, running
from tests.lab.virtualboxguest import guest_disk
from tests.lab.waiting import wait_until

BOOT_SECONDS = 1200.0  # 4 minutes on an idle computer
LOGIN_SECONDS = 600.0  # half a minute: the key exchange alone is 10^9 emulated instructions


@pytest.fixture
def box(lab_settings: Settings, tmp_path: Path) -> Iterator[VirtualBox]:
    with home(lab_settings) as folder, running(Cache(lab_settings.cache), folder, tmp_path) as made:
        yield made
        made.sweep()


@pytest.fixture
def ctx(box: VirtualBox, tmp_path: Path, lab_settings: Settings) -> DriverContext:
    image = tmp_path / "guest.raw"  # where VirtualBox's own root sees it
    disk = guest_disk(Debian(Cache(lab_settings.cache)))
    subprocess.run(["cp", "--sparse=always", str(disk), str(image)], check=True)
    given: dict[str, Value | None] = {
        "image": str(image),
        "memory": 512,
        "disk-size": 2048,
        "no-vtx-check": True,
        "modify": ("vm-execution-engine=recompiler",),
        "program": str(box.program),
    }
    ctx = context(tmp_path / "machine", DRIVER.options, given)
    ctx.folder.mkdir()
    return dataclasses.replace(
        ctx,
        runner=LocalRunner(dict(os.environ)),
        clock=SystemClock(),
        seeds=CloudSeeds(ctx.name, UUID, ctx.folder),
    )


def _banner(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            return connection.recv(4)
    except OSError:
        return b""


@pytest.mark.timeout(1800)
def test_it_boots_to_ssh_with_the_seeded_host_key(ctx: DriverContext, tmp_path: Path) -> None:
    ctx = created(DRIVER, ctx)
    login = DRIVER.address(ctx).ssh
    assert login is not None
    assert login.key_path is not None
    wait_until(lambda: _banner(login.port) == b"SSH-", BOOT_SECONDS, "SSH answers", interval=0.5)
    known = tmp_path / "known_hosts"
    known.write_text("".join(f"[127.0.0.1]:{login.port} {key}\n" for key in login.host_keys))
    options = [f"UserKnownHostsFile={known}", "StrictHostKeyChecking=yes", "BatchMode=yes"]
    options += ["ConnectTimeout=300", "IdentitiesOnly=yes"]
    argv = ["ssh", "-i", login.key_path, "-p", str(login.port), *(f"-o{one}" for one in options)]
    done = subprocess.run(
        [*argv, "root@127.0.0.1", "cat /sys/class/dmi/id/product_name /run/seed/meta-data"],
        capture_output=True,
        text=True,
        timeout=LOGIN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("VirtualBox\n")
    assert UUID in done.stdout
    assert "guest: starting sshd" in DRIVER.console(ctx)
    DRIVER.suspend(ctx)
    DRIVER.resume(ctx)
    assert DRIVER.state(ctx) is HostState.RUNNING
    DRIVER.remove(ctx)
    assert DRIVER.state(ctx) is HostState.NOT_FOUND
