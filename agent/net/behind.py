"""Work that nobody waits for: done a little later by one thread, or at once when somebody must."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Behind:
    """A queue of late work.  Actions may raise OSError, which is logged; they never run twice."""

    def __init__(self) -> None:
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._running = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="net-behind", daemon=True)
        self._thread.start()

    def later(self, delay: float, action: Callable[[], None]) -> None:
        """Do it in `delay` seconds.  After `close`: do it now."""
        with self._changed:
            if not self._closed:
                heapq.heappush(self._queue, (time.monotonic() + delay, next(self._order), action))
                self._changed.notify()
                return
        self._perform(action)

    def flush(self) -> None:
        """Do all that is queued now, in this thread; what runs has ended on return too."""
        with self._changed:
            todo, self._queue = self._queue, []
        for _, _, action in todo:
            self._perform(action)
        with self._running:
            pass

    def close(self) -> None:
        """Do all that is queued, end the thread.  Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self.flush()

    def _run(self) -> None:
        while (action := self._next()) is not None:
            self._perform(action)

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._closed:
                wait = self._queue[0][0] - time.monotonic() if self._queue else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._queue)[2]
                self._changed.wait(wait)
        return None

    def _perform(self, action: Callable[[], None]) -> None:
        with self._running:
            try:
                action()
            except OSError as error:
                _log.warning("late network work failed: %s", error)
