"""One SSH host of a lab."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.lab import cgroups, network
from tests.lab.enter import Overlay, Root
from tests.lab.environment import CLEAN_ENVIRONMENT
from tests.lab.errors import LabError
from tests.lab.hostroot import Flavour, Variant
from tests.lab.process import run
from tests.lab.settings import REPOSITORY
from tests.lab.supervise import Unit, power_on
from tests.lab.waiting import wait_until

USERS = ("root", "debian")
_BOOT_SECONDS = 30.0
# not -m: the caller may be in any folder
_INSIDE = f"""import sys; sys.path.insert(0, {str(REPOSITORY)!r})
from tests.lab.inside import main; sys.exit(main(sys.argv[1:]))"""


def new_ssh_key(comment: str) -> tuple[str, str]:
    """An Ed25519 key pair as OpenSSH writes them: private, public line."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    ).decode()
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return private, f"{public.decode()} {comment}\n"


def answers_ssh(ip: str, port: int = 22) -> bool:
    """Whether an SSH server sends its banner there now."""
    try:
        with socket.create_connection((ip, port), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


@dataclass(frozen=True)
class HostRecord:
    """What host.json remembers."""

    name: str
    ip: str
    variant: Variant
    flavour: Flavour
    layers: tuple[str, ...]


class Host:
    """A host: disk in `directory`, powered by a supervisor, reached over SSH or `run` from inside.

    `ip`, `name`, `variant`, `flavour` say what it is; `key` is the private key that root and
    debian (sudo without password) accept; `known_hosts` the lab's file with its host key.
    """

    def __init__(self, directory: Path, subnet: network.Subnet, key: Path) -> None:
        self.directory = directory
        record = read_record(directory)
        if record is None:
            raise LabError(f"{directory}: no host there")
        self.record = record
        self.key = key
        self.known_hosts = directory / "known_hosts"
        self._subnet = subnet

    @classmethod
    def make(cls, directory: Path, record: HostRecord, subnet: network.Subnet, key: Path) -> "Host":
        """Lay out a new host's disk; it is off."""
        for name in ("upper", "work", "top", "data"):
            (directory / name).mkdir(parents=True)
        furnish(directory, record, key.with_suffix(".pub").read_text(), subnet)
        write_record(directory, record)
        return cls(directory, subnet, key)

    def rewrite(self, record: HostRecord) -> None:
        """Make `record` this host's, which is off; objects made from now on have it."""
        known = self.known_hosts.read_text().replace(f"{self.ip} ", f"{record.ip} ", 1)
        write_record(self.directory, record)
        self.known_hosts.write_text(known)

    @property
    def name(self) -> str:
        """Its name in the lab, also its hostname."""
        return self.record.name

    @property
    def ip(self) -> str:
        """Its IPv4 address, reachable from this computer and the lab's other hosts."""
        return self.record.ip

    @property
    def variant(self) -> Variant:
        """How it boots."""
        return self.record.variant

    @property
    def flavour(self) -> Flavour:
        """What is installed."""
        return self.record.flavour

    @property
    def data(self) -> Path:
        """The folder that the host sees as /var/lib/machine, as seen from here."""
        return self.directory / "data"

    @property
    def netns(self) -> str:
        """The name of its network namespace (for `ip netns exec`)."""
        return network.netns_name(self._subnet.lab, self.name)

    @property
    def unit(self) -> str:
        """The name of its cgroup."""
        return f"host-{self.name}"

    @property
    def host_key(self) -> str:
        """Its public host key: 'ssh-ed25519 AAAA...'."""
        line = (self.directory / "upper/etc/ssh/ssh_host_ed25519_key.pub").read_text()
        return " ".join(line.split()[:2])

    @property
    def init_pid(self) -> int | None:
        """The process id, here, of its process 1; None when it is off."""
        try:
            pid = int((self.directory / "init.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if Path(f"/proc/{pid}/ns/pid").exists() else None

    @property
    def running(self) -> bool:
        """Whether it has power: processes of it exist."""
        return bool(cgroups.members(self._subnet.lab, self.unit))

    def console(self) -> str:
        """What its process 1 and supervisor printed."""
        log = self.directory / "console.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def start(self, *, wait: bool = True) -> None:
        """Power on; with `wait`, return when SSH answers. Nothing happens when it is on."""
        if not self.running:
            cgroups.make(self._subnet.lab, cgroups.SUPERVISORS)
            cgroups.make(self._subnet.lab, self.unit)
            power_on(self._hardware(), self.directory)
        if wait:
            self.wait_ssh()

    def stop(self) -> None:
        """Cut the power (no shutdown); the disk stays. Nothing happens when it is off."""
        cgroups.kill(self._subnet.lab, self.unit)
        cgroups.remove(self._subnet.lab, self.unit)
        network.disconnect(self._hardware().plug)
        (self.directory / "init.pid").unlink(missing_ok=True)

    def destroy(self) -> None:
        """Remove it with its disk."""
        self.stop()
        shutil.rmtree(self.directory)

    def reboot(self) -> None:
        """Power-cycle: stop, then start."""
        self.stop()
        self.start()

    def wait_ssh(self, seconds: float = _BOOT_SECONDS) -> None:
        """Return when SSH answers. Raises LabError with the console's end after `seconds`."""
        try:
            wait_until(lambda: answers_ssh(self.ip), seconds, f"ssh of {self.name} at {self.ip}")
        except LabError as late:
            raise LabError(f"{late}\n{self.console()[-2000:]}") from late

    def boot_id(self) -> str:
        """Changes with each boot."""
        return self.run("cat", "/proc/sys/kernel/random/boot_id").stdout.strip()

    def wait_reboot(self, boot_id: str, seconds: float = _BOOT_SECONDS) -> None:
        """Return when it has booted since `boot_id()` was that, and SSH answers."""

        def changed() -> bool:
            if self.init_pid is None:
                return False
            try:
                return self.boot_id() not in (boot_id, "")
            except LabError:
                return False

        wait_until(changed, seconds, f"reboot of {self.name}")
        self.wait_ssh(seconds)

    def ssh_argv(self, user: str = "root") -> list[str]:
        """The ssh command up to the remote command; it asks for nothing."""
        options = (
            "StrictHostKeyChecking=yes", f"UserKnownHostsFile={self.known_hosts}",
            "BatchMode=yes", "LogLevel=ERROR", "IdentitiesOnly=yes",
        )  # fmt: skip
        flags = [f"-o{option}" for option in options]
        return ["ssh", "-F", "none", "-i", str(self.key), *flags, f"{user}@{self.ip}"]

    def ssh(
        self, command: str, *, user: str = "root", check: bool = True, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command over SSH with `text` on its stdin. Raises LabError as `run` does."""
        return run([*self.ssh_argv(user), command], check=check, text=text)

    def run(
        self, *argv: str, check: bool = True, text: str = "", timeout: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside the host without SSH, as root. Raises LabError on failure."""
        return run(self.inside_argv(argv), check=check, text=text, timeout=timeout)

    def inside_argv(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` inside, for those who want their own pipes or terminal."""
        pid = self.init_pid
        if pid is None:
            raise LabError(f"host {self.name} is off")
        cgroups.make(self._subnet.lab, f"{self.unit}/lab-exec")
        files = cgroups.procs_files(self._subnet.lab, f"{self.unit}/lab-exec")
        return [sys.executable, "-S", "-c", _INSIDE, str(pid), " ".join(files), *argv]

    def _hardware(self) -> Unit:
        folder = self.directory
        known = cgroups.hierarchies()
        only_v2 = self.variant == "systemd-v2"
        root = Root(
            root=Overlay(
                self.record.layers, str(folder / "upper"), str(folder / "work"), str(folder / "top")
            ),
            argv=("/sbin/init",),
            environment={"PATH": CLEAN_ENVIRONMENT["PATH"], "container": "lab"},
            hostname=self.name,
            binds=((str(self.data), "/var/lib/machine"),),  # overlay on overlay is refused (EINVAL)
            cgroups=cgroups.inner_mounts(known, only_v2=only_v2),
            shared=self.variant != "plain",
        )
        plug = network.Plug(self._subnet.switch, self.netns, self.ip, self._subnet.gateway)
        return Unit(self._subnet.lab, self.unit, str(folder), plug, root)


def furnish(directory: Path, record: HostRecord, public: str, subnet: network.Subnet) -> None:
    """What makes this host itself: name, identity, host key, who may log in."""
    upper = directory / "upper"
    private_host_key, public_host_key = new_ssh_key(record.name)
    hosts = (
        f"127.0.0.1 localhost\n127.0.1.1 {record.name}\n{subnet.address(2)} registry.lab\n"
        "::1 localhost ip6-localhost\n"
    )
    files: dict[str, tuple[str, int]] = {
        "etc/hostname": (f"{record.name}\n", 0o644),
        "etc/hosts": (hosts, 0o644),
        "etc/machine-id": (f"{os.urandom(16).hex()}\n", 0o444),
        "etc/ssh/ssh_host_ed25519_key": (private_host_key, 0o600),
        "etc/ssh/ssh_host_ed25519_key.pub": (public_host_key, 0o644),
        "root/.ssh/authorized_keys": (public, 0o600),
        "home/debian/.ssh/authorized_keys": (public, 0o600),
    }
    for name, (text, mode) in files.items():
        path = upper / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
    upper.chmod(0o755)
    for name in ("root", "root/.ssh", "home/debian/.ssh", "home/debian"):
        (upper / name).chmod(0o700)
    for name in ("home/debian", "home/debian/.ssh", "home/debian/.ssh/authorized_keys"):
        os.chown(upper / name, 1000, 1000)
    key = " ".join(public_host_key.split()[:2])
    (directory / "known_hosts").write_text(f"{record.ip} {key}\n")


def write_record(directory: Path, record: HostRecord) -> None:
    """Keep the record; a folder is a host from then on."""
    temporary = directory / ".host.json"
    temporary.write_text(json.dumps(asdict(record)))
    temporary.rename(directory / "host.json")


def read_record(directory: Path) -> HostRecord | None:
    """The record of a host's folder; None when making it was interrupted."""
    try:
        raw = json.loads((directory / "host.json").read_text())
    except FileNotFoundError:
        return None
    return HostRecord(**raw | {"layers": tuple(raw["layers"])})
