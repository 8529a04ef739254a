"""qcow2 read as raw, on images written here by QEMU's description of the format."""

import io
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.errors import DriverError, InvalidError
from drivers.virtualbox.qcow2 import read_header, to_raw

BITS = 9
CLUSTER = 1 << BITS
Kind = Literal["plain", "packed", "zero"]


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -12)
    return packer.compress(data) + packer.flush()


def qcow2(
    clusters: Mapping[int, tuple[Kind, bytes]], disk: int, version: int = 3, **changes: int
) -> bytes:
    """An image whose clusters of these numbers have these contents; `changes` to header fields."""
    per_table = CLUSTER // 8
    count = -(-disk // CLUSTER)
    tables = -(-count // per_table)
    l1_at = CLUSTER
    l2_at = l1_at + -(-tables * 8 // CLUSTER) * CLUSTER
    data_at = l2_at + tables * CLUSTER
    entries = [0] * (tables * per_table)
    body = bytearray()
    for number, (kind, data) in clusters.items():
        at = data_at + len(body)
        if kind == "packed":
            packed = deflated(data.ljust(CLUSTER, b"\0"))
            sectors = (at % 512 + len(packed) - 1) // 512
            entries[number] = 1 << 62 | sectors << (62 - (BITS - 8)) | at
            body += packed
        else:
            body += bytes(-len(body) % CLUSTER)
            at = data_at + len(body)
            entries[number] = at | 1 << 63 | (1 if kind == "zero" else 0)
            body += data.ljust(CLUSTER, b"\0")
    fields = {
        "magic": 0x514649FB, "version": version, "backing": 0, "backing_size": 0, "bits": BITS,
        "size": disk, "crypt": 0, "l1_size": tables, "l1": l1_at, "refcounts": 0,
        "refcount_clusters": 0, "snapshots": 0, "snapshots_at": 0, "incompatible": 0,
        "compatible": 0, "autoclear": 0, "order": 4, "length": 112, "compression": 0,
    } | changes  # fmt: skip
    header = struct.pack(">IIQIIQIIQQIIQQQQIIB7x", *fields.values())
    l1 = [l2_at + i * CLUSTER | 1 << 63 for i in range(tables)]
    # as QEMU writes: a table with nothing in it is not there
    for i in range(tables):
        if not any(entries[i * per_table : (i + 1) * per_table]):
            l1[i] = 0
    return b"".join(
        (
            header.ljust(CLUSTER, b"\0"),
            struct.pack(f">{tables}Q", *l1).ljust(l2_at - l1_at, b"\0"),
            struct.pack(f">{len(entries)}Q", *entries),
            bytes(body),
        )
    )


def raw(image: bytes, folder: Path) -> bytes:
    source, target = folder / "in.qcow2", folder / "out.raw"
    source.write_bytes(image)
    to_raw(source, target)
    return target.read_bytes()


def expected(clusters: Mapping[int, tuple[Kind, bytes]], size: int) -> bytes:
    disk = bytearray(-(-size // CLUSTER) * CLUSTER)
    for number, (kind, data) in clusters.items():
        if kind != "zero":
            disk[number * CLUSTER : (number + 1) * CLUSTER] = data.ljust(CLUSTER, b"\0")
    return bytes(disk[:size])


@pytest.mark.parametrize("version", [2, 3])
def test_plain_compressed_and_missing_clusters(tmp_path: Path, version: int) -> None:
    clusters: dict[int, tuple[Kind, bytes]] = {
        0: ("plain", b"boot sector"),
        3: ("packed", b"text " * 100),
        4: ("packed", bytes(range(256)) * 2),
        200: ("plain", b"in the fourth table"),
    }
    size = 300 * CLUSTER
    assert raw(qcow2(clusters, size, version), tmp_path) == expected(clusters, size)


def test_a_cluster_of_zeros_and_a_disk_that_ends_within_a_cluster(tmp_path: Path) -> None:
    clusters: dict[int, tuple[Kind, bytes]] = {
        1: ("zero", b"what was here before"),
        2: ("plain", b"x" * CLUSTER),
    }
    size = 2 * CLUSTER + 100
    assert raw(qcow2(clusters, size), tmp_path) == expected(clusters, size)


def test_what_is_empty_takes_no_room(tmp_path: Path) -> None:
    size = 64 << 20
    assert len(raw(qcow2({0: ("plain", b"x")}, size), tmp_path)) == size
    assert (tmp_path / "out.raw").stat().st_blocks * 512 < 1 << 20


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.integers(0, 99),
        st.tuples(st.sampled_from(["plain", "packed", "zero"]), st.binary(max_size=CLUSTER)),
        max_size=8,
    ),
    st.integers(99 * CLUSTER + 1, 120 * CLUSTER),
)
def test_any_disk(
    tmp_path_factory: pytest.TempPathFactory, clusters: dict[int, tuple[Kind, bytes]], size: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    assert raw(qcow2(clusters, size), folder) == expected(clusters, size)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"magic": 0}, "no qcow2"),
        ({"version": 1}, "version 1"),
        ({"backing": 500, "backing_size": 11}, "backing file"),
        ({"crypt": 2}, "encryption"),
        ({"incompatible": 4}, "features not known"),  # an external data file
        ({"incompatible": 16}, "features not known"),  # extended L2 entries
        ({"incompatible": 8, "compression": 1}, "zstd"),
        ({"bits": 40}, "impossible sizes"),
        ({"size": 1 << 60}, "impossible sizes"),
        ({"l1_size": 0}, "impossible sizes"),
        ({"l1": 1 << 40}, "beyond its end"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, changes: dict[str, int], why: str) -> None:
    with pytest.raises(InvalidError, match=why):
        raw(qcow2({0: ("plain", b"x")}, 4 * CLUSTER, **changes), tmp_path)


def test_a_dirty_mark_is_no_matter() -> None:
    image = qcow2({}, CLUSTER, incompatible=3)
    assert read_header(io.BytesIO(image)).size == CLUSTER


def test_damaged_bytes_are_told(tmp_path: Path) -> None:
    image = bytearray(qcow2({0: ("packed", b"text " * 100)}, 4 * CLUSTER))
    image[-20:] = b"\xff" * 20
    with pytest.raises(InvalidError, match="a broken qcow2 image"):
        raw(bytes(image), tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3000), st.integers(0, 255))
def test_no_damage_brings_another_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int
) -> None:
    image = bytearray(qcow2({0: ("plain", b"x"), 3: ("packed", b"text " * 99)}, 9 * CLUSTER))
    image[at % len(image)] = value
    folder = tmp_path_factory.mktemp("damaged")
    try:
        assert len(raw(bytes(image), folder)) < 9 << 40
    except DriverError:
        return
    except MemoryError:
        raise AssertionError("a damaged image took all memory") from None
