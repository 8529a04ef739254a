"""cloud-init's NoCloud seed as a disc image: ISO 9660 with Joliet names, volume "cidata".

Written here because no tool for it is on every computer (genisoimage, xorriso, hdiutil, oscdimg ...)
and a seed is a few kilobytes. The primary tree has 8.3 names, as ECMA-119 level 1 wants them; the
Joliet tree has the real ones, which Linux, Windows and cloud-init read. blkid takes the label from
either.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from drivers.errors import DriverError

SECTOR: Final = 2048
LABEL: Final = "cidata"
_PRIMARY: Final = 16
_JOLIET: Final = 17
_END: Final = 18
_TABLES: Final = 19  # four path tables: little and big endian, of each tree
_ROOTS: Final = (23, 24)
_FIRST_FILE: Final = 25
_NO_DATE: Final = b"0" * 16 + b"\0"
_EPOCH: Final = bytes((70, 1, 1, 0, 0, 0, 0))  # 1970: the same seed gives the same bytes


def seed_image(user_data: bytes, meta_data: bytes, network_config: bytes = b"") -> bytes:
    """The disc that cloud-init's NoCloud looks for; no network-config when that is empty."""
    files = {"meta-data": meta_data, "user-data": user_data}
    if network_config:
        files["network-config"] = network_config
    return iso9660(files, LABEL)


def write_seed(path: Path, data: bytes) -> None:
    """Put a seed at `path`, whole or not at all, mode 0600: it holds the host's private keys.

    Raises DriverError.
    """
    part = path.with_name(path.name + ".part")
    try:
        part.unlink(missing_ok=True)
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        part.replace(path)
    except OSError as err:
        raise DriverError(f"cannot write the seed {path}: {err.strerror}") from err


def iso9660(files: Mapping[str, bytes], label: str) -> bytes:
    """A disc image (ECMA-119, Joliet level 3) with `files` in its root.

    Pure: the same arguments give the same bytes. Raises ValueError for more files than one
    directory sector holds, or names that have no 8.3 form of their own.
    """
    places: list[tuple[str, int, bytes]] = []
    sector = _FIRST_FILE
    for name in sorted(files):
        places.append((name, sector, files[name]))
        sector += max(1, _sectors(len(files[name])))
    short = {name: _short(name) for name in files}
    if len(set(short.values())) < len(short):
        raise ValueError(f"two of these names are the same in 8.3: {', '.join(sorted(files))}")
    out = bytearray(_PRIMARY * SECTOR)
    out += _volume(1, label.encode("ascii").ljust(32), sector, _TABLES, _ROOTS[0])
    joliet_label = label.encode("utf-16-be").ljust(32, b"\0")
    out += _volume(2, joliet_label, sector, _TABLES + 2, _ROOTS[1])
    out += _padded(b"\xffCD001\x01")
    for root in _ROOTS:
        out += _padded(struct.pack("<BBIHBB", 1, 0, root, 1, 0, 0))
        out += _padded(struct.pack(">BBIHBB", 1, 0, root, 1, 0, 0))
    out += _directory(_ROOTS[0], [(short[n].encode(), at, len(d)) for n, at, d in places])
    joliet = [(f"{n};1".encode("utf-16-be"), at, len(d)) for n, at, d in places]
    out += _directory(_ROOTS[1], sorted(joliet))
    for _, _, data in places:
        out += _padded(data or b"\0")
    return bytes(out)


def _sectors(size: int) -> int:
    return -(-size // SECTOR)


def _padded(data: bytes) -> bytes:
    return data.ljust(_sectors(len(data)) * SECTOR, b"\0")


def _short(name: str) -> str:
    """A level 1 file identifier: d-characters only, at most eight, no extension, version 1."""
    kept = "".join(c if c.isascii() and c.isalnum() else "_" for c in name.upper())
    return f"{kept[:8]}.;1"


def _both(number: int) -> bytes:
    """A 32-bit number in both byte orders (ECMA-119 7.3.3)."""
    return struct.pack("<I", number) + struct.pack(">I", number)


def _both16(number: int) -> bytes:
    return struct.pack("<H", number) + struct.pack(">H", number)


def _record(name: bytes, sector: int, size: int, *, folder: bool = False) -> bytes:
    """A directory record (9.1), of even length."""
    flags = 2 if folder else 0
    body = (
        b"\0" + _both(sector) + _both(size) + _EPOCH + bytes((flags, 0, 0))
        + _both16(1) + bytes((len(name),)) + name
    )  # fmt: skip
    if len(body) % 2 == 0:
        body += b"\0"
    return bytes((len(body) + 1,)) + body


def _directory(sector: int, entries: list[tuple[bytes, int, int]]) -> bytes:
    """One directory, one sector: itself, its parent (itself: the root), then the files by name."""
    rows = [
        _record(b"\0", sector, SECTOR, folder=True),
        _record(b"\1", sector, SECTOR, folder=True),
    ]
    rows += [_record(*entry) for entry in entries]
    data = b"".join(rows)
    if len(data) > SECTOR:
        raise ValueError(f"{len(entries)} files are too many for one directory sector")
    return _padded(data)


def _volume(kind: int, label: bytes, sectors: int, tables: int, root: int) -> bytes:
    """A primary (1) or supplementary (2, Joliet) volume descriptor (8.4, 8.5)."""
    joliet = kind == 2
    blank = " ".encode("utf-16-be") if joliet else b" "
    escape = b"%/E".ljust(32, b"\0") if joliet else bytes(32)
    data = bytes((kind,)) + b"CD001\x01\0" + blank * (32 // len(blank)) + label
    data += bytes(8) + _both(sectors) + escape + _both16(1) + _both16(1) + _both16(SECTOR)
    data += _both(10)  # a path table of the root alone
    data += struct.pack("<II", tables, 0) + struct.pack(">II", tables + 1, 0)
    data += _record(b"\0", root, SECTOR, folder=True)
    # volume set, publisher, preparer, application; copyright, abstract and bibliographic file
    text = 4 * 128 + 3 * 37
    data += (blank * text)[: text - 1] + (b"\0" if joliet else b" ")
    data += _NO_DATE * 4 + b"\x01\0"
    return _padded(data)
