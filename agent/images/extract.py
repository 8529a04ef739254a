"""Our own layer extractor: one tar stream into one private, empty directory (security.md 5.1).

Every step is relative to a directory descriptor.  Parents are resolved with
`openat2(RESOLVE_IN_ROOT)`, so a symlink means what it means in the container; the last component
is never followed.  Nothing else writes below the root while we work (a layer is unpacked into its
own fresh directory), which is what makes "look, then act" on one name sound.

Whiteouts become overlayfs char devices 0:0.  Opaque directories are only reported: the xattr
`trusted.overlay.opaque` takes CAP_SYS_ADMIN, which the worker has dropped; the parent sets it.
Directory modes, owners and times are applied last, each to the very inode that was made (case 8).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from agent.host import openat, tree
from agent.images import tarheader
from agent.images.layerstream import Stream
from agent.images.tarheader import Entry, Headers, TarError, padded

_WHITEOUT = b".wh."
_META = b".wh..wh."
_OPAQUE = b".wh..wh..opq"
_MAX_REPORTED = 100_000
_CACHED_PARENTS = 128
_MAX_MTIME = 1 << 33
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX


class Caps:
    """Limits for one layer, see settings.Limits."""

    def __init__(self, entries: int, path: int, xattrs: int, xattr_bytes: int) -> None:
        self.entries = entries
        self.path = path
        self.xattrs = xattrs
        self.xattr_bytes = xattr_bytes


class Extractor:
    """Applies the members of one layer to `root_fd`."""

    def __init__(
        self, root_fd: int, stream: Stream, caps: Caps, kept_fd: int | None = None
    ) -> None:
        """`kept_fd`: a directory beside the root for what later members replace."""
        self._kept = kept_fd
        self._kept_count = 0
        self._root = root_fd
        self._stream = stream
        self._caps = caps
        self._parents: dict[bytes, int] = {}
        self._deferred: dict[bytes, tuple[Entry, int]] = {}
        self.root_entry: Entry | None = None
        self.opaque: set[bytes] = set()
        self.implicit: set[bytes] = set()
        self.disk_bytes = 0
        self.entries = 0

    def run(self) -> None:
        """Unpack it all.  TarError names the entry; OSError is the host's trouble."""
        headers = Headers(self._stream.take, sparse=True)
        try:
            while (entry := headers.next()) is not None:
                self.entries += 1
                if self.entries > self._caps.entries:
                    raise TarError(f"more than {self._caps.entries} entries")
                self._member(entry)
            self._stream.drain()
            self._finish_directories()
        finally:
            self._forget_parents()

    def _member(self, entry: Entry) -> None:
        before = self._stream.total - len(self._stream._view)  # noqa: SLF001
        try:
            self._apply(entry)
        except TarError as error:
            raise TarError(f"{shown(entry.name)}: {error}") from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE):
                raise
            raise TarError(f"{shown(entry.name)}: {error.strerror}") from error
        used = self._stream.total - len(self._stream._view) - before  # noqa: SLF001
        self._stream.skip(padded(entry.size) - used)

    def _apply(self, entry: Entry) -> None:
        parts = split(entry.name, self._caps.path)
        if not parts:
            self._apply_root(entry)
            return
        if any(part.startswith(_WHITEOUT) for part in parts):
            self._apply_whiteout(parts)
            return
        name = parts.pop()
        _MAKERS[entry.kind](self, entry, parts, name)

    def _apply_root(self, entry: Entry) -> None:
        if entry.kind != tarheader.DIRECTORY:
            raise TarError("the root can only be a directory")
        self.root_entry = entry

    # ---------------------------------------------------------------------------------- parents

    def _parent(self, parts: list[bytes]) -> int:
        """Descriptor (ours to keep, O_PATH) of a directory, made when it is not there."""
        key = b"/".join(parts)
        fd = self._parents.get(key)
        if fd is not None:
            return fd
        try:
            fd = openat.open_in_root(self._root, key, openat.DIRECTORY)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
            fd = self._make_parent(parts)
        if len(self._parents) >= _CACHED_PARENTS:
            self._forget_parents()
        self._parents[key] = fd
        return fd

    def _make_parent(self, parts: list[bytes]) -> int:
        made: list[bytes] = []
        for part in parts:
            made.append(part)
            path = b"/".join(made)
            try:
                os.close(openat.open_in_root(self._root, path, openat.DIRECTORY))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                    raise
                self._make_implicit(made[:-1], part, path)
        return openat.open_in_root(self._root, b"/".join(parts), openat.DIRECTORY)

    def _make_implicit(self, parts: list[bytes], name: bytes, path: bytes) -> None:
        parent = openat.open_in_root(self._root, b"/".join(parts), openat.DIRECTORY)
        try:
            found = _lstat(parent, name)
            if found is not None:
                if not _is_whiteout(found):
                    raise TarError(f"{shown(path)} is no directory")
                os.unlink(name, dir_fd=parent)
                self._mark_opaque(path)
            os.mkdir(name, 0o755, dir_fd=parent)
        finally:
            os.close(parent)
        if len(self.implicit) < _MAX_REPORTED:
            self.implicit.add(path)

    def _forget_parents(self) -> None:
        while self._parents:
            os.close(self._parents.popitem()[1])

    # --------------------------------------------------------------------------------- whiteouts

    def _apply_whiteout(self, parts: list[bytes]) -> None:
        for part in parts[:-1]:
            if part.startswith(_META):
                return  # below aufs's own bookkeeping folders
            if part.startswith(_WHITEOUT):
                raise TarError("a whiteout is no directory")
        name = parts[-1]
        if name == _OPAQUE:
            self._parent(parts[:-1])
            self._mark_opaque(b"/".join(parts[:-1]))
            return
        if name.startswith(_META):
            return  # aufs's bookkeeping
        hidden = name.removeprefix(_WHITEOUT)
        if hidden in (b"", b".", b".."):
            raise TarError("malformed whiteout")
        parent = self._parent(parts[:-1])
        found = _lstat(parent, hidden)
        if found is None:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)
        elif stat.S_ISDIR(found.st_mode):
            # Whiteouts are about lower layers: what this layer itself adds stays.
            self._mark_opaque(b"/".join([*parts[:-1], hidden]))

    def _mark_opaque(self, path: bytes) -> None:
        if len(self.opaque) >= _MAX_REPORTED:
            raise TarError("too many opaque directories")
        self.opaque.add(path)

    # ----------------------------------------------------------------------------------- members

    def _clear(self, parent: int, name: bytes, path: bytes, *, keep_directory: bool) -> bool:
        """Make room for an entry; True when a directory is there and stays."""
        found = _lstat(parent, name)
        if found is None:
            return False
        if stat.S_ISDIR(found.st_mode):
            if keep_directory:
                return True
            self._forget_parents_but(parent)
            if not self._set_aside(parent, name):
                tree.remove_tree(parent, name)
            return False
        if stat.S_ISLNK(found.st_mode):
            self._forget_parents_but(parent)
        if not (stat.S_ISREG(found.st_mode) and self._set_aside(parent, name)):
            os.unlink(name, dir_fd=parent)
        if keep_directory and _is_whiteout(found):
            self._mark_opaque(path)
        return False

    def _set_aside(self, parent: int, name: bytes) -> bool:
        """Keep what is replaced: the recipe needs its contents."""
        if self._kept is None:
            return False
        self._kept_count += 1
        os.rename(name, b"%d" % self._kept_count, src_dir_fd=parent, dst_dir_fd=self._kept)
        return True

    def _forget_parents_but(self, kept: int) -> None:
        # A cached path may lead through what is removed now.  The one in use stays open until
        # the entry is done; it is looked up anew for the next one.
        for key, fd in list(self._parents.items()):
            del self._parents[key]
            if fd != kept:
                os.close(fd)
            else:
                self._parents[b"\0in use"] = fd

    def _regular(self, entry: Entry, parts: list[bytes], name: bytes) -> None:
        parent = self._parent(parts)
        permissions = entry.mode & 0o777
        try:
            fd = os.open(name, _CREATE, permissions, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, name, b"", keep_directory=False)
            fd = os.open(name, _CREATE, permissions, dir_fd=parent)
        try:
            if entry.sparse is not None:
                self._sparse(entry, entry.sparse, fd)
            else:
                self._stream.copy(entry.size, fd)
            if entry.sparse is None and self._stream.recipe is not None and entry.size:
                where = b"/".join([*parts, name])
                self._stream.recipe.body(where, entry.size, os.fstat(fd).st_ino)
            if entry.uid or entry.gid:
                os.fchown(fd, entry.uid, entry.gid)
            if entry.mode & _SPECIAL:
                os.fchmod(fd, entry.mode)  # chown clears them: after it
            if entry.xattrs:
                self._set_xattrs(fd, entry)
            moment = _moment(entry)
            os.utime(fd, ns=(moment, moment))
        finally:
            os.close(fd)
        self.disk_bytes += entry.size

    def _sparse(self, entry: Entry, runs: tarheader.Runs, fd: int) -> None:
        """Holes stay holes.  The recipe keeps the bytes: it knows whole files only."""
        if entry.length > self._stream.limit:
            raise TarError(f"a sparse file of {entry.length} bytes is over the limit")
        for offset, count in runs:
            os.lseek(fd, offset, os.SEEK_SET)
            self._stream.copy(count, fd, literal=True)
        os.ftruncate(fd, entry.length)

    def _directory(self, entry: Entry, parts: list[bytes], name: bytes) -> None:
        parent = self._parent(parts)
        path = b"/".join([*parts, name])
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not self._clear(parent, name, path, keep_directory=True):
                os.mkdir(name, 0o700, dir_fd=parent)
        self.implicit.discard(path)
        inode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_ino
        self._deferred[path] = (entry, inode)

    def _symlink(self, entry: Entry, parts: list[bytes], name: bytes) -> None:
        if not entry.link:
            raise TarError("empty symlink target")
        parent = self._parent(parts)
        try:
            os.symlink(entry.link, name, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, name, b"", keep_directory=False)
            os.symlink(entry.link, name, dir_fd=parent)
        self._metadata_at(entry, parent, name)

    def _hard_link(self, entry: Entry, parts: list[bytes], name: bytes) -> None:
        source = split(entry.link, self._caps.path)
        if not source:
            raise TarError("hard link to the root")
        if source == [*parts, name]:
            raise TarError("hard link to itself")
        try:
            source_fd = openat.open_in_root(self._root, b"/".join(source[:-1]), openat.DIRECTORY)
        except OSError as error:
            raise TarError(f"hard link to missing {shown(entry.link)}") from error
        try:
            self._link(source_fd, source, self._parent(parts), name)
        finally:
            os.close(source_fd)

    def _link(self, source_fd: int, source: list[bytes], parent: int, name: bytes) -> None:
        found = _lstat(source_fd, source[-1])
        where = shown(b"/".join(source))
        if found is None or _is_whiteout(found):
            raise TarError(f"hard link to missing {where}")
        if stat.S_ISDIR(found.st_mode):
            raise TarError(f"hard link to the directory {where}")
        if stat.S_ISLNK(found.st_mode):
            target = os.readlink(source[-1], dir_fd=source_fd)
            if climbs_out(source[:-1], target):
                raise TarError(f"hard link to a symlink that leaves the root: {where}")
        present = _lstat(parent, name)
        if present is not None and (present.st_dev, present.st_ino) == (found.st_dev, found.st_ino):
            return
        self._clear(parent, name, b"", keep_directory=False)
        os.link(source[-1], name, src_dir_fd=source_fd, dst_dir_fd=parent, follow_symlinks=False)

    def _node(self, entry: Entry, parts: list[bytes], name: bytes) -> None:
        kinds = {
            tarheader.CHAR: stat.S_IFCHR,
            tarheader.BLOCK_DEVICE: stat.S_IFBLK,
            tarheader.FIFO: stat.S_IFIFO,
        }
        number = 0
        if entry.kind != tarheader.FIFO:
            if not (0 <= entry.major < 1 << 12 and 0 <= entry.minor < 1 << 20):
                raise TarError("device number out of range")
            number = os.makedev(entry.major, entry.minor)
            if entry.kind == tarheader.CHAR and number == 0:
                raise TarError("the character device 0:0 is refused: it is an overlay whiteout")
        parent = self._parent(parts)
        self._clear(parent, name, b"", keep_directory=False)
        os.mknod(name, kinds[entry.kind] | entry.mode, number, dir_fd=parent)
        self._metadata_at(entry, parent, name)

    def _metadata_at(self, entry: Entry, parent: int, name: bytes) -> None:
        if entry.uid or entry.gid:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
            if entry.kind != tarheader.SYMLINK and entry.mode & _SPECIAL:
                os.chmod(name, entry.mode, dir_fd=parent)  # our own node, made just now
        moment = _moment(entry)
        os.utime(name, ns=(moment, moment), dir_fd=parent, follow_symlinks=False)

    # ---------------------------------------------------------------------------------- metadata

    def _set_xattrs(self, fd: int, entry: Entry) -> None:
        if len(entry.xattrs) > self._caps.xattrs:
            raise TarError(f"more than {self._caps.xattrs} extended attributes")
        for key, value in entry.xattrs.items():
            if len(value) > self._caps.xattr_bytes or len(key) > 255:
                raise TarError("an extended attribute is too large")
            if not keeps_xattr(key):
                continue
            try:
                os.setxattr(fd, key, value)
            except OSError as error:
                if error.errno == errno.ENOSPC:  # one inode's room, not the disk's
                    raise TarError("an extended attribute is too large") from error
                if error.errno != errno.ENOTSUP or key == b"security.capability":
                    raise

    def _finish_directories(self) -> None:
        for path, (entry, inode) in self._deferred.items():
            try:
                fd = openat.open_in_root(
                    self._root, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                )
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue  # replaced later in the layer
                raise
            try:
                if os.fstat(fd).st_ino == inode:
                    self._finish_directory(fd, path, entry)
            finally:
                os.close(fd)
        if self.root_entry is not None:
            self._finish_directory(self._root, b".", self.root_entry)

    def _finish_directory(self, fd: int, path: bytes, entry: Entry) -> None:
        try:
            os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, entry.mode)
            if entry.xattrs:
                self._set_xattrs(fd, entry)
        except TarError as error:
            raise TarError(f"{shown(path)}: {error}") from error
        moment = _moment(entry)
        os.utime(fd, ns=(moment, moment))


