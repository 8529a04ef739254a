"""What a virtual machine is to be: arguments of VBoxManage, ports, addresses. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final
from uuid import UUID

from drivers.api import DriverContext
from drivers.errors import CannotError, InvalidError, QuotaError
from drivers.virtualbox.options import NIC_TYPES, PROMISCUOUS, UI_TYPES
from drivers.virtualbox.texts import Forward, HostOnly

SSH: Final = "ssh"
ENGINE: Final = "engine"
ENGINE_PORT: Final = 2376
CONTROLLER: Final = "disks"
DISK_PORT: Final = "0"
SEED_PORT: Final = "1"
LOOPBACK: Final = "127.0.0.1"
_PORTS: Final = range(20000, 32000)  # below the range that outgoing connections take
_MODIFY: Final = re.compile(r"[a-z][a-z0-9-]*=[^\x00-\x1f]*")
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_ARM: Final = frozenset({"arm64", "aarch64"})


def architecture(processor: str) -> str:
    """Debian's name of this computer's architecture: VirtualBox runs no other."""
    return "arm64" if processor.lower() in _ARM else "amd64"


def problems(ctx: DriverContext) -> list[str]:
    """What is wrong with the options by themselves."""
    found = [
        f"--virtualbox-{name} is for boot2docker, which is no more: give --virtualbox-image a cloud "
        "image (PATH or URL), or nothing for the newest Debian"
        for name in ("boot2docker-url", "import-boot2docker-vm")
        if ctx.text(name)
    ]
    for name, allowed in (
        ("nat-nictype", NIC_TYPES),
        ("hostonly-nictype", NIC_TYPES),
        ("hostonly-nicpromisc", PROMISCUOUS),
        ("ui-type", UI_TYPES),
    ):
        if ctx.text(name) not in allowed:
            found.append(f"--virtualbox-{name} {ctx.text(name)}: there is {', '.join(allowed)}")
    found += _sizes(ctx)
    if not ctx.flag("no-hostonly"):
        found += _network(ctx.text("hostonly-cidr"))
    found += [
        f"--virtualbox-modify {row!r} is not NAME=VALUE"
        for row in ctx.listed("modify")
        if not _MODIFY.fullmatch(row)
    ]
    if not _USER.fullmatch(ctx.text("ssh-user")):
        found.append(f"--virtualbox-ssh-user {ctx.text('ssh-user')!r} is no user name")
    if ctx.text("share-folder") and share(ctx) is None and not ctx.flag("no-share"):
        found.append(
            f"--virtualbox-share-folder {ctx.text('share-folder')!r} is not DIRECTORY:NAME"
        )
    return found


def _sizes(ctx: DriverContext) -> list[str]:
    found = []
    if ctx.number("cpu-count") == 0 or ctx.number("cpu-count") < -1:
        found.append(f"--virtualbox-cpu-count {ctx.number('cpu-count')}: 1 or more, or -1 for all")
    if ctx.number("memory") < 64:
        found.append(f"--virtualbox-memory {ctx.number('memory')}: 64 MiB at least")
    if ctx.number("disk-size") < 1:
        found.append(f"--virtualbox-disk-size {ctx.number('disk-size')}: 1 MiB at least")
    return found


def _network(cidr: str) -> list[str]:
    try:
        place = ipaddress.IPv4Interface(cidr)
    except ValueError as err:
        return [f"--virtualbox-hostonly-cidr {cidr}: {err}"]
    if place.network.prefixlen > 29 or place.ip in {
        place.network.network_address,
        place.network.broadcast_address,
    }:
        return [(f"--virtualbox-hostonly-cidr {cidr}: give this computer's own address in a network"
                " with room, such as 192.168.56.1/24")]  # fmt: skip
    return []


def share(ctx: DriverContext) -> tuple[str, str] | None:
    """(absolute directory, name) of --virtualbox-share-folder; None when nothing is shared."""
    given = ctx.text("share-folder")
    directory, colon, name = given.rpartition(":")
    if ctx.flag("no-share") or not colon or not directory:
        return None
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", name):
        return None
    return str(Path(directory).expanduser().absolute()), name


def created(ctx: DriverContext, arch: str) -> list[str]:
    """Arguments of createvm. The uuid is the machine's: that is how it is found again."""
    argv = ["--name", ctx.name, "--uuid", ctx.uuid, "--basefolder", str(ctx.folder / "vm")]
    if arch == "arm64":
        argv += ["--platform-architecture", "arm", "--ostype", "Debian_arm64"]
    else:
        argv += ["--ostype", "Debian_64"]
    return [*argv, "--register"]


