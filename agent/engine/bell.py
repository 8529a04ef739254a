"""An eventfd that threads ring and the event loop waits on."""

from __future__ import annotations

import contextlib
import os
import threading


class Bell:
    """Thread-safe; a ring after `close` does nothing (the number may be another file by then)."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()

    def fileno(self) -> int:
        return self._fd

    def ring(self) -> None:
        with self._lock:
            if self._fd >= 0:
                # EAGAIN: the counter is full, so it is readable as it is.
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_write(self._fd, 1)

    def reset(self) -> None:
        """Call before looking for what there is, never after."""
        with self._lock:
            if self._fd >= 0:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._fd)

    def close(self) -> None:
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
