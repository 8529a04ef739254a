"""A file tree as a tar stream, piece by piece: what `docker cp` and `docker export` read.

Everything is reached from one directory descriptor; no symlink is followed and nothing but regular
files is ever opened, so a FIFO, a device or a socket can't make it wait (case 66).  A file's size
is what it was when its header was written: what grows meanwhile is cut, what shrinks is filled up
with zeros.  Memory is one block of a file; a tree may be of any depth.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from agent.host import syscalls, tarheader
from agent.host.tarwriter import END, Member, header, padding

_PIECE = 1 << 18
_GATHERED = 1 << 16  # small members are sent together
_MAX_HELD = 64  # directory descriptors held while going down
_PROC_SUPER_MAGIC = 0x9FA0
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    stat.S_IFREG: tarheader.REGULAR,
    stat.S_IFDIR: tarheader.DIRECTORY,
    stat.S_IFLNK: tarheader.SYMLINK,
    stat.S_IFCHR: tarheader.CHAR,
    stat.S_IFBLK: tarheader.BLOCK_DEVICE,
    stat.S_IFIFO: tarheader.FIFO,
}


@dataclass(slots=True)
class _Level:
    """One directory on the way down.  `fd` -1: closed to save descriptors, opened again by ".."."""

    fd: int
    name: bytes  # in the archive
    key: tuple[int, int]
    left: list[bytes] = field(default_factory=list)


class TreeTar:
    """The tar stream of one thing in a directory; `pieces` may be called once."""

    def __init__(self, parent_fd: int, name: bytes, shown: bytes, *, top: bool = True) -> None:
        """`name` in `parent_fd` ("." = that directory itself), called `shown` in the archive.

        `top` False: a directory's contents only, without a member for itself.
        """
        self._parent = parent_fd
        self._name = name
        self._shown = shown
        self._top = top
        self._links: dict[tuple[int, int], bytes] = {}
        self._sizeless: dict[int, bool] = {}
        self._waiting = bytearray()

    def pieces(self) -> Iterator[bytes]:
        """Raises OSError when the tree's top can't be read; what goes wrong below is left out,
        as docker does."""
        info = os.stat(self._name, dir_fd=self._parent, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            yield from self._tree()
        else:
            yield from self._leaf(self._parent, self._name, self._shown)
        self._waiting += END
        yield bytes(self._waiting)

    # ------------------------------------------------------------------------------------- walk

    def _tree(self) -> Iterator[bytes]:
        top = os.open(self._name, _FOLDER, dir_fd=self._parent)
        levels = [self._enter(top, self._shown)]
        try:
            while levels:
                level = levels[-1]
                if not level.left:
                    self._leave(levels)
                    continue
                name = level.left.pop()
                shown = level.name.rstrip(b"/") + b"/" + name if level.name else name
                child = self._folder(level.fd, name)
                if child is None:
                    yield from self._leaf(level.fd, name, shown)
                else:
                    levels.append(self._enter(child, shown))
                    if len(levels) > _MAX_HELD:
                        far = levels[-_MAX_HELD]
                        os.close(far.fd)
                        far.fd = -1
                if len(self._waiting) >= _GATHERED:
                    yield self._gathered()
        finally:
            for level in levels:
                if level.fd >= 0:
                    os.close(level.fd)

    def _gathered(self) -> bytes:
        data = bytes(self._waiting)
        self._waiting.clear()
        return data

    def _folder(self, parent: int, name: bytes) -> int | None:
        """A descriptor when `name` is a directory that can be read."""
        try:
            return os.open(name, _FOLDER, dir_fd=parent)
        except OSError:
            return None

    def _enter(self, fd: int, shown: bytes) -> _Level:
        try:
            info = os.fstat(fd)
            level = _Level(fd, shown, (info.st_dev, info.st_ino))
            if shown or self._top:
                self._waiting += header(_member(shown or b"/", info, xattrs=_xattrs(fd)))
            with contextlib.suppress(OSError):
                level.left = sorted(map(os.fsencode, os.listdir(fd)), reverse=True)
        except BaseException:
            os.close(fd)
            raise
        return level

    def _leave(self, levels: list[_Level]) -> None:
        """Up one level; a closed one is opened again, if it is still the same directory."""
        done = levels.pop()
        try:
            if levels and levels[-1].fd < 0:
                fd = os.open(b"..", _FOLDER & ~os.O_NOFOLLOW, dir_fd=done.fd)
                info = os.fstat(fd)
                if (info.st_dev, info.st_ino) != levels[-1].key:
                    os.close(fd)
                    raise OSError(116, "a directory was moved away while it was copied")
                levels[-1].fd = fd
        finally:
            os.close(done.fd)

    # ----------------------------------------------------------------------------------- leaves

    def _leaf(self, parent: int, name: bytes, shown: bytes) -> Iterator[bytes]:
        try:
            info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except OSError:
            return  # gone meanwhile
        kind = stat.S_IFMT(info.st_mode)
        if kind not in _KINDS or kind == stat.S_IFDIR:
            return  # a socket has no place in an archive; a directory that can't be opened
        if info.st_nlink > 1 and self._linked(info, shown):
            return
        if kind == stat.S_IFREG:
            yield from self._regular(parent, name, shown)
            return
        link = b""
        if kind == stat.S_IFLNK:
            try:
                link = os.readlink(name, dir_fd=parent)
            except OSError:
                return
        self._waiting += header(_member(shown, info, link=link))

    def _linked(self, info: os.stat_result, shown: bytes) -> bool:
        first = self._links.setdefault((info.st_dev, info.st_ino), shown)
        if first is shown:
            return False
        member = _member(shown, info, link=first)
        self._waiting += header(
            Member(
                shown, tarheader.HARD, member.mode, member.uid, member.gid, 0, member.mtime, first
            )
        )
        return True

    def _regular(self, parent: int, name: bytes, shown: bytes) -> Iterator[bytes]:
        try:
            fd = os.open(name, _FILE, dir_fd=parent)
        except OSError:
            return
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                return  # exchanged meanwhile
            size = 0 if self._without_size(fd, info.st_dev) else info.st_size
            self._waiting += header(_member(shown, info, size=size, xattrs=_xattrs(fd)))
            left = size
            while left > 0:
                data = _read(fd, min(left, _PIECE))
                left -= len(data)
                if len(data) < _GATHERED // 4:
                    self._waiting += data
                else:
                    yield self._gathered()
                    yield data
            self._waiting += padding(size)
        finally:
            os.close(fd)

    def _without_size(self, fd: int, device: int) -> bool:
        """procfs: what a size says there is not what can be read."""
        known = self._sizeless.get(device)
        if known is None:
            with contextlib.suppress(OSError):
                known = syscalls.filesystem_type(f"/proc/self/fd/{fd}") == _PROC_SUPER_MAGIC
            self._sizeless[device] = known = bool(known)
        return known


def _read(fd: int, size: int) -> bytes:
    """`size` bytes at most; zeros where the file has ended or can't be read."""
    with contextlib.suppress(OSError):
        data = os.read(fd, size)
        if data:
            return data
    return bytes(size)


def _member(
    shown: bytes,
    info: os.stat_result,
    *,
    size: int = 0,
    link: bytes = b"",
    xattrs: dict[bytes, bytes] | None = None,
) -> Member:
    kind = _KINDS[stat.S_IFMT(info.st_mode)]
    return Member(
        shown,
        kind,
        stat.S_IMODE(info.st_mode),
        info.st_uid,
        info.st_gid,
        size,
        int(info.st_mtime),
        link,
        os.major(info.st_rdev),
        os.minor(info.st_rdev),
        xattrs or {},
    )


def _xattrs(fd: int) -> dict[bytes, bytes]:
    """File capabilities, the only attribute that docker copies out."""
    try:
        return {b"security.capability": os.getxattr(fd, b"security.capability")}
    except OSError:
        return {}
