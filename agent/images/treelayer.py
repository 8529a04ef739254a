"""A tree of files becomes a layer: its tar is defined, hashed and noted as a recipe, never written.

For commit and build: an overlay's upper directory, or one that COPY has filled, is made a layer by
reading it once.  Overlay's own marks are translated back (OCI image-spec layer.md, Whiteouts): a
character device 0:0 to `.wh.NAME`, `trusted.overlay.opaque` to `.wh..wh..opq`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from agent.errors import internal
from agent.host import tarheader, tree
from agent.host.tarwriter import END, Member, header, padding
from agent.images import recipe
from agent.images.extract import keeps_xattr
from agent.images.workerpool import Unpacked

_PIECE = 1 << 20
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPAQUE = "trusted.overlay.opaque"
_KINDS = {
    stat.S_IFLNK: tarheader.SYMLINK,
    stat.S_IFCHR: tarheader.CHAR,
    stat.S_IFBLK: tarheader.BLOCK_DEVICE,
    stat.S_IFIFO: tarheader.FIFO,
}


def describe(staged: str) -> Unpacked:
    """Write `staged`/recipe for the tree `staged`/diff; the report that `commit_layer` wants.

    The tree must not change any more.  Blocks for as long as reading it takes.  Names are sorted,
    so the same tree has the same diffID.  Sockets are left out.  INTERNAL for unreadable trees.
    """
    path = os.path.join(staged, recipe.NAME)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with tree.opened(os.path.join(staged, "diff")) as root:
                walker = _Walker(recipe.Writer(fd))
                walker.run(root)
        finally:
            os.close(fd)
    except OSError as error:
        raise internal(f"can't read the layer's files: {error.strerror}") from error
    return walker.report()


@dataclass(slots=True)
class _Level:
    fd: int
    shown: bytes
    left: list[bytes]


class _Walker:
    def __init__(self, writer: recipe.Writer) -> None:
        self._recipe = writer
        self._state = hashlib.sha256()
        self._links: dict[tuple[int, int], bytes] = {}
        self._size = 0
        self._opaque: list[bytes] = []
        self._root: tuple[int, int, int] | None = None

    def report(self) -> Unpacked:
        diff_id = f"sha256:{self._state.hexdigest()}"
        return Unpacked(self._size, self._root, tuple(self._opaque), (), diff_id)

    def run(self, root: int) -> None:
        info = os.fstat(root)
        self._root = (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid)
        self._literal(header(_member(b"./", info, tarheader.DIRECTORY)))
        levels = [self._level(os.dup(root), b"")]
        try:
            while levels:
                if not levels[-1].left:
                    os.close(levels.pop().fd)
                    continue
                self._entry(levels, levels[-1].left.pop())
        finally:
            for level in levels:
                os.close(level.fd)
        self._literal(END)
        self._recipe.finish()

    def _level(self, fd: int, shown: bytes) -> _Level:
        names = sorted((os.fsencode(name) for name in os.listdir(fd)), reverse=True)
        return _Level(fd, shown, names)

    def _entry(self, levels: list[_Level], name: bytes) -> None:
        parent = levels[-1].fd
        shown = levels[-1].shown + name
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        kind = stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFDIR:
            fd = os.open(name, _FOLDER, dir_fd=parent)
            self._folder(fd, shown, info)
            levels.append(self._level(fd, shown + b"/"))
        elif kind == stat.S_IFCHR and info.st_rdev == 0:
            hidden = levels[-1].shown + b".wh." + name
            self._literal(header(Member(hidden, tarheader.REGULAR, 0, 0, 0)))
        elif kind != stat.S_IFSOCK:
            self._leaf(parent, name, shown, info)

    def _folder(self, fd: int, shown: bytes, info: os.stat_result) -> None:
        self._literal(header(_member(shown, info, tarheader.DIRECTORY, xattrs=_xattrs(fd))))
        if _is_opaque(fd):
            self._opaque.append(shown)
            mark = shown + b"/.wh..wh..opq"
            self._literal(header(Member(mark, tarheader.REGULAR, 0, 0, 0)))

    def _leaf(self, parent: int, name: bytes, shown: bytes, info: os.stat_result) -> None:
        if info.st_nlink > 1:
            first = self._links.setdefault((info.st_dev, info.st_ino), shown)
            if first is not shown:
                self._literal(header(_member(shown, info, tarheader.HARD, link=first)))
                return
        kind = stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFREG:
            self._regular(parent, name, shown)
            return
        link = os.readlink(name, dir_fd=parent) if kind == stat.S_IFLNK else b""
        self._literal(header(_member(shown, info, _KINDS[kind], link=link)))

    def _regular(self, parent: int, name: bytes, shown: bytes) -> None:
        fd = os.open(name, _FILE, dir_fd=parent)
        try:
            info = os.fstat(fd)
            member = _member(shown, info, tarheader.REGULAR, size=info.st_size, xattrs=_xattrs(fd))
            self._literal(header(member))
            for piece in _contents(fd, info.st_size):
                self._state.update(piece)
            if info.st_size:
                self._recipe.body(shown, info.st_size, info.st_ino)
                self._literal(padding(info.st_size))
            self._size += info.st_size
        finally:
            os.close(fd)

    def _literal(self, data: bytes) -> None:
        self._state.update(data)
        self._recipe.literal(data)


def _contents(fd: int, size: int) -> Iterator[bytes]:
    while size:
        piece = os.read(fd, min(size, _PIECE))
        if not piece:
            raise OSError(5, "a file became shorter")
        size -= len(piece)
        yield piece


def _member(
    shown: bytes,
    info: os.stat_result,
    kind: int,
    *,
    size: int = 0,
    link: bytes = b"",
    xattrs: dict[bytes, bytes] | None = None,
) -> Member:
    device = kind in (tarheader.CHAR, tarheader.BLOCK_DEVICE)
    return Member(
        shown,
        kind,
        stat.S_IMODE(info.st_mode),
        info.st_uid,
        info.st_gid,
        size,
        int(info.st_mtime),
        link,
        os.major(info.st_rdev) if device else 0,
        os.minor(info.st_rdev) if device else 0,
        xattrs or {},
    )


def _xattrs(fd: int) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for name in sorted(os.listxattr(fd)):
        if keeps_xattr(os.fsencode(name)):
            found[os.fsencode(name)] = os.getxattr(fd, name)
    return found


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, _OPAQUE) == b"y"
    except OSError:
        return False
