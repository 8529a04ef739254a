"""What is to be made, as values; what the user asked for, checked. Pure but for reading the user's files."""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import re
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from drivers.api import DriverContext
from drivers.errors import DriverError, InvalidError

OURS: Final = uuid.UUID("6d616368-696e-4e02-9b1f-6c6962766972")
# What is shared by machines carries one of these uuids: a network or pool that has it is ours.
NETWORK_UUID: Final = str(uuid.uuid5(OURS, "network"))
POOL_UUID: Final = str(uuid.uuid5(OURS, "pool"))
NETWORK: Final = "machine"
POOL: Final = "machine"
BRIDGE: Final = "virbr-machine"
BASE_PREFIX: Final = "machine-base-"
GIB: Final = 1 << 30
MOST_USERDATA: Final = 512 * 1024
FIRMWARE: Final = ("bios", "uefi")
ACCELERATORS: Final = ("auto", "kvm", "tcg")
SHARE_TYPES: Final = ("virtiofs", "9p")
MOST_EXTRA: Final = 20  # vdc to vdv
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_INTERFACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_CHECKSUM: Final = re.compile(r"sha512:[0-9a-fA-F]{128}|sha256:[0-9a-fA-F]{64}")
_QCOW2: Final = b"QFI\xfb"


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """A folder of the hypervisor's host, seen by the guest."""

    folder: str
    where: str
    read_only: bool

    @property
    def tag(self) -> str:
        """The mount tag; 9p allows 31 bytes."""
        return f"share-{hashlib.sha256(self.where.encode()).hexdigest()[:12]}"


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """What the head of an image file says. `backing`: it refers to another file."""

    format: str  # qcow2 or raw
    size: int  # bytes of the disk in it
    backing: bool


def volume_prefix(machine: str) -> str:
    """All volumes of a machine, and nobody else's, begin so."""
    return f"machine-{machine}-"


def volume(machine: str, part: str) -> str:
    return f"{volume_prefix(machine)}{part}"


def mac(machine: str) -> str:
    """The card's address, the same at every call. 52:54:00 is QEMU's own prefix."""
    digest = hashlib.sha256(machine.encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])


def tidy_uri(uri: str) -> str:
    """The URI as libvirt gets it: ssh must never ask at the terminal, it would wait for ever."""
    parts = urlsplit(uri)
    if "+ssh" not in parts.scheme and "+libssh" not in parts.scheme:
        return uri
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    query.setdefault("no_tty", "1")
    return urlunsplit(parts._replace(query=urlencode(query, safe="/:@")))


def is_local(uri: str) -> bool:
    """Whether the hypervisor is this computer."""
    return not urlsplit(uri).hostname


def is_session(uri: str) -> bool:
    """Whether it is the user's own unprivileged daemon."""
    return urlsplit(uri).path.rstrip("/").endswith("/session")


def pool_folder(uri: str, home: Path) -> str:
    """Where our pool is; below libvirt's own folder, which AppArmor and SELinux know."""
    if is_session(uri):
        return str(home / ".local/share/libvirt/images/machine")
    return "/var/lib/libvirt/images/machine"


def share(text: str) -> Share:
    """FOLDER:WHERE[:ro]. Raises InvalidError."""
    folder, _, rest = text.partition(":")
    where, _, mode = rest.partition(":")
    if not (folder.startswith("/") and where.startswith("/")) or mode not in {"", "ro", "rw"}:
        raise InvalidError(f'--libvirt-share "{text}": it is FOLDER:WHERE or FOLDER:WHERE:ro')
    return Share(folder, where, mode == "ro")


def picture(head: bytes, file_size: int) -> Picture:
    """From the first 64 KiB of an image (docs/interop/qcow2.txt of QEMU, version 2 and 3)."""
    if not head.startswith(_QCOW2):
        return Picture("raw", file_size, backing=False)
    data_file = int.from_bytes(head[4:8], "big") >= 3 and bool(head[79] & 4)
    backing = int.from_bytes(head[8:16], "big") != 0
    return Picture("qcow2", int.from_bytes(head[24:32], "big"), backing or data_file)


def look(path: Path) -> Picture:
    """The image file. Raises InvalidError when it refers to other files: they would be read too."""
    try:
        with path.open("rb") as file:
            found = picture(file.read(65536), path.stat().st_size)
    except OSError as err:
        raise InvalidError(f"image {path}: {err.strerror}") from err
    if found.backing:
        raise InvalidError(
            f"image {path} refers to another file",
            hint="Make it whole: qemu-img convert -O qcow2 IMAGE WHOLE.qcow2",
        )
    if not found.size:
        raise InvalidError(f"image {path} is empty")
    return found


def neighbours(table: str, mac: str) -> list[str]:
    """Addresses that /proc/net/arp (proc(5)) has for that card; entries without an answer have 0x0."""
    rows = (line.split() for line in table.splitlines()[1:])
    return [
        row[0] for row in rows if len(row) >= 6 and row[3].lower() == mac and int(row[2], 16) & 2
    ]


