"""The event bus: the last events for `since`, and a bounded queue for each subscriber."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from agent.engine.bell import Bell
from agent.engine.model import Event
from agent.engine.ports import Clock
from agent.engine.timers import Timer, Timers

REMEMBERED: Final = 2048
QUEUE: Final = 1024


class Subscriber:
    """`agent.api.backend.Subscription`.

    `done` becomes true when all that will ever come has been taken: `until` was reached, or the
    subscriber was slower than QUEUE events and was dropped (its stream then ends early).
    """

    def __init__(
        self, bus: Bus, matches: Callable[[Event], bool], since: int | None, until: int | None
    ) -> None:
        self._bus = bus
        self._matches = matches
        self._since = since
        self._until = until
        self._queue: deque[Event] = deque()
        self._bell = Bell()
        self._ended = False
        self.timer: Timer | None = None

    @property
    def done(self) -> bool:
        return self._ended and not self._queue

    def fileno(self) -> int:
        return self._bell.fileno()

    def next(self) -> Event | None:
        if not self._queue:
            self._bell.reset()
        try:
            return self._queue.popleft()
        except IndexError:
            return None

    def close(self) -> None:
        self._bus.drop(self)
        if self.timer is not None:
            self.timer.cancel()
        self._bell.close()

    def offer(self, event: Event) -> None:
        """Called by the bus, under its lock."""
        if self._ended or (self._since is not None and event.time_ns < self._since):
            return
        if self._until is not None and event.time_ns > self._until:
            self.end()
        elif len(self._queue) >= QUEUE:
            self._queue.clear()
            self.end()
        elif self._matches(event):
            self._queue.append(event)
            self._bell.ring()

    def end(self) -> None:
        self._ended = True
        self._bell.ring()


class Bus:
    """Publishes in order; never blocks on a subscriber."""

    def __init__(self, clock: Clock, timers: Timers) -> None:
        self._clock = clock
        self._timers = timers
        self._lock = threading.Lock()
        self._past: deque[Event] = deque(maxlen=REMEMBERED)
        self._subscribers: list[Subscriber] = []
        self._last = 0
        self.closed = False

    def publish(self, kind: str, action: str, actor: str, attributes: Mapping[str, str]) -> None:
        with self._lock:
            # Order is promised: a clock that jumps back must not mix up `since` (case 135).
            self._last = max(self._clock.now(), self._last + 1)
            event = Event(kind, action, actor, attributes, self._last)
            self._past.append(event)
            for subscriber in tuple(self._subscribers):
                subscriber.offer(event)

    def subscribe(
        self, since: int | None, until: int | None, matches: Callable[[Event], bool]
    ) -> Subscriber:
        """since None = only what comes; else what is remembered from then on comes first."""
        found = Subscriber(self, matches, since, until)
        with self._lock:
            for event in self._past if since is not None else ():
                found.offer(event)
            self._subscribers.append(found)
        if until is not None:
            left = (until - self._clock.now()) / 1e9
            if left <= 0:
                found.end()
            else:
                found.timer = self._timers.after(left, found.end)
        return found

    def drop(self, subscriber: Subscriber) -> None:
        with self._lock:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

    def close(self) -> None:
        """Ends every subscription."""
        self.closed = True
        with self._lock:
            for subscriber in self._subscribers:
                subscriber.end()
