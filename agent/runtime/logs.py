"""`docker logs`: a container's log file as a PullStream, with follow by inotify."""

from __future__ import annotations

import contextlib
import errno
import os

from agent.engine.model import LogQuery
from agent.host import syscalls
from agent.runtime import logfiles
from agent.runtime.loglines import Renderer, View, tail_offset
from agent.runtime.settings import Paths

_BLOCK = 131072  # of records: about half of it is their heads
_LOOK_SECONDS = 0.1  # between looks where inotify is not to be had
_ATTEMPTS = 20  # looks at the files of a log that is being rotated
_RECORD_LIMIT = 1 << 20  # conmon cuts records at 8 KiB; more without a line end is damage


def running(paths: Paths, container_id: str) -> bool:
    """Whether more may be written: created, and no exit file yet."""
    return os.path.exists(paths.record(container_id)) and not os.path.exists(
        paths.exit_file(container_id)
    )


def tail_start(fd: int, lines: int) -> tuple[int, int]:
    """(file offset of the last `lines` lines, how many there are), reading backwards only as far
    as needed."""
    end = os.fstat(fd).st_size
    span = _BLOCK
    while True:
        begin = max(0, end - span)
        block = os.pread(fd, end - begin, begin)
        if begin:  # a record's first part may be before this block
            cut = block.find(b"\n") + 1
            begin, block = begin + cut, block[cut:]
        offset, found = tail_offset(block, lines)
        # One more is wanted, so that the first is surely whole (its P records are in the block).
        _, more = tail_offset(block, lines + 1)
        if begin == 0 or more > lines or end - span <= 0:
            return begin + (offset if found or lines <= 0 else 0), found
        span *= 4


def _open_all(folder: str) -> list[int]:
    """Descriptors of a log's files, oldest first, as they are at one moment."""
    for _ in range(_ATTEMPTS):
        paths = logfiles.names(folder)
        found = [fd for path in paths if (fd := _open(path)) >= 0]
        keys = [_key(os.fstat(fd)) for fd in found]
        now = [_key_at(path) for path in paths]
        if logfiles.names(folder) == paths and keys == [one for one in now if one]:
            return found
        for fd in found:  # rotated in between
            os.close(fd)
    return [fd for fd in (_open(f"{folder}/ctr.log"),) if fd >= 0]


