"""qcow2 images read as raw disks: VirtualBox can't read the ones that distributions publish.

By QEMU's docs/interop/qcow2.txt: versions 2 and 3, with clusters that are compressed by deflate.
Encrypted images, backing and data files, and extended L2 entries are refused. Nothing of the image
but its own clusters is read, so an image can't name a file of this computer.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from drivers.errors import DriverError, InvalidError

MAGIC: Final = b"QFI\xfb"
_HEADER: Final = struct.Struct(">4sIQIIQIIQ")  # magic to l1_table_offset
_OFFSET: Final = 0x00FF_FFFF_FFFF_FE00
_COMPRESSED: Final = 1 << 62
_ZERO: Final = 1  # a v3 cluster that reads as zeros
_HARMLESS: Final = (
    0b11  # incompatible features: dirty and corrupt bits of refcounts, which we ignore
)
_TYPED: Final = 1 << 3  # the header has a compression type
_L1_MOST: Final = 4 << 20  # entries, as QEMU has it


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """What of the header is needed to find clusters. Sizes in bytes."""

    size: int
    cluster_bits: int
    l1_entries: int
    l1_offset: int

    @property
    def cluster(self) -> int:
        return 1 << self.cluster_bits


def read_header(file: BinaryIO) -> Header:
    """Raises InvalidError for what is no qcow2 image, or one of another sort than published ones."""
    file.seek(0)
    raw = file.read(112)
    if len(raw) < 72 or not raw.startswith(MAGIC):
        raise InvalidError("no qcow2 image")
    _, version, backing, _, bits, size, encrypted, entries, table = _HEADER.unpack_from(raw)
    if version not in {2, 3}:
        raise InvalidError(f"qcow2 of version {version} is not known")
    features = struct.unpack_from(">Q", raw, 72)[0] if version == 3 and len(raw) >= 104 else 0
    if backing or encrypted or features & ~(_HARMLESS | _TYPED):
        raise InvalidError("a qcow2 image with a backing file, encryption or features not known")
    if features & _TYPED and len(raw) > 104 and raw[104] != 0:
        raise InvalidError("a qcow2 image that is compressed by zstd; convert it to raw first")
    if not 9 <= bits <= 21:
        raise InvalidError("a qcow2 image with impossible sizes")
    needed = -(-size >> (2 * bits - 3))  # an entry is for a table of entries of 8 bytes
    if needed > min(entries, _L1_MOST):
        raise InvalidError("a qcow2 image with impossible sizes")
    return Header(size, bits, needed, table)


def to_raw(source: Path, target: Path) -> None:
    """Write the disk of `source` to `target`, with holes where it has no data.

    Raises InvalidError for an image that is broken or of a sort not known, DriverError.
    """
    try:
        with source.open("rb") as file, target.open("wb") as out:
            header = read_header(file)
            for at, data in clusters(file, header):
                out.seek(at)
                out.write(data[: header.size - at])
            out.truncate(header.size)
    except (struct.error, zlib.error, EOFError) as err:
        raise InvalidError(f"{source}: a broken qcow2 image: {err}") from err
    except OSError as err:
        raise DriverError(f"cannot convert {source}: {err.strerror}") from err


def clusters(file: BinaryIO, header: Header) -> Iterator[tuple[int, bytes]]:
    """(offset on the disk, bytes) of each cluster with data, in order."""
    per_table = header.cluster // 8
    tables = _table(file, header.l1_offset, header.l1_entries)
    for number, entry in enumerate(tables):
        at = number * per_table * header.cluster
        offset = entry & _OFFSET
        if not offset or at >= header.size:
            continue
        for index, inner in enumerate(_table(file, offset, per_table)):
            place = at + index * header.cluster
            if place >= header.size:
                break
            data = _cluster(file, header, inner)
            if data:
                yield place, data


def _table(file: BinaryIO, offset: int, entries: int) -> tuple[int, ...]:
    return struct.unpack(f">{entries}Q", _exactly(file, offset, entries * 8))


def _cluster(file: BinaryIO, header: Header, entry: int) -> bytes:
    """b"" for one without data."""
    if entry & _COMPRESSED:
        return _inflated(file, header, entry)
    offset = entry & _OFFSET
    if not offset or entry & _ZERO:
        return b""
    file.seek(offset)
    return file.read(header.cluster)  # the last one of a file may be short: the rest is zeros


def _inflated(file: BinaryIO, header: Header, entry: int) -> bytes:
    """Bits 0 to x-1: where; x to 61: further sectors of 512 bytes that it takes part of."""
    shift = 62 - (header.cluster_bits - 8)
    offset = entry & ((1 << shift) - 1)
    sectors = (entry & (_COMPRESSED - 1)) >> shift
    file.seek(offset)
    packed = file.read((sectors + 1) * 512 - offset % 512)
    data = zlib.decompressobj(-12).decompress(packed, header.cluster)
    if len(data) != header.cluster:
        raise EOFError("a compressed cluster is too short")
    return data


def _exactly(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise EOFError("a table lies beyond its end")
    return data
