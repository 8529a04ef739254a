"""A container's root as a directory descriptor, for work from outside (cp, export, diff).

Of a running container it is /proc/PID/root: everything that its processes see, mounts and all.
Of one that does not run, the overlay is mounted in a mount namespace of its own, with the
container's volumes and binds on it.  The namespace lives as long as the view's descriptor of it:
a killed agent leaves nothing mounted, and the host never sees any of it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field

from agent.engine.model import MountPoint
from agent.engine.ports import Rootfs
from agent.errors import EngineError
from agent.host import openat, syscalls
from agent.runtime import namespace
from agent.runtime.sources import images_placed, open_source


@dataclass
class View:
    """See `agent.engine.ports.RootView`."""

    root_fd: int
    others: list[int] = field(default_factory=list)
    _folder: str = ""

    def close(self) -> None:
        for fd in (self.root_fd, *self.others):
            with contextlib.suppress(OSError):
                os.close(fd)
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def of_process(pid: int) -> View:
    """Raises OSError when it has ended."""
    return View(os.open(f"/proc/{pid}/root", openat.DIRECTORY))


def mounted(
    home: str, rootfs: Rootfs, mounts: Iterable[MountPoint], *, writable: bool, hidden: str | None
) -> View:
    """`home`: a folder of ours for mount points.  Read-only views have no work directory, so they
    do no harm to a container that starts meanwhile."""
    os.makedirs(home, mode=0o700, exist_ok=True)
    folder = tempfile.mkdtemp(dir=home)
    try:
        return namespace.run_private(
            lambda: _mount(folder, rootfs, tuple(mounts), writable=writable), hidden
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _mount(folder: str, rootfs: Rootfs, mounts: tuple[MountPoint, ...], *, writable: bool) -> View:
    os.mkdir(f"{folder}/rootfs", 0o700)
    mounts = images_placed(mounts, folder)
    if writable:
        namespace.mount_overlay(rootfs, folder)
    else:
        points = f"{folder}/points"
        os.mkdir(points, 0o755)
        for mount in mounts:
            _make_point(points, mount)
        namespace.mount_layers((rootfs.upper, *rootfs.lower, points), folder)
    root_fd = os.open(f"{folder}/rootfs", openat.DIRECTORY)
    view = View(root_fd, [], folder)
    try:
        for mount in mounts:
            _put(root_fd, mount, writable=writable)
        # Keeps the namespace: without it the mounts on the root would go with this thread.
        view.others.append(os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))
    except BaseException:
        view.close()
        raise
    return view


def _make_point(points: str, mount: MountPoint) -> None:
    """A mount point of a container that has never run is in no layer yet: it comes from a layer of
    the view's own, below all others (they hide it where they have something there)."""
    if not mount.source:
        return
    path = points + mount.target  # clean and absolute: mountspec's word
    folder = os.path.isdir(mount.source)
    os.makedirs(path if folder else os.path.dirname(path), 0o755, exist_ok=True)
    if not folder and not os.path.isdir(path):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))


def _put(root_fd: int, mount: MountPoint, *, writable: bool) -> None:
    """A volume or bind on its target, both reached by descriptors (CVE-2026-41568)."""
    if not mount.source:
        return  # a tmpfs is empty while its container does not run
    try:
        source = open_source(mount)
    except (OSError, EngineError):
        return  # a bind's source that has gone: the copy sees what lies below
    try:
        target = _target(root_fd, mount, source, writable=writable)
        if target < 0:
            return
        try:
            flags = syscalls.MS_BIND | syscalls.MS_REC
            syscalls.mount(f"/proc/self/fd/{source}", f"/proc/self/fd/{target}", "", flags)
        finally:
            os.close(target)
        if not (mount.read_write and writable):
            _seal(root_fd, mount)
    finally:
        os.close(source)


def _target(root_fd: int, mount: MountPoint, source: int, *, writable: bool) -> int:
    """The mount point, made as the runtime would make it; -1: there is none to look through."""
    path = os.fsencode(mount.target)
    try:
        return openat.open_in_root(root_fd, path, os.O_PATH)
    except FileNotFoundError:
        if not writable:
            return -1
    folder = stat.S_ISDIR(os.fstat(source).st_mode)
    parts = [part for part in path.split(b"/") if part]
    for number in range(1, len(parts) + 1):
        _make(root_fd, parts[:number], folder=folder or number < len(parts))
    return openat.open_in_root(root_fd, path, os.O_PATH)


def _make(root_fd: int, parts: list[bytes], *, folder: bool) -> None:
    above = openat.open_in_root(root_fd, b"/".join(parts[:-1]), openat.DIRECTORY)
    try:
        with contextlib.suppress(FileExistsError):
            if folder:
                os.mkdir(parts[-1], 0o755, dir_fd=above)
            else:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                os.close(os.open(parts[-1], flags, 0o644, dir_fd=above))
    finally:
        os.close(above)


def _seal(root_fd: int, mount: MountPoint) -> None:
    fd = openat.open_in_root(root_fd, os.fsencode(mount.target), os.O_PATH)
    try:
        flags = syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY
        syscalls.mount("", f"/proc/self/fd/{fd}", "", flags)
    finally:
        os.close(fd)
