"""Stages at the same time, told one after the other.

All stages are begun in order, a few at once; one that needs an earlier one waits for it.  The
client sees what a sequential build would say: the earliest unfinished stage speaks, what the
others say is kept until it is their turn.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from agent.build.draft import Draft
from agent.engine.building import BuildOutput, Gone
from agent.engine.model import Progress
from agent.errors import EngineError, Kind

_AT_ONCE = 4
_KEPT = 100_000  # pieces of output of a stage that waits for its turn


class Turns:
    """One build's stages and their output."""

    def __init__(self, output: BuildOutput, gone: Gone, count: int) -> None:
        self._output = output
        self._gone = gone
        self._failed = threading.Event()
        self._lock = threading.Lock()
        self._turn = 0
        self._kept: list[list[Callable[[], None]]] = [[] for _ in range(count)]
        self._finished = [False] * count

    def gone(self) -> bool:
        """The client went, or another stage has failed."""
        return self._failed.is_set() or self._gone()

    def output(self, number: int) -> BuildOutput:
        return _StageOutput(self, self._output, number)

    def run(self, work: Sequence[Callable[[], Draft]]) -> Draft:
        """The last one's result.  Raises what the earliest failed stage raised."""
        if len(work) == 1:
            return work[0]()
        with ThreadPoolExecutor(min(_AT_ONCE, len(work)), thread_name_prefix="stage") as pool:
            futures = [pool.submit(self._one, number, one) for number, one in enumerate(work)]
            wait(futures)
        return _outcome(futures)

    def _one(self, number: int, work: Callable[[], Draft]) -> Draft:
        try:
            return work()
        except BaseException:
            self._failed.set()
            raise
        finally:
            self._finish(number)

    def say(self, number: int, what: Callable[[], None]) -> None:
        with self._lock:
            if number == self._turn:
                what()
                return
            kept = self._kept[number]
            kept.append(what)
            if len(kept) > _KEPT:
                del kept[: _KEPT // 2]

    def _finish(self, number: int) -> None:
        with self._lock:
            self._finished[number] = True
            while self._turn < len(self._finished) and self._finished[self._turn]:
                self._turn += 1
                if self._turn < len(self._kept):
                    for what in self._kept[self._turn]:
                        what()
                    self._kept[self._turn].clear()


def _outcome(futures: Sequence[Future[Draft]]) -> Draft:
    """A stage that was only stopped because of another's failure does not speak for the build."""
    errors = [error for one in futures if (error := one.exception()) is not None]
    for error in errors:
        if not (isinstance(error, EngineError) and error.kind is Kind.CANCELLED):
            raise error
    if errors:
        raise errors[0]
    return futures[-1].result()


class _StageOutput:
    """`BuildOutput` of one stage."""

    def __init__(self, turns: Turns, output: BuildOutput, number: int) -> None:
        self._turns = turns
        self._output = output
        self._number = number

    def stream(self, text: str) -> None:
        self._turns.say(self._number, lambda: self._output.stream(text))

    def progress(self, one: Progress) -> None:
        self._turns.say(self._number, lambda: self._output.progress(one))

    def aux(self, image_id: str) -> None:
        self._turns.say(self._number, lambda: self._output.aux(image_id))