_MAKERS: dict[int, Callable[[Extractor, Entry, list[bytes], bytes], None]] = {
    tarheader.REGULAR: Extractor._regular,  # noqa: SLF001 - the class's own table
    tarheader.HARD: Extractor._hard_link,  # noqa: SLF001
    tarheader.SYMLINK: Extractor._symlink,  # noqa: SLF001
    tarheader.CHAR: Extractor._node,  # noqa: SLF001
    tarheader.BLOCK_DEVICE: Extractor._node,  # noqa: SLF001
    tarheader.DIRECTORY: Extractor._directory,  # noqa: SLF001
    tarheader.FIFO: Extractor._node,  # noqa: SLF001
}


def split(name: bytes, limit: int) -> list[bytes]:
    """Components of a member's name, absolute or not; any ".." is refused (case 1)."""
    if len(name) >= limit:
        raise TarError(f"name is longer than {limit - 1} bytes")
    if b"\0" in name:
        raise TarError("name holds a NUL byte")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise TarError('".." in a name')
    return parts


def climbs_out(parts: list[bytes], target: bytes) -> bool:
    """Whether a relative symlink target has more ".." than its directory is deep."""
    depth = 0 if target.startswith(b"/") else len(parts)
    for part in target.split(b"/"):
        if part == b"..":
            depth -= 1
            if depth < 0:
                return True
        elif part not in (b"", b"."):
            depth += 1
    return False


def keeps_xattr(key: bytes) -> bool:
    """Only file capabilities and user attributes; never overlayfs's own (case 11)."""
    if key.startswith(b"user."):
        return not key.startswith(b"user.overlay.")
    return key == b"security.capability"


def shown(name: bytes) -> str:
    """A name for an error text: quoted, printable, short."""
    text = name[:160].decode("utf-8", "backslashreplace")
    return repr(text) if len(name) <= 160 else repr(text) + "..."


def _moment(entry: Entry) -> int:
    """mtime as the file system can have it: 1970 to 2242, as docker clamps it."""
    return max(0, min(entry.mtime, _MAX_MTIME * 1_000_000_000))


def _lstat(parent: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
