"""Starts unpack workers and talks to them: one process a layer (DESIGN.md decision 5).

The worker is trusted with nothing but its own directory: the agent itself checks the blob's
digest while feeding it, bounds what it may write, and sets the one xattr that the worker's
capabilities do not allow.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
from contextlib import suppress
from functools import cache
from importlib import util

from agent.errors import EngineError, Kind, data_loss, internal, invalid, no_space
from agent.host import openat, tree
from agent.images.settings import Limits
from agent.values import frozen

_PIPE_SIZE = 1 << 20
_MEMORY = 1 << 30  # address space; a zstd window of 128 MiB fits
_REPORT_LIMIT = 64 << 20
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_OPAQUE = "trusted.overlay.opaque"


class WorkerGoneError(Exception):
    """The worker has closed its input; `finish` tells why."""


@frozen
class Unpacked:
    """What a worker reports of a good layer.  Paths are relative to the layer's root."""

    size: int  # bytes in regular files
    root: tuple[int, int, int] | None  # mode, uid, gid of a "./" entry
    opaque: tuple[bytes, ...]
    implicit: tuple[bytes, ...]  # directories that no entry describes
    diff_id: str = ""


def byte_limit(limits: Limits, compressed: int, free: int) -> int:
    """How far a layer of `compressed` bytes may unpack: by ratio, and by what the disk has left."""
    by_ratio = max(compressed * limits.ratio, limits.ratio_floor)
    return max(0, min(by_ratio, free - limits.reserve_bytes))


def entry_limit(limits: Limits, free_inodes: int) -> int:
    """Entries allowed; file systems without a fixed number of inodes report 0 free."""
    if free_inodes <= 0:
        return limits.entries
    return max(0, min(limits.entries, free_inodes - limits.reserve_inodes))


class Worker:
    """One unpack of one layer into `directory`/diff.  Used by one thread; `kill` by any.

    `diff_id` "" = whatever it is (an import); the report says.
    """

    def __init__(self, directory: str, diff_id: str, compressed: int, limits: Limits) -> None:
        space = os.statvfs(directory)
        task = {
            "diff_id": diff_id,
            "max_bytes": byte_limit(limits, compressed, space.f_bavail * space.f_frsize),
            "entries": entry_limit(limits, space.f_favail),
            "path": limits.path,
            "xattrs": limits.xattrs,
            "xattr_bytes": limits.xattr_bytes,
            "zstd_window_log": limits.zstd_window_log,
            "memory": _MEMORY,
            "isal": _isal_folder(),
        }
        if task["max_bytes"] == 0 or task["entries"] == 0:
            raise no_space(f"no space left on device for layer {diff_id}")
        directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._spawn(directory_fd, json.dumps(task))
        finally:
            os.close(directory_fd)
        self._directory = directory

    def _spawn(self, directory_fd: int, task: str) -> None:
        stdin_read, self._stdin = os.pipe2(os.O_CLOEXEC)
        self._stdout, stdout_write = os.pipe2(os.O_CLOEXEC)
        with suppress(OSError):  # the limit for pipes of a user may be lower
            fcntl.fcntl(self._stdin, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        # Moved out of 0..3 first: a dup2 below must not overwrite a descriptor still to be used.
        given = [
            fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
            for fd in (stdin_read, stdout_write, directory_fd)
        ]
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker.py")
        try:
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", program, task],
                _ENVIRONMENT,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, given[0], 0),
                    (os.POSIX_SPAWN_DUP2, given[1], 1),
                    (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_DUP2, given[2], 3),
                ],
                setsigmask=(),
                setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
            )
            self._pidfd = os.pidfd_open(self._pid)
        except OSError:
            os.close(self._stdin)
            os.close(self._stdout)
            raise
        finally:
            for fd in (*given, stdin_read, stdout_write):
                os.close(fd)

    @property
    def pid(self) -> int:
        return self._pid

    def feed(self, data: bytes) -> None:
        """Blocks while the worker is behind: that is the back-pressure on the download."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._stdin, view) :]
        except BrokenPipeError as error:
            raise WorkerGoneError from error

    def kill(self) -> None:
        """End it now; `finish` or `close` must still follow."""
        with suppress(OSError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Kill when it still runs, and reap.  Idempotent."""
        if self._pidfd < 0:
            return
        self.kill()
        self._reap()

    def finish(self) -> Unpacked:
        """End of input: wait for the report.  Raises the EngineError that the client gets."""
        os.close(self._stdin)
        self._stdin = -1
        raw = b""
        while len(raw) < _REPORT_LIMIT and (piece := os.read(self._stdout, 1 << 16)):
            raw += piece
        self._reap()
        if not raw:
            raise internal("the unpack worker died")
        report = json.loads(raw)
        if "error" in report:
            raise _failure(str(report["kind"]), str(report["error"]))
        found = Unpacked(
            int(report["size"]),
            tuple(report["root"]) if report["root"] else None,
            tuple(path.encode("latin-1") for path in report["opaque"]),
            tuple(path.encode("latin-1") for path in report["implicit"]),
            str(report["diff_id"]),
        )
        self._set_opaque(found.opaque)
        return found

    def _set_opaque(self, paths: tuple[bytes, ...]) -> None:
        with tree.opened(os.path.join(self._directory, "diff")) as root:
            for path in paths:
                with suppress(FileNotFoundError, NotADirectoryError):  # replaced later in the layer
                    _mark_opaque(openat.open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY))

    def _reap(self) -> None:
        for fd in (self._stdin, self._stdout):
            if fd >= 0:
                os.close(fd)
        self._stdin = self._stdout = -1
        with suppress(ChildProcessError):  # someone else's waitpid(-1) was faster
            os.waitpid(self._pid, 0)
        os.close(self._pidfd)
        self._pidfd = -1


def _mark_opaque(fd: int) -> None:
    try:
        os.setxattr(fd, _OPAQUE, b"y")
    finally:
        os.close(fd)


def _failure(kind: str, text: str) -> EngineError:
    if kind == "space":
        return no_space(f"failed to register layer: {text}")
    if kind == "data":
        return data_loss(f"failed to register layer: {text}")
    if kind == "invalid":
        return invalid(f"failed to register layer: {text}")
    return EngineError(Kind.INTERNAL, f"failed to register layer: {text}")


@cache
def _isal_folder() -> str:
    """Where python-isal is installed, for the worker, which has no site packages; "" without."""
    found = util.find_spec("isal")
    if found is None or found.origin is None:
        return ""
    return os.path.dirname(os.path.dirname(found.origin))
