"""Debian's libvirtd, virtlogd and QEMU, in a network and mount namespace of their own.

One a lab. Its root is an overlay like a host's; it has an address on the lab's network, so that its
guests reach the registry, and nothing of it is in the root namespace. There is no systemd, dbus or
polkit in it: its first process is a shell that starts both daemons and reaps what they leave behind.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from tests.lab import cgroups, network
from tests.lab.cache import key_of
from tests.lab.debian import MINIMAL_KEY
from tests.lab.enter import Overlay, Root
from tests.lab.environment import CLEAN_ENVIRONMENT
from tests.lab.errors import LabError
from tests.lab.lab import Lab
from tests.lab.process import run
from tests.lab.supervise import Unit, power_on
from tests.lab.vmimage import VmImages
from tests.lab.waiting import wait_until

_PACKAGES = (
    "libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients dnsmasq-base iptables ovmf iproute2"
)
_NUMBER = 6  # on the lab's network; hosts begin at 11
_START_SECONDS = 90.0  # the first start of all asks every emulator what it can do
_UNIT = "libvirtd"
_QEMU = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
"""
_LIBVIRTD = 'auth_unix_ro = "none"\nauth_unix_rw = "none"\n'
# libvirt sets bridges up through /sys; the shell's wait reaps emulators whose parents have ended
_INIT = """\
mount -o remount,rw /sys
mkdir -p /run/libvirt /var/log/libvirt
virtlogd -d
libvirtd & wait
"""
# what libvirt-daemon-system's scripts make; that package would bring systemd and polkit
_AFTER = """\
groupadd -r kvm
groupadd -r libvirt
groupadd -g 64055 libvirt-qemu
useradd -u 64055 -g kvm -G libvirt-qemu -M -d /var/lib/libvirt -s /usr/sbin/nologin libvirt-qemu
"""
_SESSION = """\
mkdir -p /run/session {folder} /etc/qemu
echo 'allow {bridge}' >/etc/qemu/bridge.conf
chmod u+s /usr/lib/qemu/qemu-bridge-helper
chown -R libvirt-qemu:kvm /run/session /var/lib/session
cd /var/lib/session
exec env XDG_RUNTIME_DIR=/run/session HOME=/var/lib/session setpriv --reuid libvirt-qemu --regid kvm \
  --clear-groups libvirtd -d
"""
_KEY = key_of("libvirtd", 2, MINIMAL_KEY, _PACKAGES, _AFTER)


class Libvirtd:
    """A hypervisor. `uri` is for libvirt clients in the root namespace (by its unix socket);
    what is to reach its guests runs in `netns`."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.directory = lab.directory / "libvirtd"
        self.ip = lab.subnet.address(_NUMBER)
        self.netns = network.netns_name(lab.name, _UNIT)

    def start(self) -> "Libvirtd":
        """Return when it answers. Raises LabError with what it printed when it does not."""
        layers = (
            layer(self._lab),
            VmImages(self._lab.debian).emulator(),
            self._lab.debian.minimal(),
        )
        for name in ("upper/etc/libvirt", "work", "top"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        (self.directory / "upper/etc/libvirt/qemu.conf").write_text(_QEMU)
        (self.directory / "upper/etc/libvirt/libvirtd.conf").write_text(_LIBVIRTD)
        known = self._lab.settings.cache / f"libvirt-capabilities-{_KEY}"
        known.mkdir(exist_ok=True)
        cgroups.make(self._lab.name, cgroups.SUPERVISORS)
        cgroups.make(self._lab.name, _UNIT)
        power_on(self._hardware(layers, known), self.directory)
        try:
            wait_until(self._answers, _START_SECONDS, "libvirtd answers")
        except LabError as late:
            raise LabError(f"{late}\n{self.console()[-2000:]}") from late
        return self

    def stop(self) -> None:
        """End it with all its guests; its disk stays until the lab goes."""
        cgroups.kill(self._lab.name, _UNIT)
        cgroups.remove(self._lab.name, _UNIT)
        network.disconnect(self._plug())

    @property
    def root(self) -> Path:
        """Its file system as seen from here."""
        return Path(f"/proc/{self._pid}/root")

    @property
    def uri(self) -> str:
        """Its privileged daemon."""
        return f"qemu+unix:///system?socket={self.root}/run/libvirt/libvirt-sock"

    @property
    def session_folder(self) -> str:
        """A folder inside that the unprivileged daemon may write to."""
        return "/var/lib/session/images"

    def session(self, bridge: str) -> str:
        """The URI of a daemon without privileges, started when it isn't there; its guests may be
        on that bridge."""
        socket = f"{self.root}/run/session/libvirt/libvirt-sock"
        if not Path(socket).exists():
            self.run("sh", "-ec", _SESSION.format(bridge=bridge, folder=self.session_folder))
            wait_until(Path(socket).exists, _START_SECONDS, "the session's libvirtd answers")
        return f"qemu+unix:///session?socket={socket}"

    def run(self, *argv: str, check: bool = True) -> str:
        """Run a program inside, in all its namespaces; what it printed. Raises LabError."""
        inside = ["nsenter", "-t", str(self._pid), "-m", "-n", "-p", "--root", "--wd=/", *argv]
        return run(inside, check=check, timeout=120).stdout

    def virsh(self, *words: str) -> list[str]:
        """The lines that virsh prints."""
        return [
            line.strip() for line in self.run("virsh", "-q", *words).splitlines() if line.strip()
        ]

    def inside_network(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` of this computer in its network namespace only."""
        return ["nsenter", f"--net=/run/netns/{self.netns}", *argv]

    def lease(self, bridge: str, mac: str, ip: str) -> None:
        """Say that DHCP has given `ip` to `mac` on that bridge: for guests that never ask."""
        place = f"/var/lib/libvirt/dnsmasq/{bridge}.status"
        file = self.root / place.lstrip("/")
        known = json.loads(file.read_text() or "[]") if file.exists() else []
        known = [one for one in known if one["mac-address"] != mac]
        known.append({"ip-address": ip, "mac-address": mac, "expiry-time": 4_000_000_000})
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(known))

    def console(self) -> str:
        """What the daemons printed."""
        log = self.directory / "console.log"
        return log.read_text(errors="replace") if log.exists() else ""

    @property
    def _pid(self) -> int:
        return int((self.directory / "init.pid").read_text())

    def _answers(self) -> bool:
        try:
            return bool(self.run("virsh", "-q", "uri").strip())
        except (LabError, FileNotFoundError):
            return False

    def _plug(self) -> network.Plug:
        subnet = self._lab.subnet
        return network.Plug(subnet.switch, self.netns, self.ip, subnet.gateway)

    def _hardware(self, layers: Sequence[Path], known: Path) -> Unit:
        folder = self.directory
        root = Root(
            root=Overlay(
                tuple(map(str, layers)),
                str(folder / "upper"),
                str(folder / "work"),
                str(folder / "top"),
            ),
            argv=("/bin/sh", "-c", _INIT),
            environment={"PATH": CLEAN_ENVIRONMENT["PATH"], "HOME": "/root"},
            hostname="hypervisor",
            binds=((str(known), "/var/cache/libvirt/qemu"),),
        )
        return Unit(self._lab.name, _UNIT, str(folder), self._plug(), root)


def layer(lab: Lab) -> Path:
    """Its programs, over the emulator's and the minimal system's; built now when the cache has none."""
    below = [VmImages(lab.debian).emulator(), lab.debian.minimal()]

    def build(place: Path) -> None:
        lab.debian.layer(place, below, _PACKAGES, _AFTER)

    return lab.debian.cache.entry("libvirtd", _KEY, build) / "root"
