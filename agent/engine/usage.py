"""What containers use: top and stats.  One tick a second samples each watched container once."""

from __future__ import annotations

import threading
from collections.abc import Callable

from agent.engine.bell import Bell
from agent.engine.core import Core
from agent.engine.inside import Process, Sample
from agent.engine.lifecycle import live
from agent.engine.model import Container, Phase
from agent.errors import EngineError, Kind, conflict

INTERVAL = 1.0  # seconds between samples
Moment = tuple[Container, Sample | None]


class Feed:
    """`agent.api.backend.SampleFeed`.  Keeps the latest sample only: a slow reader misses some."""

    def __init__(self, identity: str, forget: Callable[[Feed], None]) -> None:
        self.identity = identity
        self._forget = forget
        self._bell = Bell()
        self._lock = threading.Lock()
        self._latest: Moment | None = None

    def fileno(self) -> int:
        return self._bell.fileno()

    def put(self, moment: Moment) -> None:
        with self._lock:
            self._latest = moment
        self._bell.ring()

    def next(self) -> Moment | None:
        self._bell.reset()
        with self._lock:
            found, self._latest = self._latest, None
        return found

    def close(self) -> None:
        self._forget(self)
        self._bell.close()


class Usage:
    """`agent.api.backend.Usage`"""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._feeds: set[Feed] = set()
        self._ticking = False

    def processes(self, reference: str) -> tuple[int, list[Process]]:
        container = self._core.book.find(reference)
        if not live(container.state.phase):
            if container.state.phase is Phase.RESTARTING:
                raise conflict(f"Container {container.id} is restarting, wait until it is running")
            raise conflict(f"container {container.id} is not running")
        found = self._core.ports.inside.processes(container.id)
        self._core.event(container, "top")
        return container.state.pid, found

    def sample(self, reference: str) -> Moment:
        return self._look(self._core.book.find(reference))

    def samples(self, reference: str) -> Feed:
        """The first one is there at once."""
        container = self._core.book.find(reference)
        feed = Feed(container.id, self._forget)
        feed.put(self._look(container))
        with self._lock:
            self._feeds.add(feed)
            begin, self._ticking = not self._ticking, True
        if begin:
            self._later()
        return feed

    def _look(self, container: Container) -> Moment:
        if not live(container.state.phase):
            return container, None
        try:
            return container, self._core.ports.inside.sample(container.id)
        except EngineError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            return container, None  # it has just ended

    def _forget(self, feed: Feed) -> None:
        with self._lock:
            self._feeds.discard(feed)

    def _later(self) -> None:
        self._core.timers.after(INTERVAL, lambda: self._core.jobs.submit(self._tick))

    def _tick(self) -> None:
        with self._lock:
            feeds = list(self._feeds)
            self._ticking = bool(feeds)
        if not feeds:
            return
        self._later()
        moments: dict[str, Moment | None] = {}
        for feed in feeds:
            if feed.identity not in moments:
                container = self._core.book.get(feed.identity)
                moments[feed.identity] = self._look(container) if container else None
            moment = moments[feed.identity]
            if moment is not None:
                feed.put(moment)