def subnets(taken: Iterable[ipaddress.IPv4Network]) -> list[ipaddress.IPv4Network]:
    """Where our NAT network may be, best first: 192.168.N.0/24 that no other network there has."""
    others = list(taken)
    mine = (ipaddress.IPv4Network(f"192.168.{n}.0/24") for n in (*range(150, 200), *range(20, 100)))
    return [one for one in mine if not any(one.overlaps(other) for other in others)]


def extra_sizes(ctx: DriverContext) -> list[int]:
    """GiB of each extra disk. Raises InvalidError."""
    sizes = []
    for text in ctx.listed("extra-disk"):
        if not text.isdecimal() or not 0 < int(text) <= 65536:
            raise InvalidError(f'--libvirt-extra-disk takes a size in GiB, not "{text}"')
        sizes.append(int(text))
    if len(sizes) > MOST_EXTRA:
        raise InvalidError(f"--libvirt-extra-disk: at most {MOST_EXTRA}")
    return sizes


def shares(ctx: DriverContext) -> list[Share]:
    return [share(text) for text in ctx.listed("share")]


def image_given(ctx: DriverContext) -> tuple[str, str]:
    """(what drivers.images takes, the checksum to verify a file of the user's against)."""
    given, checksum = ctx.text("image"), ctx.text("image-checksum")
    if checksum and "://" in given and "#" not in given:
        return f"{given}#{checksum.replace(':', '=', 1)}", ""
    return given, checksum


def verify(path: Path, checksum: str) -> str:
    """The file's sha256 in hexadecimal. Raises InvalidError when it has not that `checksum`."""
    kind, _, wanted = checksum.partition(":")
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, kind or "sha256").hexdigest()
    except OSError as err:
        raise InvalidError(f"image {path}: {err.strerror}") from err
    if wanted and digest != wanted.lower():
        raise InvalidError(f"image {path}: its {kind} is {digest}, not {wanted}")
    return digest


def userdata(ctx: DriverContext) -> bytes:
    """The user's own user data. Raises InvalidError."""
    name = ctx.text("userdata")
    if not name:
        return b""
    path = Path(name).expanduser()
    try:
        if path.stat().st_size > MOST_USERDATA:
            raise InvalidError(f"--libvirt-userdata {path}: more than {MOST_USERDATA >> 10} KiB")
        return path.read_bytes()
    except OSError as err:
        raise InvalidError(f"--libvirt-userdata {path}: {err.strerror}") from err


def problems(ctx: DriverContext) -> list[str]:
    """Everything that is wrong with the options themselves; asks no hypervisor."""
    found = [*_number_problems(ctx), *_word_problems(ctx)]
    for read in (extra_sizes, shares, userdata):
        try:
            read(ctx)
        except DriverError as err:
            found.append(err.message)
    if ctx.text("share-type") == "virtiofs" and any(":ro" in one for one in ctx.listed("share")):
        found.append("--libvirt-share FOLDER:WHERE:ro needs --libvirt-share-type 9p")
    if ctx.text("network") and ctx.text("bridge"):
        found.append("--libvirt-network and --libvirt-bridge exclude each other")
    if ctx.text("image-checksum") and not ctx.text("image"):
        found.append("--libvirt-image-checksum is for a --libvirt-image of yours")
    return found


def _number_problems(ctx: DriverContext) -> list[str]:
    rows = (
        ("cpus", "--libvirt-cpus", 1, 1024, "CPUs"),
        ("memory", "--libvirt-memory", 256, 1 << 24, "MiB"),
        ("disk-size", "--libvirt-disk-size", 1, 65536, "GiB"),
    )
    return [
        f"{flag} {ctx.number(name)}: it takes {least} to {most} {unit}"
        for name, flag, least, most, unit in rows
        if not least <= ctx.number(name) <= most
    ]


def _word_problems(ctx: DriverContext) -> list[str]:
    found = []
    for name, flag, known in (
        ("firmware", "--libvirt-firmware", FIRMWARE),
        ("accelerator", "--libvirt-accelerator", ACCELERATORS),
        ("share-type", "--libvirt-share-type", SHARE_TYPES),
    ):
        if ctx.text(name) not in known:
            found.append(f"{flag} {ctx.text(name)}: there is only {', '.join(known)}")
    for name, flag, shape in (
        ("network", "--libvirt-network", _NAME),
        ("pool", "--libvirt-pool", _NAME),
        ("bridge", "--libvirt-bridge", _INTERFACE),
        ("ssh-user", "--libvirt-ssh-user", _USER),
        ("image-checksum", "--libvirt-image-checksum", _CHECKSUM),
    ):
        value = ctx.text(name)
        if (value or name == "ssh-user") and not shape.fullmatch(value):
            found.append(f'{flag} "{value}": that is not possible')
    if not urlsplit(ctx.text("uri")).scheme.startswith("qemu"):
        found.append(f"--libvirt-uri {ctx.text('uri')}: only qemu:// and qemu+...:// are supported")
    return found
