"""Work inside a container's mounted root, always by confined descriptors (RESOLVE_IN_ROOT)."""

from __future__ import annotations

import errno
import os
import stat

from agent.errors import EngineError, internal, invalid
from agent.host import openat
from agent.runtime.spec import escapes_by_proc

_DIRS = ("dev", "proc", "sys", "etc")


def open_root(path: str) -> int:
    """A descriptor of a root directory."""
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def check_skeleton(root_fd: int) -> None:
    """/dev, /proc, /sys, /etc must be real directories: runtimes follow a symlink there.

    CVE-2026-41579 (runc), CVE-2026-47766 (crun): with /dev a symlink they work on the host's files.
    The images adapter puts an init layer below each container; this is the second lock.
    """
    for name in _DIRS:
        try:
            mode = os.stat(name, dir_fd=root_fd, follow_symlinks=False).st_mode
        except FileNotFoundError:
            os.mkdir(name, 0o755, dir_fd=root_fd)
            continue
        if not stat.S_ISDIR(mode):
            raise internal(f"the image's /{name} is not a directory")


def ensure_directory(root_fd: int, path: str, mode: int = 0o755) -> int:
    """Open `path` (clean, absolute) in the root, making what is missing (owner root), as Docker does
    for the working directory.  INVALID when something on the way is no directory or leads to /proc.
    """
    current = os.dup(root_fd)
    try:
        walked = b""
        for part in os.fsencode(path).split(b"/"):
            if not part:
                continue
            walked += b"/" + part
            following = _step(root_fd, walked, current, part, mode)
            os.close(current)
            current = following
        real = os.readlink(f"/proc/self/fd/{current}")
        base = os.readlink(f"/proc/self/fd/{root_fd}")
        if escapes_by_proc(real[len(base) :] if base != "/" else real):
            raise invalid(f"invalid working directory {path!r}: it leads out of the container")
    except OSError as error:
        os.close(current)
        raise _refused(path, error) from error
    except EngineError:
        os.close(current)
        raise
    return current


def _step(root_fd: int, walked: bytes, parent: int, name: bytes, mode: int) -> int:
    try:
        return openat.open_in_root(root_fd, walked, openat.DIRECTORY)
    except FileNotFoundError:
        os.mkdir(name, mode, dir_fd=parent)
        made = openat.open_in_root(root_fd, walked, openat.DIRECTORY)
        os.chmod(f"/proc/self/fd/{made}", mode)  # whatever the agent's umask is
        return made


def _refused(path: str, error: OSError) -> EngineError:
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.ELOOP):
        return invalid(f"Cannot mkdir: {path} is not a directory")
    return internal(f"mkdir {path}: {error.strerror}")
