"""A virtual machine of a lab: a host with a kernel of its own, by qemu's emulation (never KVM).

It stands where containers' hosts cannot: pure cgroup v2 with every controller, real power cuts,
a reboot that is one. It is a `Host` in all that a test asks of one; `run` goes over SSH.
"""

import json
import os
import shlex
import shutil
import signal
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.lab import network
from tests.lab.enter import Overlay, Root
from tests.lab.environment import CLEAN_ENVIRONMENT
from tests.lab.errors import LabError
from tests.lab.host import USERS, Host, HostRecord, answers_ssh, furnish
from tests.lab.process import run
from tests.lab.supervise import Unit
from tests.lab.vmimage import IMAGE_ON_VM, archive, tree
from tests.lab.waiting import wait_until

PROCESSORS, MEBIBYTES = 2, 768
_BOOT_SECONDS = 240.0  # 15 on an idle computer; emulation shares it with everything else
_TAP = "tap0"
_LONGEST_SOCKET = 85  # of 107; ssh puts a random suffix behind while it makes one
# no initramfs, so nothing renames eth0; mitigations cost a third of the speed
_KERNEL = "root=/dev/vda rw console=ttyS0 quiet mitigations=off net.ifnames=0 panic=5"
_NETWORK = """\
[Match]
Name=eth0
[Network]
Address={ip}/24
Gateway={gateway}
LinkLocalAddressing=no
IPv6AcceptRA=no
"""


def emulator_argv(mac: str) -> tuple[str, ...]:
    """The machine: processor, memory, disk, network card, serial line. Paths as qemu sees them."""
    # Nehalem: what distributions ask for at least (x86-64-v2), and cheaper to emulate than "max".
    # cache=unsafe: a guest's flush waits for no disk. What it wrote is in this computer's memory,
    # and a power cut (SIGTERM to qemu) still writes qcow2's own tables.
    return (
        "/usr/bin/qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
        "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "Nehalem",
        "-smp", str(PROCESSORS), "-m", str(MEBIBYTES),
        "-kernel", f"{IMAGE_ON_VM}/vmlinuz", "-initrd", "/vm/initrd", "-append", _KERNEL,
        "-drive", "file=/vm/disk.qcow2,format=qcow2,if=none,id=disk,cache=unsafe,discard=unmap",
        "-device", "virtio-blk-pci,drive=disk",
        "-netdev", f"tap,id=net,ifname={_TAP},script=no,downscript=no",
        "-device", f"virtio-net-pci,netdev=net,mac={mac},romfile=",
        "-device", "virtio-rng-pci",
        "-chardev", "file,id=console,path=/vm/serial.log,append=on", "-serial", "chardev:console",
    )  # fmt: skip


