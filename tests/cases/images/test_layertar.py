"""A kept layer gives back the very tar that it came from."""

from __future__ import annotations

import os
import random
import tarfile
from collections.abc import Iterator

import pytest

from agent.errors import EngineError, Kind
from agent.images import layertar, treelayer
from tests.cases.images.unpacking import Bench, bench
from tests.support.evilregistry import member, sha256, tar


@pytest.fixture(name="lab")
def _lab() -> Iterator[Bench]:
    with bench() as found:
        yield found


def made(lab: Bench, data: bytes) -> bytes:
    found = b"".join(layertar.pieces(str(lab.stage), sha256(data)))
    assert layertar.size(str(lab.stage)) == len(data)
    return found


PLAIN = [
    member("d", kind=tarfile.DIRTYPE),
    member("d/a", b"first" * 1000),
    member("d/link", kind=tarfile.SYMTYPE, linkname="a"),
    member("d/hard", kind=tarfile.LNKTYPE, linkname="d/a"),
    member("d/.wh.gone", b""),
    member("d/.wh.odd", b"whiteouts may have bodies"),
    member("empty", b""),
    member("d/" + "long" * 60, b"x" * 513),
]
REPLACED = [
    member("a", b"one"),
    member("a", b"two!"),
    member("x", kind=tarfile.DIRTYPE),
    member("x/f", b"in the directory"),
    member("x", b"now a file"),
    member("l", kind=tarfile.SYMTYPE, linkname="d1"),
    member("d1/f", b"1"),
    member("d2/f", b"2"),
    member("l/g", b"through the link"),
    member("l", kind=tarfile.SYMTYPE, linkname="d2"),
    member("l/g", b"through the other"),
    member("h", b"linked"),
    member("i", kind=tarfile.LNKTYPE, linkname="h"),
    member("h", b"replaced"),
]


@pytest.mark.parametrize("members", [PLAIN, REPLACED, []], ids=["plain", "replaced", "empty"])
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_the_same_bytes_come_back(lab: Bench, members: list, form: int) -> None:  # type: ignore[type-arg]
    data = tar(members, form)
    lab.unpack(data)
    assert made(lab, data) == data


def test_garbage_after_the_end_is_kept(lab: Bench) -> None:
    data = tar([member("a", b"1")]) + random.Random(1).randbytes(3_000_000)
    lab.unpack(data)
    assert made(lab, data) == data


def test_a_changed_file_is_found(lab: Bench) -> None:
    data = tar([member("a", b"good"), member("b", b"x")])
    lab.unpack(data)
    (lab.diff / "a").write_bytes(b"evil")
    with pytest.raises(EngineError) as caught:
        made(lab, data)
    assert caught.value.kind is Kind.DATA_LOSS


def test_a_lost_file_is_found(lab: Bench) -> None:
    data = tar([member("a", b"good"), member("b", b"x")])
    lab.unpack(data)
    (lab.diff / "a").unlink()
    with pytest.raises(EngineError) as caught:
        made(lab, data)
    assert caught.value.kind is Kind.DATA_LOSS


def test_a_tree_becomes_a_layer_that_unpacks_to_itself(lab: Bench) -> None:
    lab.unpack(tar(PLAIN))
    os.setxattr(lab.diff / "d", "trusted.overlay.opaque", b"y")
    before = lab.listing()
    report = treelayer.describe(str(lab.stage))
    data = b"".join(layertar.pieces(str(lab.stage), report.diff_id))
    assert treelayer.describe(str(lab.stage)) == report
    found = lab.unpack(data)
    assert lab.listing() == before
    assert found.opaque == (b"d",)
    assert os.stat(lab.diff / "d/hard").st_nlink == 2
