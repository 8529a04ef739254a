"""A lab: one network with hosts and a registry, found again by its name."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.lab import cgroups, network
from tests.lab.cache import Cache, key_of, locked
from tests.lab.compose import programs
from tests.lab.debian import MINIMAL_KEY, Debian
from tests.lab.errors import LabError
from tests.lab.host import Host, HostRecord, new_ssh_key, read_record
from tests.lab.hostroot import Flavour, HostRoots, Variant
from tests.lab.images import ImageBuilder
from tests.lab.process import run
from tests.lab.registry import Registry, program
from tests.lab.settings import Settings
from tests.lab.vm import Vm, all_known
from tests.lab.vmimage import VmImages

_FIRST_HOST, _LAST_HOST = 11, 250


@dataclass(frozen=True)
class LabRecord:
    """What lab.json remembers; `owner` is the process that it must not outlive, or None."""

    name: str
    index: int
    owner: str | None


def process_identity(pid: int) -> str | None:
    """Process id and start time, so that a number used again is not mistaken; None: no such one."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{pid}:{fields[19]}"


def _read(directory: Path) -> LabRecord | None:
    try:
        return LabRecord(**json.loads((directory / "lab.json").read_text()))
    except FileNotFoundError:
        return None


def _folders(settings: Settings) -> list[Path]:
    return sorted(p for p in settings.state.glob("[!.]*") if p.is_dir())


def _allocate(settings: Settings, name: str, owner: int | None) -> LabRecord:
    """The record of lab `name`; a new one takes an index that nobody has."""
    directory = settings.state / name
    with locked(settings.state / ".lock"):
        known = _read(directory)
        if known is not None:
            return known
        directory.mkdir(mode=0o700, exist_ok=True)
        records = [r for r in map(_read, _folders(settings)) if r is not None]
        used = {r.index for r in records}
        for index in range(250):
            free = index not in used and not Path(f"/sys/class/net/mlab{index}").exists()
            if free:
                identity = None if owner is None else process_identity(owner)
                record = LabRecord(name, index, identity)
                temporary = directory / ".lab.json"
                temporary.write_text(json.dumps(record.__dict__))
                temporary.rename(directory / "lab.json")
                return record
    raise LabError("no free subnet: 250 labs are up")


