"""Answers that go on: wait, events and pull progress as the server's streams."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable

from agent.api.backend import Subscription, Waiter, WaitResult
from agent.api.schema.events import event_document
from agent.api.schema.images import progress_line
from agent.engine.model import Progress
from agent.errors import EngineError, Kind, internal
from agent.wire import jsonlines
from agent.wire.streams import Gone


class WaitStream:
    """POST /containers/{id}/wait: nothing until the container has ended, then one document.

    The head goes out at once: the docker CLI starts the container only after it has it.
    """

    def __init__(self, waiter: Waiter) -> None:
        self._waiter = waiter
        self._sent = False

    def fileno(self) -> int:
        return self._waiter.fileno()

    def read(self) -> bytes | None:
        if self._sent:
            return b""
        result = self._waiter.result()
        if result is None:
            return None
        self._sent = True
        return wait_document(result)

    def close(self) -> None:
        self._waiter.close()


def wait_document(result: WaitResult) -> bytes:
    document: dict[str, object] = {"StatusCode": result.status_code}
    if result.error:
        document["Error"] = {"Message": result.error}
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


MAX_BATCH = 64 * 1024


class EventStream:
    """GET /events: one JSON line an event."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    def fileno(self) -> int:
        return self._subscription.fileno()

    def read(self) -> bytes | None:
        lines = bytearray()
        while len(lines) < MAX_BATCH:
            event = self._subscription.next()
            if event is None:
                break
            document = event_document(event)
            lines += json.dumps(document, separators=(",", ":")).encode() + b"\n"
        if lines:
            return bytes(lines)
        return b"" if self._subscription.done else None

    def close(self) -> None:
        self._subscription.close()


Pull = Callable[[Callable[[Progress], None], Callable[[], bool]], object]
QUEUE_LINES = 256
LOOK_AGAIN = 0.2  # seconds between looks at whether the client has gone


class PullLines:
    """A blocking pull turned inside out: an iterator of progress lines.

    The pull runs on a thread of its own, since its progress comes by callback; a full queue holds
    it back when the client reads slowly.  Its error is raised where the line would have been: the
    server makes it a status when it is the first thing said, else the stream's last line.
    """

    def __init__(self, pull: Pull, gone: Gone) -> None:
        self._pull = pull
        self._gone = gone
        self._closed = threading.Event()
        self._lines: queue.Queue[bytes | EngineError | None] = queue.Queue(QUEUE_LINES)
        self._thread: threading.Thread | None = None

    def __iter__(self) -> PullLines:
        return self

    def __next__(self) -> bytes:
        if self._closed.is_set():
            raise StopIteration
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="pull", daemon=True)
            self._thread.start()
        line = self._next_line()
        if isinstance(line, bytes):
            return line
        self._closed.set()
        if line is None:
            raise StopIteration
        if line.kind is Kind.UNAUTHORIZED:
            # It is the registry that refuses. As Docker Engine: at 401 its client would prompt.
            raise internal(line.message) from line
        raise line

    def _next_line(self) -> bytes | EngineError | None:
        while not self._cancelled():
            try:
                return self._lines.get(timeout=LOOK_AGAIN)
            except queue.Empty:
                continue
        return None

    def _cancelled(self) -> bool:
        return self._closed.is_set() or self._gone.is_set()

    def _run(self) -> None:
        # Said when the thread dies of a defect: the iterator must end, and not as a success.
        last: EngineError | None = internal("the pull failed unexpectedly (see the agent's log)")
        try:
            self._pull(self._progress, self._cancelled)
            last = None
        except EngineError as error:
            last = error
        finally:
            self._put(last)

    def _progress(self, one: Progress) -> None:
        self._put(jsonlines.encode(progress_line(one)))

    def _put(self, line: bytes | EngineError | None) -> None:
        while not self._cancelled():
            try:
                self._lines.put(line, timeout=LOOK_AGAIN)
            except queue.Full:
                continue
            return

    def close(self) -> None:
        self._closed.set()
