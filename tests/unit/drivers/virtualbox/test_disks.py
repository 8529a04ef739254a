"""How the base image becomes the machine's disk."""

import dataclasses
import hashlib
from pathlib import Path

import pytest

from drivers.api import DriverContext
from drivers.errors import DriverError, InvalidError
from drivers.images import Images
from drivers.testkit import context
from drivers.virtualbox import disks
from drivers.virtualbox.options import OPTIONS
from tests.support.vboxmanage import FakeVBoxManage
from tests.unit.drivers.test_images import FakeWeb
from tests.unit.drivers.virtualbox.test_qcow2 import CLUSTER, qcow2

QCOW2 = qcow2({0: ("packed", b"a boot sector"), 9: ("plain", b"data")}, 32 * CLUSTER)
URL = "https://images.example/debian.qcow2"


def prepared(folder: Path, image: str) -> tuple[DriverContext, FakeVBoxManage]:
    own = folder / "machine"
    own.mkdir()
    box = FakeVBoxManage()
    ctx = context(own, OPTIONS, {"image": image, "disk-size": 8})
    return dataclasses.replace(ctx, runner=box, cache=folder / "cache"), box


def made(ctx: DriverContext, box: FakeVBoxManage) -> bytes:
    """The disk's bytes; nothing else is left, and VirtualBox's list is empty."""
    web = FakeWeb()
    web.pages[URL] = QCOW2
    disks.make(ctx, Images(web), "amd64")
    assert [path.name for path in ctx.folder.iterdir()] == ["disk.vdi"]
    assert box.disks == {}
    return disks.path(ctx).read_bytes()


def test_a_download_is_converted_once_for_all_machines(tmp_path: Path) -> None:
    given = f"{URL}#sha512={hashlib.sha512(QCOW2).hexdigest()}"
    ctx, box = prepared(tmp_path, given)
    disk = made(ctx, box)
    assert disk.startswith(b"a boot sector\0")
    assert disk[9 * CLUSTER :].startswith(b"data\0")
    raw = [
        path for path in (tmp_path / "cache/images").iterdir() if path.name.endswith("qcow2.raw")
    ]
    raw = [path for path in raw if not path.name.startswith(".")]
    assert [path.read_bytes() for path in raw] == [disk]
    before = raw[0].stat().st_mtime_ns
    disks.path(ctx).unlink()
    assert made(ctx, box) == disk
    assert raw[0].stat().st_mtime_ns == before


def test_a_file_of_the_users_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    own = tmp_path / "own.qcow2"
    own.write_bytes(QCOW2)
    ctx, box = prepared(tmp_path, str(own))
    assert made(ctx, box).startswith(b"a boot sector\0")
    assert not (tmp_path / "cache").exists()


def test_a_raw_image_is_taken_as_it_is_and_enlarged(tmp_path: Path) -> None:
    own = tmp_path / "own.img"
    own.write_bytes(b"raw".ljust(1 << 20, b"\0"))
    ctx, box = prepared(tmp_path, str(own))
    assert made(ctx, box) == own.read_bytes()
    verbs = [call[0] for call in box.calls if call[0] != "list"]
    assert verbs == ["convertfromraw", "showmediuminfo", "modifymedium", "closemedium"]
    assert f"{8 << 20}" in next(call for call in box.calls if call[0] == "modifymedium")


@pytest.mark.parametrize(
    "head",
    [b"\0" * 64 + b"\x7f\x10\xda\xbe", b"KDMV", b"# Disk DescriptorFile\n", b"conectix"],
)
def test_virtualboxs_own_formats_are_cloned(tmp_path: Path, head: bytes) -> None:
    own = tmp_path / "own.disk"
    own.write_bytes(head.ljust(1 << 20, b"\0"))
    ctx, box = prepared(tmp_path, str(own))
    made(ctx, box)
    assert any(call[:3] == ["clonemedium", "disk", str(own)] for call in box.calls)


def test_a_disk_that_is_there_is_left_alone(tmp_path: Path) -> None:
    ctx, box = prepared(tmp_path, "")
    disks.path(ctx).write_bytes(b"mine")
    disks.make(ctx, Images(FakeWeb()), "amd64")
    assert box.calls == []


def test_what_is_no_disk_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("hello")
    ctx, _ = prepared(tmp_path, str(own))
    with pytest.raises(InvalidError, match="no disk image"):
        disks.make(ctx, Images(FakeWeb()), "amd64")
    own.unlink()
    with pytest.raises(DriverError, match="no such image file"):
        disks.make(ctx, Images(FakeWeb()), "amd64")