class Lab:
    """See `open_lab`. Thread-safe where methods say so."""

    def __init__(self, settings: Settings, record: LabRecord) -> None:
        self.settings = settings
        self.name = record.name
        self.directory = settings.state / record.name
        self.subnet = network.Subnet(record.name, record.index)
        self.debian = Debian(Cache(settings.cache))
        self.key = self.directory / "id"

    def prepare(self) -> None:
        """Make network and key, if they are not there yet."""
        with locked(self.directory / ".lock"):
            if not self.key.exists():
                private, public = new_ssh_key(f"lab-{self.name}")
                self.key.with_suffix(".pub").write_text(public)
                self.key.touch(mode=0o600)
                self.key.write_text(private)
            network.raise_switch(self.subnet)

    def hosts(self) -> list[Host]:
        """All hosts, on or off."""
        folders = sorted(self.directory.glob("hosts/*"))
        return [Host(f, self.subnet, self.key) for f in folders if read_record(f) is not None]

    def vms(self) -> list[Vm]:
        """All virtual machines, on or off."""
        return all_known(sorted(self.directory.glob("vms/*")), self.subnet, self.key)

    def find(self, name: str) -> Host:
        """The host or virtual machine of that name. Raises LabError when there is none."""
        for vm in self.vms():
            if vm.name == name:
                return vm
        directory = self.directory / "hosts" / network.check_name(name)
        if read_record(directory) is None:
            raise LabError(f"lab {self.name} has no host {name!r}")
        return Host(directory, self.subnet, self.key)

    def host(
        self,
        name: str | None = None,
        variant: Variant = "systemd",
        flavour: Flavour = "full",
        *,
        wait: bool = True,
        furnish: Callable[[Path], None] | None = None,
    ) -> Host:
        """The host `name`, switched on and answering SSH; a new one when there is none.

        Without `name` always a new one. Thread-safe. An existing host keeps its variant.
        `furnish` may write into a new host's root (the folder it is called with) before it boots.
        """
        if name is not None:
            directory = self.directory / "hosts" / network.check_name(name)
            if read_record(directory) is not None:
                known = Host(directory, self.subnet, self.key)
                known.start(wait=wait)
                return known
        layers = HostRoots(self.debian).layers(variant, flavour)
        with locked(self.directory / ".lock"):
            number = self._next_number()
            name = name or f"h{number}"
            directory = self.directory / "hosts" / name
            shutil.rmtree(directory, ignore_errors=True)  # of an interrupted creation
            record = HostRecord(
                name, self.subnet.address(number), variant, flavour, tuple(map(str, layers))
            )
            made = Host.make(directory, record, self.subnet, self.key)
        if furnish is not None:
            furnish(directory / "upper")
        made.start(wait=wait)
        return made

    def move(self, host: Host) -> Host:
        """The host, which is off, at another address: as a provider gives one at each start."""
        with locked(self.directory / ".lock"):
            record = dataclasses.replace(host.record, ip=self.subnet.address(self._next_number()))
            host.rewrite(record)
        return Host(host.directory, self.subnet, self.key)

    def vm(self, name: str | None = None, *, wait: bool = True) -> Vm:
        """The virtual machine `name`, switched on and answering SSH; a new one when there is none.

        Pure cgroup v2, a kernel of its own, systemd, the container parts installed. The first
        answer takes 15 s, several times that on a busy computer. Thread-safe.
        """
        known = next((vm for vm in self.vms() if vm.name == name), None)
        if known is not None:
            known.start(wait=wait)
            return known
        images = VmImages(self.debian)
        layers = (images.image(), images.emulator(), self.debian.minimal())
        with locked(self.directory / ".lock"):
            number = self._next_number()
            name = network.check_name(name or f"v{number}")
            directory = self.directory / "vms" / name
            shutil.rmtree(directory, ignore_errors=True)  # of an interrupted creation
            paths = tuple(map(str, layers))
            record = HostRecord(name, self.subnet.address(number), "systemd", "full", paths)
            made = Vm.make(directory, record, self.subnet, self.key)
        made.start(wait=wait)
        return made

    def registry(self) -> Registry:
        """The registry, running; started (and its images built) when it is not. Thread-safe."""
        with ThreadPoolExecutor(2) as pool:
            building = pool.submit(ImageBuilder(self.debian).store)
            layers = (program(self.debian), self.debian.minimal())
            store = building.result()
        found = Registry(self.directory / "registry", self.subnet)
        with locked(self.directory / ".registry-lock"):
            found.start(layers, store)
        return found

    def docker_cli(self) -> Path:
        """Today's docker client program (Debian sid's)."""
        return programs(self.debian) / "docker"

    def engine(self) -> Path:
        """A folder with Debian's docker.io, containerd, runc, tini, iptables and their libraries,
        unpacked, not installed: to compare and to measure against."""

        def build(place: Path) -> None:
            (place / "debs").mkdir()
            below = [self.debian.minimal()]
            for deb in self.debian.download(place / "debs", below, "docker.io containerd"):
                run(["dpkg-deb", "-x", str(deb), str(place / "root")])
            shutil.rmtree(place / "debs")

        key = key_of("engine", 1, MINIMAL_KEY)
        return self.debian.cache.entry("engine", key, build) / "root"

    def down(self) -> None:
        """Remove every trace of the lab."""
        remove(self.settings, self.name)

    def _next_number(self) -> int:
        """Addresses go round, so that one is not used again at once."""
        place = self.directory / "last-number"
        last = int(place.read_text()) if place.exists() else _FIRST_HOST - 1
        taken = {h.ip for h in [*self.hosts(), *self.vms()]}
        span = _LAST_HOST - _FIRST_HOST + 1
        for step in range(span):
            number = _FIRST_HOST + (last + 1 - _FIRST_HOST + step) % span
            if self.subnet.address(number) not in taken:
                place.write_text(str(number))
                return number
        raise LabError(f"lab {self.name}: no free address")


def open_lab(settings: Settings, name: str, *, owner: int | None = None) -> Lab:
    """The lab `name`, made when there is none: its network is up, it may have no host yet.

    `owner`: a process without which the lab is worthless; `remove_stale` ends it then.
    """
    network.check_name(name)
    settings.cache.mkdir(parents=True, exist_ok=True)
    settings.state.mkdir(parents=True, exist_ok=True)
    lab = Lab(settings, _allocate(settings, name, owner))
    lab.prepare()
    return lab


def known_labs(settings: Settings) -> list[LabRecord]:
    """All labs on this computer."""
    return [r for r in map(_read, _folders(settings)) if r is not None]


def existing_lab(settings: Settings, name: str) -> Lab:
    """The lab `name`. Raises LabError when there is none."""
    record = _read(settings.state / network.check_name(name))
    if record is None:
        raise LabError(f"no lab {name!r} (python -m tests.lab --name {name} up)")
    return Lab(settings, record)


def remove(settings: Settings, name: str) -> None:
    """Remove every trace of lab `name`: processes, cgroups, namespaces, folders.

    Works from the name alone, whatever state the lab was left in.
    """
    network.check_name(name)
    cgroups.kill(name)
    cgroups.remove(name)
    network.remove_all(name)
    folder = settings.state / name
    if folder.exists():
        # Out of the way in one step: half a folder must not look like a lab. The lock file stays
        # (unlinking one that somebody waits for would let two in).
        dead = settings.state / f".dead-{name}-{os.urandom(4).hex()}"
        folder.rename(dead)
        shutil.rmtree(dead)


def remove_stale(settings: Settings) -> list[str]:
    """Remove the labs whose owners have died; their names."""
    gone = []
    for record in known_labs(settings):
        if record.owner is None:
            continue
        if process_identity(int(record.owner.partition(":")[0])) != record.owner:
            remove(settings, record.name)
            gone.append(record.name)
    return gone