def hardware(ctx: DriverContext, arch: str, cpus: int, console: str) -> list[str]:
    """Arguments of modifyvm, the same every time. The user's own come last, and so win."""
    wanted: dict[str, str] = {
        "memory": str(ctx.number("memory")),
        "cpus": str(cpus if ctx.number("cpu-count") == -1 else ctx.number("cpu-count")),
        "acpi": "on",
        "rtc-use-utc": "on",
        "boot1": "disk", "boot2": "none", "boot3": "none", "boot4": "none",
        "graphicscontroller": "vmsvga",
        "vram": "16",
        "audio-driver": "none",
        "nic1": "nat",
        "nictype1": ctx.text("nat-nictype"),
        "cableconnected1": "on",
        "natdnshostresolver1": _switch(on=ctx.flag("host-dns-resolver")),
        "natdnsproxy1": _switch(on=not ctx.flag("no-dns-proxy")),
        # the metadata service of a cloud, or a service of this computer, is not for containers
        "nat-localhostreachable1": "off",
    }  # fmt: skip
    if arch == "amd64":
        wanted |= {"firmware": "bios", "ioapic": "on", "usb-ohci": "off"}
    argv = [part for name, value in wanted.items() for part in (f"--{name}", value)]
    argv += ["--uart1", "0x3F8", "4", "--uartmode1", "file", console]
    for row in ctx.listed("modify"):
        name, _, value = row.partition("=")
        argv += [f"--{name}", value]
    return argv


def _switch(*, on: bool) -> str:
    return "on" if on else "off"


def missing_forwards(
    uuid: str, have: Mapping[str, Forward], free: Callable[[int], bool]
) -> tuple[list[str], list[str]]:
    """(names of rules to take away, rules to add), so that each forwarded port is a free one.

    For a machine that is off: its ports must not be anyone's. Raises QuotaError when none is free.
    """
    drop: list[str] = []
    add: list[str] = []
    taken = {one.port for one in have.values()}
    for name in (SSH, ENGINE):
        rule = have.get(name)
        if rule and rule == _rule(name, rule.port) and free(rule.port):
            continue
        if rule:
            drop.append(name)
        port = _port(f"{uuid}{name}", lambda p: p not in taken and free(p))
        taken.add(port)
        made = _rule(name, port)
        add.append(f"{name},tcp,{made.host},{made.port},,{made.inner}")
    return drop, add


def _rule(name: str, port: int) -> Forward:
    """The engine listens on the machine at the port that its clients use here."""
    return Forward(name, LOOPBACK, port, 22 if name == SSH else port)


def _port(seed: str, free: Callable[[int], bool]) -> int:
    """A port that depends on the machine, so that stopped machines seldom share one."""
    start = int.from_bytes(seed.encode(), "big") % len(_PORTS)
    for step in range(len(_PORTS)):
        port = _PORTS[(start + step) % len(_PORTS)]
        if free(port):
            return port
    raise QuotaError(f"no free port of {_PORTS.start} to {_PORTS.stop - 1} on {LOOPBACK}")


def adapter(have: Iterable[HostOnly], cidr: str) -> HostOnly | None:
    """The host-only adapter of that very address and network.

    Raises CannotError when another adapter's network overlaps with it.
    """
    wanted = ipaddress.IPv4Interface(cidr)
    for one in have:
        try:
            place = ipaddress.IPv4Interface(f"{one.address}/{one.netmask}")
        except ValueError:
            continue
        if place == wanted:
            return one
        if place.network.overlaps(wanted.network):
            raise CannotError(
                f"the host-only adapter {one.name} has {place}, which overlaps with {wanted}",
                hint=f"Give --virtualbox-hostonly-cidr {place}",
            )
    return None


def pool(cidr: str) -> tuple[str, str, str, str]:
    """(server, netmask, first, last) of the DHCP server: the upper three quarters of the network."""
    place = ipaddress.IPv4Interface(cidr)
    network = place.network
    first = network.network_address + network.num_addresses // 4 + 1
    last = network.broadcast_address - 1
    server = network.network_address + 2
    if server == place.ip:
        server += 1
    return str(server), str(network.netmask), str(first), str(last)


def fixed_address(cidr: str, uuid: str, taken: Iterable[str]) -> str:
    """An address of the pool for this machine alone. Raises QuotaError when all are taken."""
    _, _, first, last = pool(cidr)
    low, high = int(ipaddress.IPv4Address(first)), int(ipaddress.IPv4Address(last))
    refused = {*taken, str(ipaddress.IPv4Interface(cidr).ip)}
    room = high - low + 1
    start = UUID(uuid).int % room
    for step in range(min(room, 1 << 16)):
        address = str(ipaddress.IPv4Address(low + (start + step) % room))
        if address not in refused:
            return address
    raise QuotaError(f"the network {cidr} has no address left")


def check_label(label: str) -> str:
    """A snapshot's label, which no option can be mistaken for. Raises InvalidError."""
    if not re.fullmatch(r"[A-Za-z0-9._][A-Za-z0-9._-]*", label):
        raise InvalidError(f"{label!r} is no label: letters, digits and . _ - only, no - first")
    return label
