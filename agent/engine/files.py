"""Files of containers: archive (docker cp both ways), export, changes (docker diff).

What a path means is decided by the kernel below the root's descriptor; a container that runs is
looked into as it runs, one that does not is mounted for the time of the copy.  Only a copy into a
container that does not run holds its lock: two writable mounts of one overlay don't go together.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import posixpath
import stat
from collections.abc import Iterator

from agent.engine import imagemounts
from agent.engine.changes import Change, changes_of
from agent.engine.core import Core
from agent.engine.inside import PathStat, RootView
from agent.engine.lifecycle import live
from agent.engine.model import Container, MountPoint
from agent.errors import EngineError, Kind, internal, invalid, no_space, not_found
from agent.host import openat
from agent.host.decompress import DecompressError
from agent.host.inflate import inflated
from agent.host.tarheader import TarError
from agent.host.treetar import TreeTar
from agent.host.untar import Rules, Untar
from agent.values import frozen
from agent.wire.streams import BodyReader

_PIECE = 1 << 20
_MAX_PATH = 4096


class Chunks:
    """A tar stream that closes the view it comes from, whether it was begun or not."""

    def __init__(self, view: RootView, fd: int, pieces: Iterator[bytes]) -> None:
        self._view = view
        self._fd = fd
        self._pieces = pieces
        self._closed = False

    def __iter__(self) -> Chunks:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._pieces)
        except OSError as error:
            raise internal(f"reading the container's files: {error.strerror}") from error

    def close(self) -> None:
        """Idempotent."""
        if not self._closed:
            self._closed = True
            os.close(self._fd)
            self._view.close()


@frozen
class _Found:
    """A path's place: `name` in the directory `fd`, "." = the directory itself."""

    fd: int
    name: bytes
    stat: PathStat


class ContainerFiles:
    """`agent.api.backend.ContainerFiles`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    # ------------------------------------------------------------------------------------ archive

    def stat(self, reference: str, path: str) -> PathStat:
        container = self._core.book.find(reference)
        view = self._view(container)
        try:
            found = _find(view.root_fd, path, container)
            os.close(found.fd)
            return found.stat
        finally:
            view.close()

    def read(self, reference: str, path: str) -> tuple[PathStat, Chunks]:
        container = self._core.book.find(reference)
        view = self._view(container)
        try:
            found = _find(view.root_fd, path, container)
        except BaseException:
            view.close()
            raise
        shown = b"" if found.stat.name == "/" else os.fsencode(found.stat.name)
        tar = TreeTar(found.fd, found.name, shown)
        self._core.event(container, "archive-path")
        return found.stat, Chunks(view, found.fd, tar.pieces())

    def write(
        self, reference: str, path: str, body: BodyReader, *, keep_kinds: bool, as_user: bool
    ) -> None:
        with self._core.book.locked(reference) as container:
            if not live(container.state.phase):
                self._write(container, path, body, keep_kinds=keep_kinds, as_user=as_user)
                return
        self._write(container, path, body, keep_kinds=keep_kinds, as_user=as_user)

    def _write(
        self, container: Container, path: str, body: BodyReader, *, keep_kinds: bool, as_user: bool
    ) -> None:
        view = self._view(container, writable=True)
        try:
            into = _folder(view.root_fd, path, container)
            _check_writable(container, into)
            owner = None
            if as_user and container.config.user:
                owner = self._core.ports.inside.owner(view.root_fd, container.config.user)
            given = _raw(path)
            pieces = inflated(lambda: body.read(_PIECE))
            Untar(view.root_fd, given, pieces, Rules(keep_kinds, owner)).run()
        except (TarError, DecompressError) as error:
            raise invalid(f"Error processing tar file: {error}") from error
        except OSError as error:
            raise _host_trouble(error) from error
        finally:
            view.close()
        self._core.event(container, "extract-to-dir")

    # ----------------------------------------------------------------------------- export, changes

    def export(self, reference: str) -> Chunks:
        container = self._core.book.find(reference)
        view = self._view(container, mounts=False)
        try:
            fd = openat.open_in_root(view.root_fd, b"/", os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            view.close()
            raise internal(f"exporting {container.id}: {error.strerror}") from error
        self._core.event(container, "export")
        return Chunks(view, fd, TreeTar(fd, b".", b"", top=False).pieces())

    def changes(self, reference: str) -> list[Change]:
        container = self._core.book.find(reference)
        rootfs = self._core.ports.snapshots.rootfs(container.id)
        try:
            return changes_of(rootfs.upper, rootfs.lower)
        except OSError as error:
            raise internal(f"looking for changes: {error.strerror}") from error

    def _view(
        self, container: Container, *, writable: bool = False, mounts: bool = True
    ) -> RootView:
        rootfs = self._core.ports.snapshots.rootfs(container.id)
        if writable:
            for mount in container.mounts:  # as a start would: a never started container has none
                if mount.type == "bind" and mount.create_source:
                    self._core.files.make_source(mount.source)
        if not mounts or live(container.state.phase):
            return self._core.ports.inside.view(container, rootfs, writable=writable, mounts=mounts)
        known = imagemounts.prepared(self._core.ports.snapshots, container.id, container.mounts)
        container = dataclasses.replace(container, mounts=known)
        with self._core.held_volumes.held(container.mounts):  # the view keeps what it has mounted
            return self._core.ports.inside.view(container, rootfs, writable=writable, mounts=True)


def _raw(path: str) -> bytes:
    if "\0" in path or len(path) > _MAX_PATH:
        raise invalid("invalid path")
    return os.fsencode(path)


def _clean(path: str) -> str:
    """Absolute; ".." of the text is resolved by the text, as Go's filepath.Join does."""
    clean = "/" + posixpath.normpath("/" + path).lstrip("/")
    if path.endswith(("/.", "/..")) or path in {".", ""}:
        return clean.rstrip("/") + "/."
    return clean.rstrip("/") + "/" if path.endswith("/") else clean


