"""Mount sources that need more than their path: volume subpaths, shared binds, another's /dev/shm.

Each becomes a mount in the bundle, inside the container's private mount namespace, reached by
descriptors only; the OCI runtime then binds it from there.  It ends with the namespace.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import replace

from agent.engine.model import MountPoint
from agent.errors import internal, invalid
from agent.host import openat, syscalls
from agent.runtime import namespace

_CLONE = syscalls.OPEN_TREE_CLONE | syscalls.OPEN_TREE_CLOEXEC
SHARED = ("shared", "rshared")


def open_source(mount: MountPoint) -> int:
    """An O_PATH descriptor of a mount's source; a subpath is resolved inside its volume (case 69)."""
    fd = os.open(mount.source, os.O_PATH | os.O_CLOEXEC)
    if not mount.subpath:
        return fd
    try:
        return openat.open_in_root(fd, os.fsencode(mount.subpath), os.O_PATH)
    except OSError as error:
        raise invalid(
            f"cannot access path {mount.source}/{mount.subpath}: {error.strerror}"
        ) from error
    finally:
        os.close(fd)


def clone_shared(mounts: Sequence[MountPoint]) -> dict[str, int]:
    """Target -> detached copy of each shared bind's source, still in the host's peer group.

    To be made before the namespace is entered: there everything is a slave.  INVALID with docker's
    text when the source does not lie on a shared mount.
    """
    found: dict[str, int] = {}
    try:
        for mount in mounts:
            if mount.propagation not in SHARED:
                continue
            _require_shared(mount.source)
            try:
                found[mount.target] = syscalls.open_tree(
                    syscalls.AT_FDCWD, mount.source, _CLONE | syscalls.AT_RECURSIVE
                )
            except OSError as error:
                raise internal(f"sharing {mount.source}: {error.strerror}") from error
    except BaseException:
        close_all(found)
        raise
    return found


def _require_shared(source: str) -> None:
    point, shared = _mount_of(os.path.realpath(source))
    if not shared:
        raise invalid(f"path {source} is mounted on {point} but it is not a shared mount")


def close_all(clones: dict[str, int]) -> None:
    for fd in clones.values():
        os.close(fd)


def _mount_of(path: str) -> tuple[str, bool]:
    """(mount point that holds `path`, whether it is shared)."""
    best, shared = "", False
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            words = line.split(" ")
            point = words[4].encode("utf-8", "surrogateescape").decode("unicode_escape")
            inside = point == "/" or path == point or path.startswith(point + "/")
            if inside and len(point) >= len(best):
                best = point
                shared = any(one.startswith("shared:") for one in words[6 : words.index("-", 6)])
    return best, shared


def place(
    mounts: Sequence[MountPoint], clones: dict[str, int], bundle: str
) -> tuple[MountPoint, ...]:
    """In the private namespace: the mounts with sources that the OCI runtime can take."""
    return tuple(
        _without_depth(_placed(mount, clones, f"{bundle}/sources/{number}"))
        for number, mount in enumerate(mounts)
    )


def _without_depth(mount: MountPoint) -> MountPoint:
    """crun can't make a file read-only recursively ("open mount target: Not a directory"), and there
    is nothing below one."""
    if mount.source and mount.read_only_recursive and not os.path.isdir(mount.source):
        return replace(mount, read_only_recursive=False)
    return mount


def _placed(mount: MountPoint, clones: dict[str, int], path: str) -> MountPoint:
    if mount.target in clones:
        _make(path, folder=os.path.isdir(mount.source))
        _attach(clones[mount.target], path)
    elif mount.layers:
        _place_image(mount, path)
        if mount.subpath:
            return _placed(replace(mount, source=path, layers=()), clones, f"{path}-part")
        return replace(mount, source=path, layers=())
    elif mount.subpath:
        fd = open_source(mount)
        try:
            here = f"/proc/self/fd/{fd}"
            _make(path, folder=os.path.isdir(here))
            syscalls.mount(here, path, "", syscalls.MS_BIND | syscalls.MS_REC)
        finally:
            os.close(fd)
    else:
        return mount
    return replace(mount, source=path, subpath="")


def images_placed(mounts: Sequence[MountPoint], folder: str) -> tuple[MountPoint, ...]:
    """In a private namespace: image mounts with a source below `folder`, the others as they are."""
    return tuple(
        _placed(mount, {}, f"{folder}/image-{number}") if mount.layers else mount
        for number, mount in enumerate(mounts)
    )


def _place_image(mount: MountPoint, path: str) -> None:
    """The layers on `path`.  An empty one below: overlayfs wants two."""
    work = f"{path}-layers"
    for name in ("empty", "rootfs"):
        os.makedirs(f"{work}/{name}", mode=0o700)
    try:
        namespace.mount_layers((*mount.layers, f"{work}/empty"), work)
        _make(path, folder=True)
        syscalls.mount(f"{work}/rootfs", path, "", syscalls.MS_BIND)
    except OSError as error:
        raise internal(f"mounting image {mount.name}: {error.strerror}") from error


def _make(path: str, *, folder: bool) -> None:
    os.makedirs(path if folder else os.path.dirname(path), mode=0o700, exist_ok=True)
    if not folder:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _attach(tree: int, path: str) -> None:
    flags = syscalls.MOVE_MOUNT_F_EMPTY_PATH
    syscalls.move_mount(tree, "", syscalls.AT_FDCWD, path, flags)


def shared_memory(pid: int, hidden: str | None) -> int:
    """A detached copy of another container's /dev/shm.  INTERNAL when it can't be had."""

    def look() -> int:
        with open(f"/proc/{pid}/ns/mnt", "rb") as namespace_file:
            syscalls.setns(namespace_file.fileno(), syscalls.CLONE_NEWNS)
        root = os.open("/", openat.DIRECTORY)
        try:
            shm = openat.open_in_root(root, b"/dev/shm", openat.DIRECTORY)
        finally:
            os.close(root)
        try:
            return syscalls.open_tree(shm, "", _CLONE | syscalls.AT_EMPTY_PATH)
        finally:
            os.close(shm)

    try:
        return namespace.run_private(look, hidden)
    except OSError as error:
        what = "it has ended" if error.errno == errno.ENOENT else error.strerror
        raise internal(f"cannot share the memory of another container: {what}") from error


def attach_memory(tree: int, bundle: str) -> str:
    """In the private namespace: where the OCI runtime finds it."""
    path = f"{bundle}/sources/shm"
    _make(path, folder=True)
    _attach(tree, path)
    return path
