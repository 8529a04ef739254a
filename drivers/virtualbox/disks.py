"""The machine's disk: the base image as a VDI of its own in the machine's folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from drivers.api import DriverContext
from drivers.errors import DriverError, GoneError, InvalidError
from drivers.images import Image, Images
from drivers.locks import locked
from drivers.virtualbox import qcow2, texts
from drivers.virtualbox.program import VBoxManage

DISK: Final = "disk.vdi"
_PART: Final = "disk.part.vdi"
_RAW: Final = "disk.part.raw"
PARTS: Final = (_PART, _RAW)  # what a killed create may leave
_LONG: Final = 1800.0  # seconds to convert some gigabytes on a slow disk
# VirtualBox's own formats, which clonemedium reads: where their mark is, and the mark
_MARKS: Final = (
    (64, b"\x7f\x10\xda\xbe"),  # VDI
    (0, b"KDMV"),  # VMDK, sparse
    (0, b"# Disk Descriptor"),  # VMDK, descriptor
    (0, b"conectix"),  # VHD, dynamic
)


def path(ctx: DriverContext) -> Path:
    return ctx.folder / DISK


def make(ctx: DriverContext, images: Images, arch: str) -> None:
    """The disk, if it isn't there: converted, enlarged, and then named, so that it is whole."""
    if path(ctx).exists():
        return
    image = images.fetch(ctx, ctx.text("image"), arch=arch)
    part = ctx.folder / _PART
    box = VBoxManage(ctx)
    drop(ctx, part)
    _converted(ctx, box, image, part)
    if capacity(box, part) < ctx.number("disk-size"):
        resize(box, part, ctx.number("disk-size"))
    close(box, part)
    try:
        part.replace(path(ctx))
    except OSError as err:
        raise DriverError(f"cannot rename {part}: {err.strerror}") from err


def capacity(box: VBoxManage, disk: Path) -> int:
    """MiB."""
    return texts.capacity(box.again("showmediuminfo", "disk", str(disk)))


def resize(box: VBoxManage, disk: Path, size: int) -> None:
    """To `size` MiB. Raises InvalidError when that is less than it has.

    In bytes: VirtualBox takes many times as many MiB for a slip, and refuses.
    """
    box.again("modifymedium", "disk", str(disk), "--resizebyte", str(size << 20), timeout=_LONG)


def close(box: VBoxManage, disk: Path) -> None:
    """Make VirtualBox forget a disk that belongs to no machine."""
    with contextlib.suppress(GoneError):
        box.again("closemedium", "disk", str(disk))


def drop(ctx: DriverContext, part: Path) -> None:
    """Take a half-made disk away, from VirtualBox's list too."""
    box = VBoxManage(ctx)
    for ident, location in box.media("hdds"):
        if Path(location) == part:
            box.again("closemedium", "disk", ident)
    try:
        part.unlink(missing_ok=True)
    except OSError as err:
        raise DriverError(f"cannot remove {part}: {err.strerror}") from err


def _converted(ctx: DriverContext, box: VBoxManage, image: Image, part: Path) -> None:
    kind = _kind(image.path)
    if kind == "own":
        box.run("clonemedium", "disk", str(image.path), str(part), "--format", "VDI", timeout=_LONG)
        close(box, image.path)
        return
    with _raw(ctx, image, kind) as raw:
        if raw.stat().st_size % 512:
            raise InvalidError(
                f"{image.path}: no disk image (its size is not one of whole sectors)"
            )
        box.run("convertfromraw", str(raw), str(part), "--format", "VDI", timeout=_LONG)


def _kind(source: Path) -> str:
    """qcow2, own (a format that VirtualBox has a name for), or raw."""
    try:
        with source.open("rb") as file:
            head = file.read(512)
    except OSError as err:
        raise DriverError(f"cannot read {source}: {err.strerror}") from err
    if head.startswith(qcow2.MAGIC):
        return "qcow2"
    return "own" if any(head[at:].startswith(mark) for at, mark in _MARKS) else "raw"


@contextlib.contextmanager
def _raw(ctx: DriverContext, image: Image, kind: str) -> Iterator[Path]:
    """The raw disk: of a download kept in the cache, of the user's own file for the time of use."""
    if kind == "raw":
        yield image.path
    elif image.digest:
        raw = image.path.with_name(f"{image.path.name}.raw")
        lock = raw.with_name(f".lock-{raw.name}")
        with locked(lock, what="an image conversion", seconds=_LONG, clock=ctx.clock):
            if not raw.exists():
                part = raw.with_name(f"{raw.name}.part")
                qcow2.to_raw(image.path, part)
                part.replace(raw)
        yield raw
    else:
        raw = ctx.folder / _RAW
        try:
            qcow2.to_raw(image.path, raw)
            yield raw
        finally:
            raw.unlink(missing_ok=True)
