"""`machine create --driver libvirt` with nothing replaced: libvirtd, QEMU, a Debian cloud image with
its cloud-init, the installed command; then a machine's whole life, and nothing left of it.

One virtual machine for the module, emulated: its two boots are what takes the time. The tests run
in the order of the file.
"""

import re
import time
from collections.abc import Iterator, Mapping
from typing import cast

import pytest

from drivers.libvirt import documents, plan
from tests.lab.cloudimage import CloudImages
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.libvirtd import Libvirtd
from tests.lab.registry import Registry
from tests.lab.waiting import wait_until
from tests.support.installed import MACHINE, Done, Installed

pytestmark = pytest.mark.timeout(900)
SLOW = 400.0  # seconds for a command that boots; 60 on an idle computer
WEB = "mkdir /w; echo hello >/w/index.html; exec httpd -f -p 80 -h /w"
MEBIBYTES = 768
OURS_SECONDS = 3.0  # what is the driver's own of a create
NOISE_SECONDS = 12.0  # a computer that runs everything else at once


class Guest(Installed):
    """A machine on the lab's hypervisor. Everything runs in its network, where the guests are."""

    def __init__(
        self, libvirtd: Libvirtd, lab: Lab, registry: Registry, factory: pytest.TempPathFactory
    ) -> None:
        super().__init__(
            "guest", cast("Host", libvirtd), factory.mktemp("guest"), lab.docker_cli(), registry
        )
        self.libvirtd = libvirtd
        self.image = CloudImages(lab.debian).image()
        self.said = ""

    def run(
        self,
        *argv: str,
        data: bytes = b"",
        check: bool = True,
        timeout: float = SLOW,
        extra: Mapping[str, str] | None = None,
    ) -> Done:
        """As every machine's, from the hypervisor's network."""
        inside = self.libvirtd.inside_network(argv)
        return super().run(*inside, data=data, check=check, timeout=timeout, extra=extra)

    def create(self) -> "Guest":
        """As a user does, with numbers for an emulated machine."""
        done = self.machine(
            "create", "--driver", "libvirt", "--libvirt-uri", self.libvirtd.uri,
            "--libvirt-image", str(self.image), "--libvirt-memory", str(MEBIBYTES),
            "--libvirt-disk-size", "5", "--libvirt-extra-disk", "1",
            "--engine-registry-mirror", self.registry.url, self.name,
        )  # fmt: skip
        self.said = f"{done.text}\n{done.complaint}"
        script = f'said="$({MACHINE} env {self.name})" && eval "$said" && env -0'
        taken = self.run("bash", "-c", script)
        pairs = (item.split("=", 1) for item in taken.out.decode().split("\0") if item)
        self.environment |= {k: v for k, v in pairs if k.startswith("DOCKER_")}
        return self

    def timed(self, *arguments: str) -> Done:
        """Our own command; how long it took is printed."""
        begin = time.monotonic()
        done = self.machine(*arguments)
        print(f"machine {' '.join(arguments)}: {time.monotonic() - begin:.1f} s")
        return done

    def ssh(self, command: str) -> str:
        """What a command on the machine prints."""
        return self.machine("ssh", self.name, command).text

    def wait_page(self) -> None:
        """Return when the published port answers from outside."""
        ip = self.machine("ip", self.name).text

        def hello() -> bool:
            page = self.run("curl", "-s", "-m", "20", f"http://{ip}:8080/", check=False)
            return page.text == "hello"

        wait_until(hello, 120, "the container answers", interval=0.2)


@pytest.fixture(scope="module")
def guest(
    libvirtd: Libvirtd, lab: Lab, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guest]:
    """The module's machine, created."""
    made = Guest(libvirtd, lab, registry, tmp_path_factory)
    try:
        yield made.create()
    finally:
        made.machine("rm", "-y", "-f", made.name, check=False)


def test_create_says_where_the_time_went(guest: Guest) -> None:
    print(guest.said)
    assert "KVM does not work here" in guest.said
    ours = re.search(r"made in ([0-9.]+) s", guest.said)
    assert ours is not None
    print(f"the driver's own part: {ours[1]} s (wanted: {OURS_SECONDS})")
    assert float(ours[1]) < NOISE_SECONDS
    assert "First contact" not in guest.said, (
        "its host keys were seeded: nothing was pinned on sight"
    )


def test_the_machine_is_what_was_asked_for(guest: Guest) -> None:
    seen = guest.ssh(
        "hostname; id -un; cloud-init status; nproc; df --output=size -BG / | tail -1; "
        "lsblk -dno NAME,SIZE,RO /dev/vdb /dev/vdc; head -1 /proc/meminfo"
    ).split("\n")
    assert seen[:4] == ["guest", "debian", "status: done", "2"]
    assert seen[4].strip() in {"4G", "5G"}, "the file system has grown into the disk"
    assert seen[5].split()[::2] == ["vdb", "1"]  # the seed, read-only
    assert seen[6].split() == ["vdc", "1G", "0"]
    assert int(seen[7].split()[1]) < MEBIBYTES * 1024
    assert "cloud-init" in guest.machine("console", guest.name).text
    assert guest.machine("status", guest.name).text == "Running"


def test_a_container_answers_from_outside(guest: Guest) -> None:
    guest.docker(
        "run",
        "-d",
        "--name",
        "web",
        "--restart",
        "always",
        "-p",
        "8080:80",
        "busybox",
        "sh",
        "-c",
        WEB,
    )
    guest.wait_page()


def test_a_snapshot_brings_it_back_as_it_ran(guest: Guest) -> None:
    guest.timed("snapshot", "create", guest.name, "served")
    assert "served" in guest.machine("snapshot", "ls", guest.name).text
    guest.docker("rm", "-f", "web")
    guest.timed("snapshot", "restore", guest.name, "served")
    guest.wait_page()
    assert guest.docker("ps", "--format", "{{.Names}}").text == "web"
    guest.timed("snapshot", "rm", guest.name, "served")


def test_suspend_and_resume_keep_what_ran(guest: Guest) -> None:
    before = guest.ssh("cat /proc/sys/kernel/random/boot_id")
    guest.timed("suspend", guest.name)
    assert guest.machine("status", guest.name).text == "Saved"
    guest.timed("resume", guest.name)
    guest.wait_page()
    assert guest.ssh("cat /proc/sys/kernel/random/boot_id") == before


def test_stop_and_start_bring_the_container_again(guest: Guest) -> None:
    guest.timed("stop", guest.name)
    assert guest.machine("status", guest.name).text == "Stopped"
    assert guest.libvirtd.virsh("list", "--name") == []
    guest.timed("start", guest.name)
    guest.wait_page()


def test_rm_leaves_nothing_on_the_hypervisor(guest: Guest) -> None:
    document = guest.libvirtd.run("virsh", "dumpxml", guest.name)
    tag = documents.tag_of(document)
    assert tag is not None
    assert tag.base in str(guest.libvirtd.virsh("vol-list", plan.POOL))
    guest.timed("rm", "-y", guest.name)
    for listing in ("list", "net-list", "pool-list"):
        rows = [line.split()[0] for line in guest.libvirtd.virsh(listing, "--all")]
        assert [name for name in rows if not name.startswith("someone")] == [], listing
    left = "find /var/lib/libvirt /etc/libvirt/qemu -newer /etc/libvirt/qemu.conf -type f"
    files = guest.libvirtd.run(*left.split()).split()
    assert [name for name in files if tag.uuid in name or guest.name in name] == []
    assert guest.machine("ls", "-q").text == ""