class Vm(Host):
    """See the module. `record.layers` are the image's folder and the emulator's layers."""

    @classmethod
    def make(cls, directory: Path, record: HostRecord, subnet: network.Subnet, key: Path) -> "Vm":
        """Lay out a new machine's disk; it is off."""
        for name in ("upper", "emulator/upper", "emulator/work", "emulator/top"):
            (directory / name).mkdir(parents=True)
        image = Path(record.layers[0])
        seed = directory / "upper"
        furnish(directory, record, key.with_suffix(".pub").read_text(), subnet)
        unit = seed / "etc/systemd/network/10-lab.network"
        unit.parent.mkdir(parents=True)
        unit.write_text(_NETWORK.format(ip=record.ip, gateway=subnet.gateway))
        initrd = (image / "initrd").read_bytes() + archive(tree(seed, "seed"))
        (directory / "initrd").write_bytes(initrd)
        shutil.copyfile(image / "overlay.qcow2", directory / "disk.qcow2")
        temporary = directory / ".host.json"
        temporary.write_text(json.dumps(asdict(record)))
        temporary.rename(directory / "host.json")
        return cls(directory, subnet, key)

    @property
    def unit(self) -> str:
        """The name of its cgroup."""
        return f"vm-{self.name}"

    @property
    def netns(self) -> str:
        """The network namespace of its emulator."""
        return network.netns_name(self._subnet.lab, f"vm-{self.name}")

    @property
    def data(self) -> Path:
        """Not to be seen from here: it is on the machine's own disk."""
        raise LabError(f"{self.name} is a virtual machine: its files are inside")

    def console(self) -> str:
        """What its kernel and the emulator printed."""
        log = self.directory / "serial.log"
        serial = log.read_text(errors="replace") if log.exists() else ""
        return super().console() + serial

    def stop(self) -> None:
        """Cut the power: the system inside is not told. Nothing happens when it is off."""
        self._log_out()
        pid = self.init_pid
        if pid is not None:
            os.kill(pid, signal.SIGTERM)  # the emulator writes its own tables and ends
            wait_until(lambda: not self.running, 20, f"power off of {self.name}")
        super().stop()

    def _log_out(self) -> None:
        """End the shared logins: they would wait for answers of a machine that is off."""
        for user in USERS:
            if (self.directory / f"ssh-{user}").exists():
                run([*self.ssh_argv(user), "-Oexit"], check=False)

    def wait_ssh(self, seconds: float = _BOOT_SECONDS) -> None:
        """Return when SSH answers. Raises LabError with the console's end after `seconds`."""
        what = f"ssh of {self.name} at {self.ip}"
        try:
            wait_until(lambda: answers_ssh(self.ip), seconds, what, interval=0.05)
        except LabError as late:
            raise LabError(f"{late}\n{self.console()[-2000:]}") from late

    def wait_reboot(self, boot_id: str, seconds: float = _BOOT_SECONDS) -> None:
        """Return when it has booted since `boot_id()` was that, and SSH answers.

        Asking is dear here (a login costs the guest a second), so its SSH server is watched going
        away and coming back.
        """
        what = f"{self.name} to go down"
        wait_until(lambda: not answers_ssh(self.ip), seconds, what, interval=0.05)
        self.wait_ssh(seconds)
        if self.boot_id() == boot_id:
            raise LabError(f"{self.name} was away for a moment, but did not reboot")

    def ssh_argv(self, user: str = "root") -> list[str]:
        """The ssh command up to the remote command. Logins are shared for a minute."""
        argv = super().ssh_argv(user)
        control = f"{self.directory}/ssh-{user}"
        if len(control) > _LONGEST_SOCKET:
            return argv
        options = (
            f"ControlPath={control}", "ControlMaster=auto", "ControlPersist=60",
            "ServerAliveInterval=5", "ServerAliveCountMax=3", "ConnectTimeout=20",
        )  # fmt: skip
        return [*argv[:-1], *(f"-o{option}" for option in options), argv[-1]]

    def inside_argv(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` inside: over SSH, there is no other way in."""
        if not self.running:
            raise LabError(f"virtual machine {self.name} is off")
        return [*self.ssh_argv(), shlex.join(argv)]

    def _hardware(self) -> Unit:
        folder = self.directory
        image, *layers = self.record.layers
        place = folder / "emulator"
        plug = network.Plug(self._subnet.switch, self.netns, self.ip, self._subnet.gateway, _TAP)
        root = Root(
            root=Overlay(
                tuple(layers), str(place / "upper"), str(place / "work"), str(place / "top")
            ),
            argv=emulator_argv(plug.mac),
            environment={"PATH": CLEAN_ENVIRONMENT["PATH"], "HOME": "/root"},
            hostname=self.name,
            binds=((image, IMAGE_ON_VM), (str(folder), "/vm")),
        )
        return Unit(self._subnet.lab, self.unit, str(folder), plug, root)


def all_known(folders: Sequence[Path], subnet: network.Subnet, key: Path) -> list[Vm]:
    """The machines in these folders."""
    return [Vm(f, subnet, key) for f in folders if (f / "host.json").exists()]
