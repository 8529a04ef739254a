"""Lab hosts as the instances of a provider's emulator: made from a seed, which Debian's cloud-init
applies for real when the host boots (the variant `cloud`, data source NoCloud).

    hosts = CloudHosts(lab)
    host = hosts.create(CloudSeed("i-0abc", user_data=b"#cloud-config\\n..."))  # returns at once
    host.answers(), host.ip, host.shut_down(), host.start(move=True), host.destroy()
    hosts.close()  # none is left

Nothing here waits unless its name or its argument says so: an emulator answers "pending" meanwhile.
"""

import json
import threading
from dataclasses import dataclass
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.host import Host, answers_ssh
from tests.lab.hostroot import Flavour
from tests.lab.lab import Lab
from tests.lab.waiting import wait_until

_SEED = "var/lib/cloud/seed/nocloud"
_OFF_SECONDS = 30.0


@dataclass(frozen=True)
class CloudSeed:
    """What a provider hands to a host's first boot.

    `user_data` as the provider got it (gzip is fine); `public_keys` of the provider's key store are
    for the image's default user and root; a new `instance_id` makes a first boot.
    """

    instance_id: str
    user_data: bytes = b""
    public_keys: tuple[str, ...] = ()
    hostname: str = ""

    def write(self, root: Path) -> None:
        """Put it where cloud-init looks, below the host's root."""
        folder = root / _SEED
        folder.mkdir(parents=True, exist_ok=True)
        meta = {
            "instance-id": self.instance_id,
            "local-hostname": self.hostname or "host",
            "public-keys": list(self.public_keys),
        }
        for name, data in (
            ("user-data", self.user_data),
            ("meta-data", json.dumps(meta).encode()),
        ):
            (folder / name).write_bytes(data)
            (folder / name).chmod(0o600)


class CloudHost:
    """One instance. Thread-safe; verbs of one host wait for each other."""

    def __init__(self, lab: Lab, host: Host, ident: str) -> None:
        self.ident = ident
        self._lab = lab
        self._host = host
        self._lock = threading.Lock()

    @property
    def host(self) -> Host:
        """The lab's object of it, for a look inside; another one after a move."""
        return self._host

    @property
    def ip(self) -> str:
        """Its address now; it stays when the host is off."""
        return self._host.ip

    @property
    def on(self) -> bool:
        """Whether it has power."""
        return self._host.running

    def answers(self) -> bool:
        """Whether SSH answers now."""
        return answers_ssh(self.ip)

    def start(self, *, move: bool = False, wait: bool = False) -> None:
        """Power on; with `move` at a new address. Nothing happens when it is on."""
        with self._lock:
            if self._host.running:
                return
            if move:
                self._host = self._lab.move(self._host)
            self._host.start(wait=wait)

    def shut_down(self, seconds: float = _OFF_SECONDS) -> None:
        """Ask its system to power off, wait for that, and cut the power after `seconds`."""
        with self._lock:
            if not self._host.running:
                return
            try:
                self._host.run("systemctl", "--no-block", "poweroff", timeout=10)
                wait_until(lambda: not self._host.running, seconds, f"{self.ident} is off")
            except LabError:
                pass  # as providers do: what does not go in order goes by force
            self._host.stop()

    def cut(self) -> None:
        """Cut the power; the disk stays."""
        with self._lock:
            self._host.stop()

    def reboot(self) -> None:
        """Shut down in order and boot again, without waiting for the boot."""
        self.shut_down()
        self.start()

    def destroy(self) -> None:
        """Remove it with its disk; nothing happens when it is gone."""
        with self._lock:
            if self._host.directory.exists():
                self._host.destroy()

    def console(self) -> str:
        """What it printed on its console, cloud-init included."""
        log = self._host.directory / "upper/var/log/cloud-init-output.log"
        said = log.read_text(errors="replace") if log.exists() else ""
        return self._host.console() + said

    def wait_ssh(self, seconds: float = 60.0) -> None:
        """Return when SSH answers."""
        self._host.wait_ssh(seconds)


class CloudHosts:
    """The hosts of one emulator. Thread-safe."""

    def __init__(self, lab: Lab, *, flavour: Flavour = "full") -> None:
        self.lab = lab
        self._flavour = flavour
        self._hosts: dict[str, CloudHost] = {}
        self._lock = threading.Lock()

    def create(self, seed: CloudSeed, *, wait: bool = False) -> CloudHost:
        """A new host that boots now with this seed; with `wait`, when SSH answers."""
        host = self.lab.host(variant="cloud", flavour=self._flavour, wait=wait, furnish=seed.write)
        made = CloudHost(self.lab, host, seed.instance_id)
        with self._lock:
            self._hosts[seed.instance_id] = made
        return made

    def find(self, ident: str) -> CloudHost | None:
        """The host made with that instance id."""
        with self._lock:
            return self._hosts.get(ident)

    def left(self) -> list[str]:
        """The instance ids of hosts whose disks are still there."""
        with self._lock:
            hosts = list(self._hosts.values())
        return sorted(one.ident for one in hosts if one.host.directory.exists())

    def close(self) -> None:
        """Destroy all that are left."""
        with self._lock:
            hosts = list(self._hosts.values())
            self._hosts.clear()
        for one in hosts:
            one.destroy()
