"""Who waits for a container's end: API waiters (an eventfd) and threads of the engine."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Final

from agent.api.backend import WaitResult
from agent.engine.bell import Bell
from agent.errors import invalid

NOT_RUNNING: Final = "not-running"
NEXT_EXIT: Final = "next-exit"
REMOVED: Final = "removed"
CONDITIONS: Final = frozenset({NOT_RUNNING, NEXT_EXIT, REMOVED})


class EndWaiter:
    """`agent.api.backend.Waiter`, and for threads `wait`.  Told once; the result stays."""

    def __init__(self, waits: Waits, identity: str, condition: str) -> None:
        self._waits = waits
        self._identity = identity
        self.condition = condition
        self._bell = Bell()
        self._told = threading.Event()
        self._result: WaitResult | None = None

    def fileno(self) -> int:
        return self._bell.fileno()

    def result(self) -> WaitResult | None:
        return self._result

    def wait(self, timeout: float | None) -> WaitResult | None:
        """Blocks up to `timeout` s (None = for ever); None when the time is over."""
        self._told.wait(timeout)
        return self._result

    def tell(self, result: WaitResult) -> None:
        if not self._told.is_set():
            self._result = result
            self._told.set()
            self._bell.ring()

    def close(self) -> None:
        self._waits.drop(self._identity, self)
        self._bell.close()


class Waits:
    """The waiters of all containers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, list[EndWaiter]] = {}

    def register(self, identity: str, condition: str) -> EndWaiter:
        """Call with the container's lock held, so that no exit slips between look and wait."""
        if condition not in CONDITIONS:
            raise invalid(f'invalid condition: "{condition}"')
        waiter = EndWaiter(self, identity, condition)
        with self._lock:
            self._waiting.setdefault(identity, []).append(waiter)
        return waiter

    def exited(self, identity: str, result: WaitResult) -> None:
        """An exit fulfils every condition but "removed"."""
        with self._lock:
            waiting = self._waiting.pop(identity, [])
            staying = [one for one in waiting if one.condition == REMOVED]
            if staying:
                self._waiting[identity] = staying
        _tell((one for one in waiting if one.condition != REMOVED), result)

    def removed(self, identity: str, result: WaitResult) -> None:
        """A removal fulfils all."""
        with self._lock:
            waiting = self._waiting.pop(identity, [])
        _tell(waiting, result)

    def drop(self, identity: str, waiter: EndWaiter) -> None:
        with self._lock:
            waiting = self._waiting.get(identity, [])
            if waiter in waiting:
                waiting.remove(waiter)
            if not waiting:
                self._waiting.pop(identity, None)


def _tell(waiters: Iterable[EndWaiter], result: WaitResult) -> None:
    for one in waiters:
        one.tell(result)
