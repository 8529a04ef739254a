"""One thread that calls functions at their time: back-offs, `until` of events, forgetting execs.

No polling: the thread sleeps on a condition until the earliest entry is due.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Callable

from agent.engine.ports import Clock

_log = logging.getLogger(__name__)
# A condition's wait may not be longer than this on CPython (TIMEOUT_MAX is about 292 years on 64
# bit, but an hour costs nothing and is safe everywhere).
_LONGEST = 3600.0


class Timer:
    """One entry; `cancel` is idempotent, and too late once the function runs."""

    __slots__ = ("cancelled", "function")

    def __init__(self, function: Callable[[], None]) -> None:
        self.function = function
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Timers:
    """Calls each function once, on its own thread; functions must be short and must not raise."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="timers", daemon=True)
        self._thread.start()

    def after(self, seconds: float, function: Callable[[], None]) -> Timer:
        """Calls `function` when `seconds` of the clock's monotonic time have gone by."""
        timer = Timer(function)
        with self._changed:
            due = self._clock.monotonic() + max(seconds, 0.0)
            heapq.heappush(self._heap, (due, next(self._order), timer))
            self._changed.notify()
        return timer

    def wake(self) -> None:
        """Looks at the clock again (after an injected clock was moved)."""
        with self._changed:
            self._changed.notify()

    def close(self) -> None:
        """Ends the thread; entries that are not due are dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _loop(self) -> None:
        while (timer := self._next()) is not None:
            if not timer.cancelled:
                timer.function()

    def _next(self) -> Timer | None:
        with self._changed:
            while not self._closed:
                if not self._heap:
                    self._changed.wait()
                    continue
                left = self._heap[0][0] - self._clock.monotonic()
                if left <= 0:
                    return heapq.heappop(self._heap)[2]
                self._changed.wait(min(left, _LONGEST))
            return None
