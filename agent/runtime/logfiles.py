"""The files of one container's log: ctr.log, and what was rotated away: ctr.log.1 (newest), .2, ...

conmon writes ctr.log.  With max-file above one it is the agent that rotates: the files are renamed
up by one, then conmon is told (its `ctl` FIFO, message 2) to open ctr.log anew.  What conmon writes
between the two goes into the renamed file: nothing is lost, and no line is cut.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import threading

from agent.host import syscalls
from agent.runtime.settings import Paths
from agent.values import frozen

_log = logging.getLogger(__name__)
_REOPEN = b"2 0 0\n"
_BREATH = 0.005  # seconds between looks at a log that is written all the time
_LIMITS = "log-limits"


@frozen
class Limits:
    """Bytes a file, and files in all (2 or more)."""

    size: int
    files: int


def names(folder: str) -> list[str]:
    """Paths of a log's files, oldest first; ctr.log is the last, there or not."""
    numbers = []
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            digits = name.removeprefix("ctr.log.")
            if digits != name and digits.isascii() and digits.isdigit():
                numbers.append(int(digits))
    rotated = [f"{folder}/ctr.log.{number}" for number in sorted(numbers, reverse=True)]
    return [*rotated, f"{folder}/ctr.log"]


def rotate(folder: str, limits: Limits) -> bool:
    """Rename everything up by one, and drop what is too old or too much.  False: nothing to rotate."""
    current = f"{folder}/ctr.log"
    for path in names(folder)[:-1]:
        number = int(path.rpartition(".")[2])
        if number >= limits.files - 1:
            os.unlink(path)
        else:
            os.rename(path, f"{current}.{number + 1}")
    try:
        os.rename(current, f"{current}.1")
    except FileNotFoundError:
        return False
    _trim(folder, limits)
    return True


def _trim(folder: str, limits: Limits) -> None:
    """A burst may have made files longer than they should be: the sum counts (case 172)."""
    room = limits.size * (limits.files - 1)
    for path in reversed(names(folder)[:-1]):
        room -= os.stat(path).st_size
        if room < 0 and not path.endswith(".1"):
            os.unlink(path)


class Rotator:
    """One thread for all logs that have a limit; made when the first one appears."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._lock = threading.Lock()
        self._logs: dict[str, tuple[int, Limits]] = {}  # id -> (watch, limits)
        self._watches: dict[int, str] = {}
        self._inotify = -1
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, container_id: str, limits: Limits) -> None:
        """Before conmon starts.  Noted in the bundle for the next agent."""
        path = f"{self._paths.bundle(container_id)}/{_LIMITS}"
        with open(path, "w", encoding="ascii") as file:
            json.dump([limits.size, limits.files], file)
        self._watch(container_id, limits)

    def adopt(self, container_id: str) -> None:
        """A container of an earlier agent: its log may be too long already."""
        path = f"{self._paths.bundle(container_id)}/{_LIMITS}"
        with (
            contextlib.suppress(OSError, ValueError, TypeError),
            open(path, encoding="ascii") as file,
        ):
            size, files = json.load(file)
            self._watch(container_id, Limits(int(size), int(files)))
            self._look(container_id)

    def forget(self, container_id: str) -> None:
        """Idempotent."""
        with self._lock:
            watch, _ = self._logs.pop(container_id, (-1, None))
            if watch >= 0:
                self._watches.pop(watch, None)
                with contextlib.suppress(OSError):
                    syscalls.inotify_rm_watch(self._inotify, watch)

    def close(self) -> None:
        self._stop.set()
        os.eventfd_write(self._wake, 1)
        if self._thread is not None:
            self._thread.join()
            os.close(self._inotify)
        os.close(self._wake)

    def _watch(self, container_id: str, limits: Limits) -> None:
        with self._lock:
            if self._thread is None:
                self._inotify = syscalls.inotify_init()
                self._thread = threading.Thread(target=self._loop, name="logs", daemon=True)
                self._thread.start()
            folder = self._paths.log_dir(container_id)
            watch = syscalls.inotify_add_watch(self._inotify, folder, syscalls.IN_MODIFY)
            self._logs[container_id] = (watch, limits)
            self._watches[watch] = container_id

    def _loop(self) -> None:
        poller = select.poll()
        poller.register(self._inotify, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        while not self._stop.is_set():
            poller.poll()
            changed = {event.watch for event in syscalls.inotify_read(self._inotify)}
            with self._lock:
                found = [self._watches[one] for one in changed if one in self._watches]
            for container_id in found:
                self._look(container_id)
            self._stop.wait(_BREATH)

    def _look(self, container_id: str) -> None:
        with self._lock:
            _, limits = self._logs.get(container_id, (-1, None))
        if limits is None:
            return
        try:
            # A little early: what is written until conmon has changed over belongs to the old file.
            if os.stat(self._paths.log(container_id)).st_size < limits.size - limits.size // 16:
                return
            if rotate(self._paths.log_dir(container_id), limits):
                self._tell(container_id)
        except OSError as error:
            _log.warning("the log of %s was not rotated: %s", container_id[:12], error)

    def _tell(self, container_id: str) -> None:
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
        with contextlib.suppress(OSError):  # conmon has ended: nothing more is written
            fd = os.open(f"{self._paths.bundle(container_id)}/ctl", flags)
            try:
                os.write(fd, _REOPEN)
            finally:
                os.close(fd)
