"""Unpacking an uploaded tar archive into a folder of a container's root (`docker cp` to it).

Every parent is resolved by the kernel below the root's descriptor (`RESOLVE_IN_ROOT`), so a link
means what it means inside, and nothing that the container does meanwhile leads out of it; the last
component is never followed.  Directories get their metadata at the end, each the inode that was made.
Rules of replacing are those of docker's archive.Untar.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator

from agent.host import openat, tarheader, tree
from agent.host.tarheader import Entry, Headers, TarError, padded
from agent.values import frozen

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CACHED_PARENTS = 64
_MAX_PATH = 4096
_MAX_MOMENT = (1 << 33) * 1_000_000_000
_MAX_XATTRS, _MAX_XATTR_BYTES = 64, 64 << 10
# What one archive can't be blamed for: told as it is.
_HOST_TROUBLE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EROFS,
    errno.EMFILE,
    errno.ENFILE,
)


@frozen
class Rules:
    """`keep_kinds`: a directory never replaces a file nor a file a directory.  `owner`: (uid, gid)
    of everything, None = as the archive says."""

    keep_kinds: bool = False
    owner: tuple[int, int] | None = None


class _Source:
    """Pieces of an archive as bytes to take."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._view = memoryview(b"")

    def parts(self, size: int) -> Iterator[memoryview]:
        """The next `size` bytes, or fewer at the end of input."""
        while size > 0:
            if not self._view:
                piece = next(self._pieces, b"")
                if not piece:
                    return
                self._view = memoryview(piece)
            part = self._view[:size]
            self._view = self._view[len(part) :]
            size -= len(part)
            yield part

    def take(self, size: int) -> bytes:
        if len(self._view) >= size:
            found = bytes(self._view[:size])
            self._view = self._view[size:]
            return found
        return b"".join([bytes(part) for part in self.parts(size)])


