"""What a long command shows: plain lines as docker-machine's, or a live line on a terminal."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Protocol

from machine.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status


# Set while one of several machines is worked on: its lines then carry its name.
SUBJECT: contextvars.ContextVar[str] = contextvars.ContextVar("machine", default="")


def _named(text: str) -> str:
    subject = SUBJECT.get()
    return f"({subject}) {text}" if subject and not text.startswith("(") else text


class Progress(Protocol):
    """May be used from several threads."""

    def phase(self, text: str) -> None:
        """A new step begins, and the one before it has ended."""

    def note(self, text: str) -> None:
        """A line that stays."""

    def close(self) -> None:
        """The last step has ended, well or not."""


class StepTimes:
    """Where the time of a long command went, in one line."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._began = self._last = monotonic()
        self._took: list[tuple[str, float]] = []

    def ended(self, what: str) -> None:
        """The step `what` took all the time since the one before it."""
        now = self._monotonic()
        self._took.append((what, now - self._last))
        self._last = now

    def line(self) -> str:
        steps = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in self._took)
        return f"{self._last - self._began:.1f} s: {steps}"


class PlainProgress:
    """One line a step."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._lock = threading.Lock()

    def phase(self, text: str) -> None:
        self.note(text)

    def note(self, text: str) -> None:
        with self._lock:
            print(printable(_named(text)), file=self._out, flush=True)

    def close(self) -> None:
        """Nothing is open."""


class LiveProgress:
    """The running step with a spinner; each ended one with its time."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._status: Status | None = None
        self._text = ""
        self._began = 0.0

    def phase(self, text: str) -> None:
        if SUBJECT.get():  # several at once: one live line would show the wrong one
            self.note(text)
            return
        with self._lock:
            self._end()
            self._text, self._began = printable(text), time.monotonic()
            self._status = self._console.status(self._text)
            self._status.start()

    def note(self, text: str) -> None:
        with self._lock:
            self._console.print(printable(_named(text)), markup=False, highlight=False)

    def close(self) -> None:
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._status is None:
            return
        self._status.stop()
        self._status = None
        took = time.monotonic() - self._began
        self._console.print(f"{self._text} [dim]{took:.1f} s[/dim]", highlight=False)


def make_progress(out: IO[str], *, live: bool) -> Progress:
    """The live kind only on a terminal that can move its cursor."""
    if not live:
        return PlainProgress(out)
    from rich.console import Console

    console = Console(file=out)
    return (
        LiveProgress(console)
        if console.is_terminal and not console.is_dumb_terminal
        else PlainProgress(out)
    )
