"""The only waiting loop of the laptop's side: a deadline, a back-off, an injected clock."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from drivers.errors import TransientError, WaitTimeoutError

T = TypeVar("T")


class Clock(Protocol):
    """Time that a test can turn."""

    def monotonic(self) -> float:
        """Seconds; only differences mean something."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""

    def wait(self, seconds: float) -> None:
        """Let so much time pass. Ctrl-C ends it at once."""


class SystemClock:
    """The real clock."""

    def __init__(self) -> None:
        self._never = threading.Event()

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> float:
        return time.time()

    def wait(self, seconds: float) -> None:
        self._never.wait(seconds)


@dataclasses.dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between attempts, in seconds: `first`, then `factor` times more, never over `most`."""

    first: float = 0.1
    factor: float = 1.6
    most: float = 3.0

    def pauses(self) -> Iterator[float]:
        pause = self.first
        while True:
            yield pause
            pause = min(pause * self.factor, self.most)


@dataclasses.dataclass(frozen=True, slots=True)
class NotYet:
    """What an attempt answers when it should be made again; `why` is shown if time runs out."""

    why: str = ""


def wait_until(
    attempt: Callable[[], T | NotYet],
    *,
    what: str,
    seconds: float,
    clock: Clock,
    backoff: Backoff = Backoff(),
) -> T:
    """Call `attempt` until it answers something other than NotYet, and return that.

    At least one attempt is made. Raises WaitTimeoutError with the last `why` after `seconds`;
    what `attempt` raises goes through: only NotYet is retried.
    """
    deadline = clock.monotonic() + seconds
    for pause in backoff.pauses():
        answer = attempt()
        if not isinstance(answer, NotYet):
            return answer
        left = deadline - clock.monotonic()
        if left <= 0:
            raise WaitTimeoutError(what, seconds, answer.why)
        clock.wait(min(pause, left))
    raise AssertionError("pauses() does not end")


RETRY_SECONDS = 120.0


def retried(
    call: Callable[[], T],
    *,
    clock: Clock,
    seconds: float = RETRY_SECONDS,
    backoff: Backoff = Backoff(first=0.5, factor=2.0, most=15.0),
) -> T:
    """`call`, again after a TransientError, until `seconds` are over; then that error is raised.

    Only for calls that may be made twice: reads, deletes, and creates with an idempotency token.
    """
    deadline = clock.monotonic() + seconds
    for pause in backoff.pauses():
        try:
            return call()
        except TransientError as err:
            wait = max(pause, err.retry_after)
            if clock.monotonic() + wait > deadline:
                raise
            clock.wait(wait)
    raise AssertionError("pauses() does not end")
