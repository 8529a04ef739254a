"""Layers of an archive are unpacked while the archive still comes in.

What will be a layer is not known before manifest.json, which docker's own archives have last: every
large member that begins as a tar does is tried.  What turns out to be no layer, or another one than
it should be, is thrown away.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from agent.images import digest as digests
from agent.images.cancel import Cancellation
from agent.images.disk import Disk
from agent.images.settings import Limits
from agent.images.shelf import LocalShelf
from agent.images.spool import Member
from agent.images.workerpool import Unpacked, Worker, WorkerGoneError

_LEAST = 256 << 10  # bytes: a worker's start costs more than waiting for smaller ones
_MAGIC = b"ustar"
_MOST = 128  # layers of one archive
_PARALLEL = 4
_TICK = 0.1


class Ahead:
    """The unpacking of one archive's members.  `close` throws away what was not claimed."""

    def __init__(self, disk: Disk, shelf: LocalShelf, limits: Limits) -> None:
        self._disk = disk
        self._shelf = shelf
        self._limits = limits
        self._cancel = Cancellation("load")
        self._pool = ThreadPoolExecutor(_PARALLEL, thread_name_prefix="load")
        self._jobs: dict[str, Future[tuple[str, Unpacked]]] = {}
        self._staged: set[str] = set()
        self._lock = threading.Lock()

    def begun(self, name: str, member: Member, head: bytes) -> None:
        """A member's first bytes are there: begin with it when it may be a new layer."""
        if member.size < _LEAST or head[257:262] != _MAGIC or len(self._jobs) >= _MOST:
            return
        digest = "sha256:" + name.rpartition("/")[2]
        if digests.valid(digest) and self._shelf.has_layer(digest):
            return
        self._jobs[member.path] = self._pool.submit(self._unpack, member)

    def _unpack(self, member: Member) -> tuple[str, Unpacked]:
        self._cancel.check()
        staged = self._disk.stage_layer()
        with self._lock:
            self._staged.add(staged)
        worker = Worker(staged, "", member.size, self._limits)
        try:
            with self._cancel.on_cancel(worker.kill):
                with suppress(WorkerGoneError):  # its report says why
                    for piece in member.pieces():
                        worker.feed(piece)
                return staged, worker.finish()
        finally:
            worker.close()

    def claim(self, member: Member, diff_id: str, cancel: Cancellation) -> bool:
        """Make the member's layer usable; False when it must be unpacked from the file.

        Raises what unpacking it raised.
        """
        job = self._jobs.get(member.path)
        if job is None or self._shelf.has_layer(diff_id):
            return False
        while not job.done():
            cancel.wait(0)
            with suppress(TimeoutError):
                job.exception(_TICK)
        staged, report = job.result()
        if report.diff_id != diff_id:
            return False  # then the usual way says what is wrong
        with self._lock:
            if staged not in self._staged:
                return False
            self._staged.discard(staged)
        self._shelf.commit_layer(diff_id, staged, report)
        return True

    def close(self) -> None:
        """End what still runs, remove what nobody claimed."""
        self._cancel.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for staged in self._staged:
            self._disk.discard(staged)