class Untar:
    """Applies one archive to the folder `into` (a path inside the root)."""

    def __init__(self, root_fd: int, into: bytes, pieces: Iterator[bytes], rules: Rules) -> None:
        self._root = root_fd
        self._into = into.strip(b"/")
        self._source = _Source(pieces)
        self._rules = rules
        self._parents: dict[bytes, int] = {}
        self._folders: dict[bytes, tuple[Entry, int, int]] = {}
        self._read = 0
        self._makers: dict[int, Callable[[Entry, int, bytes], None]] = {
            tarheader.REGULAR: self._regular,
            tarheader.HARD: self._hard_link,
            tarheader.SYMLINK: self._symlink,
            tarheader.CHAR: self._node,
            tarheader.BLOCK_DEVICE: self._node,
            tarheader.DIRECTORY: self._directory,
            tarheader.FIFO: self._node,
        }

    def run(self) -> None:
        """TarError names the entry; OSError is the host's trouble or a read-only mount (EROFS)."""
        headers = Headers(self._source.take, sparse=True)
        try:
            while (entry := headers.next()) is not None:
                self._member(entry)
            for _ in self._source.parts(1 << 62):
                pass  # what follows the end: it must be taken from the client
            self._finish_folders()
        finally:
            self._forget_parents()

    def _member(self, entry: Entry) -> None:
        self._read = 0
        try:
            self._apply(entry)
        except TarError as error:
            raise TarError(f"{_shown(entry.name)}: {error}") from error
        except OSError as error:
            if error.errno in _HOST_TROUBLE:
                raise
            raise TarError(f"{_shown(entry.name)}: {error.strerror}") from error
        for _ in self._source.parts(padded(entry.size) - self._read):
            pass

    def _apply(self, entry: Entry) -> None:
        parts = _split(entry.name)
        if not parts:
            return  # the folder itself stays as it is
        name = parts.pop()
        parent = self._parent(b"/".join(parts))
        if self._make_room(parent, name, entry):
            return
        self._makers[entry.kind](entry, parent, b"/".join((*parts, name)))

    # ---------------------------------------------------------------------------------- parents

    def _parent(self, path: bytes) -> int:
        fd = self._parents.get(path)
        if fd is None:
            fd = self._open_parent(path)
            if len(self._parents) >= _CACHED_PARENTS:
                self._forget_parents()
            self._parents[path] = fd
        return fd

    def _inside(self, path: bytes) -> bytes:
        return b"/" + b"/".join(part for part in (self._into, path) if part)

    def _open_parent(self, path: bytes) -> int:
        try:
            return openat.open_in_root(self._root, self._inside(path), openat.DIRECTORY)
        except FileNotFoundError:
            pass
        walked: list[bytes] = []
        for part in path.split(b"/"):
            above = openat.open_in_root(
                self._root, self._inside(b"/".join(walked)), openat.DIRECTORY
            )
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=above)
            finally:
                os.close(above)
            walked.append(part)
        return openat.open_in_root(self._root, self._inside(path), openat.DIRECTORY)

    def _forget_parents(self) -> None:
        while self._parents:
            os.close(self._parents.popitem()[1])

    # ----------------------------------------------------------------------------------- members

    def _make_room(self, parent: int, name: bytes, entry: Entry) -> bool:
        """Removes what is in the way; True when a directory is there and stays."""
        if entry.kind == tarheader.REGULAR:
            return False  # looks when its O_EXCL open fails: most files are new
        return self._clear(parent, name, entry)

    def _clear(self, parent: int, name: bytes, entry: Entry) -> bool:
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        there, wanted = stat.S_ISDIR(found.st_mode), entry.kind == tarheader.DIRECTORY
        if there and wanted:
            self._folder_there(parent, name, entry)
            return True
        if self._rules.keep_kinds and there != wanted:
            what = ("directory", "non-directory") if there else ("non-directory", "directory")
            raise TarError(f"cannot overwrite {what[0]} with {what[1]}")
        kept = {key: fd for key, fd in self._parents.items() if fd == parent}
        for key in [one for one in self._parents if one not in kept]:
            os.close(self._parents.pop(key))  # it may lead through what goes now
        tree.remove_tree(parent, name)
        return False

    def _folder_there(self, parent: int, name: bytes, entry: Entry) -> None:
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        self._folders[b"/".join(_split(entry.name))] = (entry, info.st_dev, info.st_ino)

    def _regular(self, entry: Entry, parent: int, path: bytes) -> None:
        name = path.rpartition(b"/")[2]
        mode = entry.mode & 0o777
        try:
            fd = os.open(name, _CREATE, mode, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, name, entry)
            fd = os.open(name, _CREATE, mode, dir_fd=parent)
        try:
            for offset, count in entry.sparse or ((0, entry.size),):
                os.lseek(fd, offset, os.SEEK_SET)
                self._copy(count, fd)
            if self._read < entry.size:
                raise TarError("truncated file body")
            if entry.sparse is not None:
                os.ftruncate(fd, entry.length)
            self._attributes(fd, entry)
        finally:
            os.close(fd)

    def _copy(self, count: int, fd: int) -> None:
        for part in self._source.parts(count):
            self._read += len(part)
            written = 0
            while written < len(part):
                written += os.write(fd, part[written:])

    def _attributes(self, fd: int, entry: Entry) -> None:
        """Owner before mode (chown clears set-id bits), attributes after both, times last."""
        uid, gid = self._rules.owner or (entry.uid, entry.gid)
        info = os.fstat(fd)
        # Each of the two is a transaction of the file system, and most files are right as they are.
        moved = (info.st_uid, info.st_gid) != (uid, gid)
        if moved:
            os.fchown(fd, uid, gid)
        if moved or stat.S_IMODE(info.st_mode) != entry.mode:
            os.fchmod(fd, entry.mode)
        _set_xattrs(fd, entry)
        moment = _moment(entry)
        os.utime(fd, ns=(moment, moment))

    def _directory(self, entry: Entry, parent: int, path: bytes) -> None:
        name = path.rpartition(b"/")[2]
        os.mkdir(name, 0o700, dir_fd=parent)
        self._folder_there(parent, name, entry)

    def _symlink(self, entry: Entry, parent: int, path: bytes) -> None:
        if not entry.link:
            raise TarError("empty symlink target")
        name = path.rpartition(b"/")[2]
        os.symlink(entry.link, name, dir_fd=parent)
        self._attributes_at(entry, parent, name)

    def _hard_link(self, entry: Entry, parent: int, path: bytes) -> None:
        source = _split(entry.link)
        if not source:
            raise TarError("hard link to the folder itself")
        above = openat.open_in_root(
            self._root, self._inside(b"/".join(source[:-1])), openat.DIRECTORY
        )
        try:
            info = os.stat(source[-1], dir_fd=above, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                raise TarError("hard link to a directory")
            os.link(
                source[-1],
                path.rpartition(b"/")[2],
                src_dir_fd=above,
                dst_dir_fd=parent,
                follow_symlinks=False,
            )
        finally:
            os.close(above)

    def _node(self, entry: Entry, parent: int, path: bytes) -> None:
        number = 0
        if entry.kind != tarheader.FIFO:
            if not (0 <= entry.major < 1 << 12 and 0 <= entry.minor < 1 << 20):
                raise TarError("device number out of range")
            number = os.makedev(entry.major, entry.minor)
            if entry.kind == tarheader.CHAR and number == 0:
                raise TarError("the character device 0:0 is refused: it is an overlay whiteout")
        name = path.rpartition(b"/")[2]
        os.mknod(name, _NODES[entry.kind] | (entry.mode & 0o777), number, dir_fd=parent)
        self._attributes_at(entry, parent, name)

    def _attributes_at(self, entry: Entry, parent: int, name: bytes) -> None:
        """Of what can't be opened: a link, a FIFO, a device.  Its mode was given when it was made."""
        uid, gid = self._rules.owner or (entry.uid, entry.gid)
        os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        moment = _moment(entry)
        os.utime(name, ns=(moment, moment), dir_fd=parent, follow_symlinks=False)

    def _finish_folders(self) -> None:
        for path, (entry, device, inode) in self._folders.items():
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            try:
                fd = openat.open_in_root(self._root, self._inside(path), flags)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue  # replaced later, by the archive or by the container
                raise
            try:
                info = os.fstat(fd)
                if (info.st_dev, info.st_ino) == (device, inode):
                    self._attributes(fd, entry)
            finally:
                os.close(fd)


_NODES = {
    tarheader.CHAR: stat.S_IFCHR,
    tarheader.BLOCK_DEVICE: stat.S_IFBLK,
    tarheader.FIFO: stat.S_IFIFO,
}


def _split(name: bytes) -> list[bytes]:
    if len(name) >= _MAX_PATH:
        raise TarError(f"name is longer than {_MAX_PATH - 1} bytes")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise TarError('".." in a name')
    return parts


def _set_xattrs(fd: int, entry: Entry) -> None:
    if len(entry.xattrs) > _MAX_XATTRS:
        raise TarError(f"more than {_MAX_XATTRS} extended attributes")
    for key, value in entry.xattrs.items():
        if len(value) > _MAX_XATTR_BYTES or len(key) > 255:
            raise TarError("an extended attribute is too large")
        own = key.startswith(b"user.") and not key.startswith(b"user.overlay.")
        if not own and key != b"security.capability":
            continue
        try:
            os.setxattr(fd, key, value)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise


def _shown(name: bytes) -> str:
    text = name[:160].decode("utf-8", "backslashreplace")
    return repr(text) if len(name) <= 160 else repr(text) + "..."


def _moment(entry: Entry) -> int:
    return max(0, min(entry.mtime, _MAX_MOMENT))