def _key(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino


def _key_at(path: str) -> tuple[int, int] | None:
    try:
        return _key(os.stat(path, follow_symlinks=False))
    except OSError:
        return None


class LogStream:
    """A PullStream of one log.  Not following: its descriptor is always readable until the end."""

    def __init__(
        self, paths: Paths, container_id: str, renderer: Renderer, query: LogQuery
    ) -> None:
        self._paths = paths
        self._id = container_id
        self._renderer = renderer
        self._rest = b""
        self._ended = False
        self._waiting = _open_all(paths.log_dir(container_id))  # oldest first
        self._file = -1
        self._follow = query.follow
        self._watch = -1
        if query.follow:
            # Before the first look at the file and at the container's state: nothing is missed.
            self._watch = self._add_watches()
        else:
            self._watch = os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._live = query.follow and running(paths, container_id)
        if query.tail is not None:
            self._skip_to_tail(query.tail)
        self._next_file()

    def fileno(self) -> int:
        return self._watch

    def read(self) -> bytes | None:
        while not self._ended:
            block = self._next_block()
            if block is None:
                return None
            if not block:
                self._ended = True
                break
            data = self._renderer.feed(block)
            if self._renderer.finished:
                self._ended = True
            if data:
                return data
        return b""

    def close(self) -> None:
        for fd in (self._file, self._watch, *self._waiting):
            if fd >= 0:
                os.close(fd)
        self._file = self._watch = -1
        self._waiting.clear()

    def _skip_to_tail(self, lines: int) -> None:
        """Forgets files that lie before the last `lines` lines; the first kept one is set there."""
        kept: list[int] = []
        while self._waiting:
            fd = self._waiting.pop()
            if kept and lines <= 0:
                os.close(fd)
                continue
            offset, found = tail_start(fd, lines)
            os.lseek(fd, offset, os.SEEK_SET)
            lines -= found
            kept.append(fd)
        self._waiting = kept[::-1]

    def _next_file(self) -> bool:
        if not self._waiting:
            return False
        if self._file >= 0:
            os.close(self._file)
        self._file = self._waiting.pop(0)
        self._rest = b""
        return True

    def _next_block(self) -> bytes | None:
        """Whole records; b"" = nothing will come; None = nothing now."""
        while True:
            data = os.read(self._file, _BLOCK) if self._file >= 0 else b""
            if data:
                block = self._whole(data)
                if block:
                    return block
                continue
            if self._next_file():
                continue
            if not self._live:
                return b""
            self._forget_events()
            # Events are gone: whatever happened before this line is seen by this second look.
            alive = running(self._paths, self._id)
            if not alive:
                self._live = False
                continue
            if self._reopened() or self._has_more():
                continue
            return None

    def _whole(self, data: bytes) -> bytes:
        data = self._rest + data
        cut = data.rfind(b"\n") + 1
        self._rest = data[cut:] if len(data) - cut <= _RECORD_LIMIT else b""
        return data[:cut]

    def _has_more(self) -> bool:
        if self._file < 0:
            return False
        return os.fstat(self._file).st_size > os.lseek(self._file, 0, os.SEEK_CUR)

    def _reopened(self) -> bool:
        """Whether there is a newer file than the one that was read: its own is then at its end.

        conmon opens the new one after its last write to the old one: what came in between is
        read (`_has_more`) before the old one is left.
        """
        folder = self._paths.log_dir(self._id)
        newest = _key_at(f"{folder}/ctr.log")
        if newest is None:
            return False
        if self._file < 0:
            self._waiting = _open_all(folder)
            return self._next_file()
        own = os.fstat(self._file)
        if _key(own) == newest:
            if own.st_size >= os.lseek(self._file, 0, os.SEEK_CUR):
                return False
            os.lseek(self._file, 0, os.SEEK_SET)  # cut short
            self._rest = b""
            return True
        if self._has_more():
            return True
        self._waiting = _newer_than(_key(own), _open_all(folder))
        return self._next_file()

    def _add_watches(self) -> int:
        try:
            fd = syscalls.inotify_init()
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            # The kernel gives a user 128 instances by default: further followers look by time.
            return syscalls.interval_timer(_LOOK_SECONDS)
        log_events = syscalls.IN_MODIFY | syscalls.IN_CREATE | syscalls.IN_MOVED_TO
        end_events = syscalls.IN_MOVED_TO | syscalls.IN_DELETE
        for folder, events in (
            (self._paths.log_dir(self._id), log_events),
            (self._paths.exits, end_events),
        ):
            with contextlib.suppress(OSError):
                syscalls.inotify_add_watch(fd, folder, events)
        return fd

    def _forget_events(self) -> None:
        while syscalls.inotify_read(self._watch):
            pass


def _newer_than(key: tuple[int, int], files: list[int]) -> list[int]:
    """Of files in order, those after the one that was read; all, when that one is gone."""
    keys = [_key(os.fstat(fd)) for fd in files]
    passed = keys.index(key) + 1 if key in keys else 0
    for fd in files[:passed]:
        os.close(fd)
    return files[passed:]


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return -1


def open_logs(paths: Paths, container_id: str, query: LogQuery, *, tty: bool) -> LogStream:
    """The log of a container as `query` asks for; a container without a log gives an empty one."""
    view = View(
        stdout=query.stdout,
        stderr=query.stderr,
        since=query.since,
        until=query.until,
        timestamps=query.timestamps,
        details=query.details,
        framed=query.framed and not tty,
    )
    return LogStream(paths, container_id, Renderer(view), query)