def _find(root_fd: int, path: str, container: Container) -> _Found:
    """Raises NOT_FOUND with docker's text."""
    clean = _clean(path) if path != "/" else "/"
    raw = _raw(clean)
    try:
        fd = openat.open_in_root(root_fd, raw, os.O_PATH | os.O_NOFOLLOW)
    except OSError as error:
        raise _missing(error, path, container) from error
    try:
        info = os.fstat(fd)
        base = clean.rstrip("/").rpartition("/")[2] or "/"
        link = _link_target(root_fd, raw, fd) if stat.S_ISLNK(info.st_mode) else ""
        found = PathStat(
            name=base,
            size=info.st_size,
            mode=info.st_mode,
            mtime=info.st_mtime_ns,
            link_target=link,
        )
        if stat.S_ISDIR(info.st_mode):
            place = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            return _Found(place, b".", found)
        above, _, name = raw.rpartition(b"/")
        return _Found(openat.open_in_root(root_fd, above, openat.DIRECTORY), name, found)
    except OSError as error:
        raise _missing(error, path, container) from error
    finally:
        os.close(fd)


def _link_target(root_fd: int, raw: bytes, link_fd: int) -> str:
    """Where a symlink leads in the container, absolute; as far as it goes when it is broken."""
    try:
        fd = openat.open_in_root(root_fd, raw, os.O_PATH)
    except OSError:
        text = os.fsdecode(os.readlink(b"", dir_fd=link_fd))
        return posixpath.normpath(posixpath.join(posixpath.dirname(os.fsdecode(raw)), text))
    try:
        return _path_of(root_fd, fd)
    finally:
        os.close(fd)


def _path_of(root_fd: int, fd: int) -> str:
    """A descriptor's path inside the root: for texts and comparisons, never opened again."""
    base = os.readlink(f"/proc/self/fd/{root_fd}")
    real = os.readlink(f"/proc/self/fd/{fd}")
    if base != "/" and real.startswith(base):
        real = real[len(base) :]
    return real or "/"


def _folder(root_fd: int, path: str, container: Container) -> str:
    """The real path of the folder to extract into.  NOT_FOUND, INVALID."""
    try:
        fd = openat.open_in_root(root_fd, _raw(path), os.O_PATH)
    except OSError as error:
        raise _missing(error, path, container) from error
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise invalid("extraction point is not a directory")
        return _path_of(root_fd, fd)
    finally:
        os.close(fd)


def _check_writable(container: Container, into: str) -> None:
    mount = _mount_of(container.mounts, into)
    if mount is None:
        if container.host_config.readonly_rootfs:
            raise invalid("container rootfs is marked read-only")
    elif not mount.read_write:
        raise invalid("mounted volume is marked read-only")


def _mount_of(mounts: tuple[MountPoint, ...], path: str) -> MountPoint | None:
    over = [one for one in mounts if path == one.target or path.startswith(one.target + "/")]
    return max(over, key=lambda one: len(one.target), default=None)


def _missing(error: OSError, path: str, container: Container) -> EngineError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return not_found(f"Could not find the file {path} in container {container.name}")
    if error.errno == errno.ELOOP:
        return invalid(f"too many links on the way to {path}")
    return EngineError(Kind.INTERNAL, f"{path}: {error.strerror}")


def _host_trouble(error: OSError) -> EngineError:
    if error.errno == errno.EROFS:
        return invalid("the destination is on a read-only file system")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return no_space("no space left on device")
    return internal(f"copying to the container: {error.strerror}")
