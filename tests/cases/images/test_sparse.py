"""Sparse files in layers (security.md case 13): GNU tar's three forms, and maps that lie."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.images import layertar, scrub
from tests.cases.images.test_layers import refused
from tests.cases.images.unpacking import Bench, bench
from tests.support.evilregistry import END, member, pad, raw_header, sha256, tar


@pytest.fixture(name="lab")
def _lab() -> Iterator[Bench]:
    with bench() as found:
        yield found


@pytest.mark.parametrize("form", ["gnu", "pax-0.1", "pax-1.0"])
def test_case_013_sparse_files(lab: Bench, tmp_path: Path, form: str) -> None:
    """GNU tar's own archives: the same bytes, and the holes stay holes."""
    source = tmp_path / "source"
    source.mkdir()
    for name, parts in (("few", 3), ("many", 60), ("hole", 0), ("front", 1)):
        with (source / name).open("wb") as out:
            for number in range(parts):
                out.seek(number * 300_000 + (4096 if name == "front" else 0))
                out.write(bytes([number + 1]) * 5000)
            out.truncate(60 * 300_000)
    (source / "plain").write_bytes(b"plain")
    format_, _, version = form.partition("-")
    words = ["tar", "-S", f"--format={format_}", "-C", str(source), "-c", "."]
    words += [f"--sparse-version={version}"] if version else []
    data = subprocess.run(words, capture_output=True, check=True).stdout
    assert len(data) < 2_000_000
    lab.unpack(data)
    for file in source.iterdir():
        unpacked = lab.diff / file.name
        assert unpacked.read_bytes() == file.read_bytes(), file.name
        assert unpacked.stat().st_blocks <= file.stat().st_blocks + 16, file.name
    assert b"".join(layertar.pieces(str(lab.stage), sha256(data))) == data
    assert scrub.check_layer(str(lab.stage), sha256(data)) == ""
    with (lab.diff / "few").open("r+b") as out:
        out.seek(300_001)
        out.write(b"!")
    assert "'few' has other bytes" in scrub.check_layer(str(lab.stage), sha256(data))


def old_sparse(runs: list[tuple[int, int]], size: int, length: int) -> bytes:
    """A header of GNU's old form."""
    raw = bytearray(raw_header(b"x", size, kind=b"S"))
    fields = b"".join(b"%011o\0%011o\0" % run for run in runs[:4])
    raw[386 : 386 + len(fields)] = fields
    raw[483:495] = b"%011o\0" % length
    raw[148:156] = b"        "
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


@pytest.mark.parametrize(
    ("runs", "size", "length"),
    [
        ([(0, 3)], 2, 10),  # more in the map than in the body
        ([(0, 1)], 2, 10),
        ([(5, 1), (4, 1)], 2, 10),  # backwards
        ([(0, 2), (1, 1)], 3, 10),  # one over the other
        ([(9, 2)], 2, 10),  # beyond the end
        ([(0, 1)], 1, 1 << 32),  # a file larger than the layer may be
    ],
)
def test_case_013_bad_maps_of_sparse_files(
    lab: Bench, runs: list[tuple[int, int]], size: int, length: int
) -> None:
    refused(lab, old_sparse(runs, size, length) + pad(bytes(size)) + END, "sparse file")


@pytest.mark.parametrize(
    "records",
    [
        {"GNU.sparse.major": "1"},
        {"GNU.sparse.major": "2", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "5"},
        {"GNU.sparse.map": "0,1,x", "GNU.sparse.size": "5"},
        {"GNU.sparse.map": "0", "GNU.sparse.size": "5"},
        {"GNU.sparse.map": "0,1"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "5"},
    ],
)
def test_case_013_bad_records_of_sparse_files(lab: Bench, records: dict[str, str]) -> None:
    info, data = member("x", b"9" * 600)
    info.pax_headers = records
    refused(lab, tar([(info, data)]), "sparse file")
