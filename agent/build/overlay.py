"""Layers as one tree, by a descriptor: an overlay mounted where nobody sees it.

The mount is made in a short-lived thread's own mount namespace and reached through a descriptor
that is opened there.  When the thread ends the kernel takes the mount off, and it lives on for the
descriptor alone: nothing to unmount, nothing left after a crash, nothing that the host sees.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence

from agent.host import openat, syscalls

_PLAIN = "index=off,metacopy=off,redirect_dir=off"


@contextlib.contextmanager
def writable(home: str, lower: Sequence[str], folder: str) -> Iterator[int]:
    """`lower` (top first) with `folder`/diff as the upper directory; a descriptor of its root."""
    upper, work = os.path.join(folder, "diff"), os.path.join(folder, "work")
    if not lower:
        fd = os.open(upper, openat.DIRECTORY)
    else:
        fd = _in_private(home, lower, (("u", upper), ("w", work)))
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def readable(home: str, lower: Sequence[str]) -> Iterator[int]:
    """`lower` (top first) as a tree to read from."""
    alone = len(lower) == 1
    fd = os.open(lower[0], openat.DIRECTORY) if alone else _in_private(home, lower, ())
    try:
        yield fd
    finally:
        os.close(fd)


def _in_private(home: str, lower: Sequence[str], upper: Sequence[tuple[str, str]]) -> int:
    with tempfile.TemporaryDirectory(dir=home) as folder:
        done: list[int] = []
        failed: list[OSError] = []

        def body() -> None:
            try:
                done.append(_mount(folder, lower, upper))
            except OSError as error:
                failed.append(error)

        thread = threading.Thread(target=body, name="build-mount", daemon=True)
        thread.start()
        thread.join()
        if not done:
            raise failed[0] if failed else OSError(errno.EIO, "a build's mount failed")
        return done[0]


def _mount(folder: str, lower: Sequence[str], upper: Sequence[tuple[str, str]]) -> int:
    """By short symlinks: mount options must fit in a page (see agent.runtime.namespace)."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    os.chdir(folder)
    targets = [(str(number), path) for number, path in enumerate(lower)]
    for name, path in (*targets, *upper):
        os.symlink(path, name)
    os.mkdir("root")
    options = "lowerdir=" + ":".join(name for name, _ in targets)
    if upper:
        options += ",upperdir=u,workdir=w"
    _overlay(f"{options},{_PLAIN}", volatile=bool(upper))
    return os.open("root", openat.DIRECTORY)


def _overlay(options: str, *, volatile: bool) -> None:
    """Volatile (kernel 5.10): no sync of the whole file system when the mount goes; what is kept
    of a build is synced once, at its end."""
    try:
        extra = ",volatile" if volatile else ""
        syscalls.mount("overlay", "root", "overlay", 0, options + extra)
    except OSError as error:
        if not volatile or error.errno != errno.EINVAL:
            raise
        syscalls.mount("overlay", "root", "overlay", 0, options)
