"""Layer jobs: download and unpack at once, several at a time, each layer only once.

A job belongs to everybody who waits for its layer: fifty clients pulling one image share one
download, and it is cancelled when the last of them has gone (security.md case 37).
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from agent.engine.model import Progress
from agent.errors import EngineError, Kind, internal
from agent.images import digest as digests
from agent.images import partial
from agent.images.cancel import Cancellation
from agent.images.disk import Disk
from agent.images.manifest import Descriptor
from agent.images.partial import Partial
from agent.images.registry import DigestMismatchError
from agent.images.settings import Limits
from agent.images.workerpool import Unpacked, Worker, WorkerGoneError
from agent.values import frozen

_REPORT_EVERY = 0.1  # seconds between progress lines of a layer, as docker does
_NOT_RESUMED = frozenset({Kind.INVALID, Kind.DATA_LOSS, Kind.NO_SPACE})
_RESTARTS = 2  # whole downloads, when resuming may have mixed two versions of a blob

# The last: what an earlier try has kept of the blob, for those that can go on with it.
Fetch = Callable[[Descriptor, Callable[[bytes], None], Cancellation, Partial | None], None]
Listener = Callable[[Progress], None]


class LayerShelf(Protocol):
    """Where finished layers go (any thread)."""

    def has_layer(self, diff_id: str) -> bool: ...

    def commit_layer(self, diff_id: str, staged: str, report: Unpacked) -> None:
        """Make a verified layer usable; takes over (or removes) the staged folder."""
        ...


@frozen
class LayerTask:
    """One layer to get: its identity, its blob, and how to download it."""

    diff_id: str
    blob: Descriptor
    fetch: Fetch
    resumes: bool = False  # `fetch` takes what is kept of the blob


class LayerJob:
    """One download and unpack.  `done` is set last."""

    def __init__(self, task: LayerTask) -> None:
        self.task = task
        self.cancel = Cancellation()
        self.done = threading.Event()
        # Replaced by a better one, or by None on success only.
        self.error: EngineError | None = internal("failed to register layer")
        self._listeners: set[Listener] = set()
        self._lock = threading.Lock()
        self._said: Progress | None = None
        self._last = 0.0

    def join(self, listener: Listener) -> bool:
        """Share it; False when it was just given up."""
        with self._lock:
            if self.cancel.requested:
                return False
            self._listeners.add(listener)
            if self._said is not None:
                listener(self._said)
        return True

    def leave(self, listener: Listener) -> None:
        """The last to leave an unfinished job cancels it."""
        with self._lock:
            self._listeners.discard(listener)
            abandoned = not self._listeners and not self.done.is_set()
        if abandoned:
            self.cancel.cancel()

    def say(self, status: str, current: int | None = None, total: int | None = None) -> None:
        """A progress line to everybody; byte counts at most ten times a second."""
        now = time.monotonic()
        if current is not None and current != total and now - self._last < _REPORT_EVERY:
            return
        self._last = now
        line = Progress(status, digests.short(self.task.blob.digest), current, total)
        with self._lock:
            self._said = line
            listeners = list(self._listeners)
        for listener in listeners:
            listener(line)


class LayerJobs:
    """All jobs of one store."""

    def __init__(self, disk: Disk, shelf: LayerShelf, limits: Limits, parallel: int) -> None:
        self._disk = disk
        self._limits = limits
        self._slots = threading.Semaphore(parallel)
        self._shelf = shelf
        self._jobs: dict[str, LayerJob] = {}
        self._lock = threading.Lock()

    def get(self, task: LayerTask, listener: Listener) -> tuple[LayerJob, bool]:
        """The job for a layer, with `listener` joined; True when it was started by this call."""
        with self._lock:
            job = self._jobs.get(task.diff_id)
            if job is not None and job.join(listener):
                return job, False
            job = LayerJob(task)
            job.join(listener)
            self._jobs[task.diff_id] = job
        name = f"layer-{digests.short(task.diff_id)}"
        threading.Thread(target=self._run, args=(job,), name=name, daemon=True).start()
        return job, True

    def _run(self, job: LayerJob) -> None:
        try:
            self._take_slot(job)
            try:
                self._work(job)
                job.error = None
            finally:
                self._slots.release()
        except EngineError as error:
            job.error = error
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            job.error = EngineError(
                Kind.NO_SPACE if full else Kind.INTERNAL,
                f"failed to register layer: {error.strerror or error}",
            )
        finally:
            with self._lock:
                if self._jobs.get(job.task.diff_id) is job:
                    del self._jobs[job.task.diff_id]
            job.done.set()

    def _take_slot(self, job: LayerJob) -> None:
        if self._slots.acquire(blocking=False):
            return
        job.say("Waiting")
        while not self._slots.acquire(timeout=0.2):
            job.cancel.check()

    def _work(self, job: LayerJob) -> None:
        if self._shelf.has_layer(job.task.diff_id):
            # A job for it ended between the caller's look and this one's start.
            job.say("Pull complete")
            return
        for attempt in range(1, _RESTARTS + 1):
            try:
                self._once(job)
            except DigestMismatchError as error:
                if not error.resumed or attempt == _RESTARTS:
                    raise error.refused() from error
            else:
                return

    def _once(self, job: LayerJob) -> None:
        task = job.task
        job.cancel.check()
        staged = self._disk.stage_layer()
        try:
            worker = Worker(staged, task.diff_id, task.blob.size, self._limits)
            try:
                with job.cancel.on_cancel(worker.kill):
                    report = self._feed(job, worker)
            finally:
                worker.close()
            job.cancel.check()
            self._shelf.commit_layer(task.diff_id, staged, report)
        except BaseException:
            self._disk.discard(staged)
            raise
        job.say("Pull complete")

    def _feed(self, job: LayerJob, worker: Worker) -> Unpacked:
        kept = None
        if job.task.resumes:
            kept = partial.opened(self._disk.partial, job.task.blob, self._limits)
        try:
            report = self._fed(job, worker, kept)
        except EngineError as error:
            if kept is not None and error.kind in _NOT_RESUMED:
                kept.drop()
                if kept.used:  # those bytes may be to blame: once more without them
                    raise DigestMismatchError(job.task.blob.digest, resumed=True) from error
            raise
        finally:
            if kept is not None:
                kept.close()
        return report

    def _fed(self, job: LayerJob, worker: Worker, kept: Partial | None) -> Unpacked:
        total = job.task.blob.size
        fed = 0

        def sink(piece: bytes) -> None:
            nonlocal fed
            worker.feed(piece)
            fed += len(piece)
            job.say("Downloading", fed, total)

        with suppress(WorkerGoneError):  # then its report says why
            job.task.fetch(job.task.blob, sink, job.cancel, kept)
            job.say("Verifying Checksum")
            job.say("Download complete")
            job.say("Extracting", total, total)
        try:
            report = worker.finish()
        except EngineError:
            job.cancel.check()
            raise
        if kept is not None:
            kept.drop()
        return report
