"""A layer that was made here (a container's upper directory): its diffID and its recipe.

No tar is made.  The tree is read once, in the order in which its tar would be written; the tar's
bytes are hashed as they would be, and the recipe beside `diff` keeps all of them but the files'
contents, so save and push give exactly the tar that the diffID names.  Overlayfs's marks become
the layer format's: a character device 0:0 is ".wh.NAME", an opaque directory holds ".wh..wh..opq".
"""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field

from agent.errors import invalid
from agent.host import tarheader
from agent.host.tarwriter import END, Member, header, padding
from agent.images import recipe
from agent.images.workerpool import Unpacked

_PIECE = 1 << 20
_MAX_DEPTH = 400  # directory descriptors held
_OPAQUE = "trusted.overlay.opaque"
_CAPABILITY = "security.capability"
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NODES = {
    stat.S_IFCHR: tarheader.CHAR,
    stat.S_IFBLK: tarheader.BLOCK_DEVICE,
    stat.S_IFIFO: tarheader.FIFO,
}


def pack(folder: str) -> Unpacked:
    """Read `folder`/diff, write `folder`/recipe.  Raises OSError; INVALID when it is too deep."""
    root = os.open(os.path.join(folder, "diff"), _FOLDER)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        book_fd = os.open(os.path.join(folder, recipe.NAME), flags, 0o600)
        try:
            packer = _Packer(recipe.Writer(book_fd))
            packer.run(root)
        finally:
            os.close(book_fd)
        info = os.fstat(root)
        owner = (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid)
        return Unpacked(packer.bytes, owner, (), (), packer.diff_id())
    finally:
        os.close(root)


@dataclass
class _Level:
    fd: int
    path: bytes
    left: list[bytes] = field(default_factory=list)


class _Packer:
    def __init__(self, book: recipe.Writer) -> None:
        self._book = book
        self._hash = hashlib.sha256()
        self._links: dict[int, bytes] = {}
        self.bytes = 0

    def diff_id(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def _literal(self, data: bytes) -> None:
        self._hash.update(data)
        self._book.literal(data)

    def run(self, root: int) -> None:
        levels = [self._level(os.dup(root), b"")]
        try:
            while levels:
                level = levels[-1]
                if not level.left:
                    os.close(levels.pop().fd)
                    continue
                self._entry(levels, level, level.left.pop())
        finally:
            for level in levels:
                os.close(level.fd)
        self._literal(END)
        self._book.finish()

    def _level(self, fd: int, path: bytes) -> _Level:
        try:
            names = sorted(map(os.fsencode, os.listdir(fd)), reverse=True)
        except BaseException:
            os.close(fd)
            raise
        return _Level(fd, path, names)

    def _entry(self, levels: list[_Level], level: _Level, name: bytes) -> None:
        info = os.stat(name, dir_fd=level.fd, follow_symlinks=False)
        path = level.path + b"/" + name if level.path else name
        if stat.S_ISDIR(info.st_mode):
            if len(levels) >= _MAX_DEPTH:
                raise invalid(f"a layer's directories are nested deeper than {_MAX_DEPTH}")
            child = os.open(name, _FOLDER, dir_fd=level.fd)
            self._literal(header(_member(path, tarheader.DIRECTORY, info, xattrs=_xattrs(child))))
            if _opaque(child):
                self._mark(path + b"/.wh..wh..opq")
            levels.append(self._level(child, path))
        elif stat.S_ISREG(info.st_mode):
            self._regular(level.fd, name, path, info)
        elif stat.S_ISLNK(info.st_mode):
            link = os.readlink(name, dir_fd=level.fd)
            if not self._hard(path, info):
                self._literal(header(_member(path, tarheader.SYMLINK, info, link=link)))
        elif stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
            self._mark((level.path + b"/" if level.path else b"") + b".wh." + name)
        elif not self._hard(path, info):
            kind = _NODES.get(stat.S_IFMT(info.st_mode))
            if kind is not None:  # a socket has no place in a layer
                self._literal(header(_member(path, kind, info)))

    def _mark(self, path: bytes) -> None:
        self._literal(header(Member(path, tarheader.REGULAR, 0o600, 0, 0)))

    def _hard(self, path: bytes, info: os.stat_result) -> bool:
        """Whether this is a further name of something that was written already."""
        if info.st_nlink < 2:
            return False
        first = self._links.setdefault(info.st_ino, path)
        if first is path:
            return False
        self._literal(header(_member(path, tarheader.HARD, info, link=first)))
        return True

    def _regular(self, parent: int, name: bytes, path: bytes, info: os.stat_result) -> None:
        if self._hard(path, info):
            return
        fd = os.open(name, _FILE, dir_fd=parent)
        try:
            size = info.st_size
            member = _member(path, tarheader.REGULAR, info, size=size, xattrs=_xattrs(fd))
            self._literal(header(member))
            left = size
            while left:
                piece = os.read(fd, min(left, _PIECE))
                if not piece:
                    raise OSError(5, "a file changed while it was read", os.fsdecode(path))
                self._hash.update(piece)
                left -= len(piece)
        finally:
            os.close(fd)
        if size:
            self._book.body(path, size, info.st_ino)
            self._literal(padding(size))
        self.bytes += size


def _member(
    path: bytes,
    kind: int,
    info: os.stat_result,
    *,
    size: int = 0,
    link: bytes = b"",
    xattrs: dict[bytes, bytes] | None = None,
) -> Member:
    return Member(
        path,
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
    """What our own unpacker would keep: file capabilities and user attributes."""
    found: dict[bytes, bytes] = {}
    for name in os.listxattr(fd):
        own = name.startswith("user.") and not name.startswith("user.overlay.")
        if own or name == _CAPABILITY:
            found[os.fsencode(name)] = os.getxattr(fd, name)
    return found


def _opaque(fd: int) -> bool:
    with suppress(OSError):
        return os.getxattr(fd, _OPAQUE) == b"y"
    return False
