"""One agent a root folder (case 134): an flock on a file that is never deleted."""

from __future__ import annotations

import fcntl
import os

from agent.errors import EngineError, Kind

NAME = "agent.lock"


class LockedError(EngineError):
    """Another agent holds the folder; `pid` is 0 when it could not be read."""

    def __init__(self, root: str, pid: int) -> None:
        self.pid = pid
        super().__init__(Kind.CONFLICT, f"another agent (pid {pid or 'unknown'}) is using {root}")


class RootLock:
    """Held from construction to `close` or the process's end; SIGKILL releases it too."""

    def __init__(self, root: str) -> None:
        """Raises LockedError at once when the lock is taken, OSError when it can't be made."""
        path = os.path.join(root, NAME)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _pid(os.pread(self._fd, 32, 0))
            os.close(self._fd)
            raise LockedError(root, pid) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _pid(text: bytes) -> int:
    word = text.strip()
    return int(word) if word.isdigit() else 0
