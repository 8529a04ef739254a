"""Cancelling blocking work from another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent.errors import cancelled


class Cancellation:
    """A flag that also ends what blocks: sockets are shut down, workers killed, waits cut short.

    `cancel` may be called from any thread, more than once.
    """

    def __init__(self, what: str = "pull") -> None:
        self._what = what
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._actions: dict[int, Callable[[], None]] = {}
        self._next = 0

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    def cancel(self) -> None:
        """Request, and run what `on_cancel` holds now."""
        with self._lock:
            self._event.set()
            actions = list(self._actions.values())
        for action in actions:
            action()

    def check(self) -> None:
        """Raise CANCELLED once requested."""
        if self._event.is_set():
            raise cancelled(f"{self._what} was cancelled")

    def wait(self, seconds: float) -> None:
        """Wait this long; CANCELLED as soon as it is requested."""
        self._event.wait(seconds)
        self.check()

    @contextmanager
    def on_cancel(self, action: Callable[[], None]) -> Iterator[None]:
        """Have `action` (quick, never raising) run on `cancel` while the block runs."""
        with self._lock:
            self._next += 1
            key = self._next
            self._actions[key] = action
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._actions.pop(key, None)
