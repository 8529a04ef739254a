"""Runs the health checks of all containers: one thread for times and output, a few to start them.

It follows the containers by the engine's own events.  A check that is too slow is ended together
with its children (case 170); of its output 4 KiB are kept, the rest is read and dropped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import heapq
import itertools
import logging
import secrets
import select
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from agent.engine import healthcheck
from agent.engine.bell import Bell
from agent.engine.core import Core, with_state
from agent.engine.events import Subscriber
from agent.engine.healthcheck import Check
from agent.engine.model import Container, Event, ExecConfig, Health, HealthResult, Phase
from agent.engine.ports import ExecProcess
from agent.errors import EngineError

_log = logging.getLogger(__name__)
_STARTERS = 4
_ACTIONS = frozenset({"start", "unpause", "pause", "die", "destroy"})


@dataclass(eq=False)
class _Watched:
    """One container under watch, and its check when one is running."""

    identity: str
    run: int
    check: Check
    started: float  # monotonic
    begun: int = 0  # of the present check; ns, 0 = none
    number: int = 0  # counts the checks: what comes late of an earlier one is dropped
    process: ExecProcess | None = None
    code: int | None = None  # a quick check has ended before its start was told
    descriptor: int = -1
    output: bytearray = field(default_factory=bytearray)
    cut: bool = False


class HealthWatch:
    """`start` after recovery, `close` once."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._bell = Bell()
        self._inbox: deque[Callable[[], None]] = deque()
        self._watched: dict[str, _Watched] = {}
        self._streams: dict[int, _Watched] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._epoll = select.epoll()
        self._starters = ThreadPoolExecutor(_STARTERS, thread_name_prefix="health")
        self._events: Subscriber | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="health", daemon=True)

    def start(self) -> None:
        self._epoll.register(self._bell.fileno(), select.EPOLLIN)
        self._subscribe()
        self._thread.start()

    def close(self) -> None:
        """Checks under way are left to end by themselves."""
        if not self._thread.is_alive():
            return
        self._closed = True
        self._bell.ring()
        self._thread.join()
        self._starters.shutdown(wait=True, cancel_futures=True)
        self._epoll.close()
        self._bell.close()

    # ---------------------------------------------------------------------------------- the thread

    def _loop(self) -> None:
        while not self._closed:
            for descriptor, _ in self._epoll.poll(self._patience()):
                watched = self._streams.get(descriptor)
                if watched is not None:
                    self._drain(watched)
            self._bell.reset()
            self._take_events()
            while self._inbox:
                self._inbox.popleft()()
            while self._due and self._due[0][0] <= self._now():
                heapq.heappop(self._due)[2]()
        if self._events is not None:
            self._events.close()

    def _now(self) -> float:
        return self._core.ports.clock.monotonic()

    def _patience(self) -> float:
        if self._inbox:
            return 0
        # Looked at each minute whatever happens: clocks in tests stand still.
        return min(max(self._due[0][0] - self._now(), 0), 60) if self._due else 60

    def _tell(self, work: Callable[[], None]) -> None:
        """From another thread."""
        self._inbox.append(work)
        self._bell.ring()

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self._now() + seconds, next(self._order), work))

    # ------------------------------------------------------------------------ whom there is to watch

    def _subscribe(self) -> None:
        self._events = self._core.bus.subscribe(None, None, _is_ours)
        self._epoll.register(self._events.fileno(), select.EPOLLIN)
        for container in self._core.book.all():
            self._look(container.id)

    def _take_events(self) -> None:
        events = self._events
        if events is None:
            return
        while (event := events.next()) is not None:
            self._look(event.actor_id)
        if events.done and not self._closed:  # too slow: everything is looked at again
            self._epoll.unregister(events.fileno())
            events.close()
            self._events = None
            if not self._core.bus.closed:
                self._subscribe()

    def _look(self, identity: str) -> None:
        container = self._core.book.get(identity)
        run = self._core.book.run_of(identity)
        known = self._watched.get(identity)
        runs = container is not None and container.state.phase is Phase.RUNNING
        if known is not None and (not runs or known.run != run):
            self._forget(known)
            known = None
        if container is None or not runs or known is not None:
            return
        check = healthcheck.check_of(container.config)
        if check is None:
            return
        ago = max(self._core.ports.clock.now() - container.state.started_at, 0) / 1e9
        watched = _Watched(identity, run, check, self._now() - ago)
        self._watched[identity] = watched
        self._schedule(watched, container.state.health or Health())

    def _forget(self, watched: _Watched) -> None:
        if self._watched.get(watched.identity) is watched:
            del self._watched[watched.identity]
        self._release(watched)

    def _alive(self, watched: _Watched) -> bool:
        return self._watched.get(watched.identity) is watched

    def _schedule(self, watched: _Watched, health: Health) -> None:
        ago = self._now() - watched.started
        pause = healthcheck.pause_before(health, watched.check, started_ago=ago)
        self._later(pause, functools.partial(self._begin, watched))

    # ------------------------------------------------------------------------------------ one check

    def _begin(self, watched: _Watched) -> None:
        if not self._alive(watched):
            return
        watched.number += 1
        watched.begun = self._core.ports.clock.now()
        watched.output.clear()
        watched.code = None
        watched.cut = False
        number = watched.number
        self._later(watched.check.timeout, lambda: self._too_slow(watched, number))
        with contextlib.suppress(RuntimeError):  # being closed
            self._starters.submit(self._start, watched, number)

    def _start(self, watched: _Watched, number: int) -> None:
        """On a starter's thread: it takes the OCI runtime some 20 ms."""
        core = self._core
        container = core.book.get(watched.identity)
        if container is None:
            return
        exec_id = secrets.token_hex(32)
        words = " ".join(watched.check.command)
        config = ExecConfig(
            cmd=watched.check.command,
            attach_stdout=True,
            attach_stderr=True,
            user=container.config.user,
        )
        core.event(container, f"exec_create: {words}", execID=exec_id)

        def ended(code: int) -> None:
            self._tell(lambda: self._ended(watched, number, code))
            core.event(container, "exec_die", execID=exec_id, exitCode=str(code))

        try:
            process = core.ports.runtime.exec(
                container, config, exec_id, detach=False, on_exit=ended
            )
        except EngineError as error:
            text = error.message
            self._tell(lambda: self._finish(watched, number, -1, text))
            return
        core.event(container, f"exec_start: {words}", execID=exec_id)
        self._tell(lambda: self._started(watched, number, process))

    def _started(self, watched: _Watched, number: int, process: ExecProcess) -> None:
        stream = process.stream()
        if not self._alive(watched) or watched.number != number or not watched.begun:
            self._end(watched.identity, process)
            return
        watched.process = process
        if stream is not None:
            watched.descriptor = stream.fileno()
            self._streams[watched.descriptor] = watched
            self._epoll.register(watched.descriptor, select.EPOLLIN)
        if watched.code is not None:
            self._ended(watched, number, watched.code)

    def _drain(self, watched: _Watched) -> None:
        stream = watched.process.stream() if watched.process else None
        if stream is None:
            return
        # A few pieces at a time: a check that floods must not keep the others waiting.
        for _ in range(16):
            pieces = stream.read()
            if pieces is None:
                return
            if not pieces:
                self._unregister(watched)
                return
            for _, data in pieces:
                room = healthcheck.OUTPUT - len(watched.output)
                watched.output += data[:room]
                watched.cut = watched.cut or len(data) > room

    def _ended(self, watched: _Watched, number: int, code: int) -> None:
        if watched.number != number or not watched.begun:
            return
        if watched.process is None:
            watched.code = code  # its output is not in our hands yet
            return
        self._drain(watched)
        self._finish(watched, number, code, None)

    def _too_slow(self, watched: _Watched, number: int) -> None:
        if self._alive(watched) and watched.number == number and watched.begun:
            self._drain(watched)
            process = watched.process
            said = _text(watched)
            text = f"Health check exceeded timeout ({_duration(watched.check.timeout)})"
            text += f": {said}" if said else ""
            watched.process = None  # `_end` closes its stream
            self._unregister(watched)
            if process is not None:
                self._end(watched.identity, process)
            self._finish(watched, number, -1, text)

    def _end(self, identity: str, process: ExecProcess) -> None:
        """Kills it and its children, on a starter's thread."""

        def work() -> None:
            try:
                self._core.ports.inside.end_exec(identity, process.pid)
            except (EngineError, OSError) as error:
                _log.warning("a health check of %s was not ended: %s", identity, error)
            stream = process.stream()
            if stream is not None:
                stream.close()

        with contextlib.suppress(RuntimeError):
            self._starters.submit(work)

    def _finish(self, watched: _Watched, number: int, code: int, text: str | None) -> None:
        if watched.number != number or not watched.begun:
            return
        result = HealthResult(
            watched.begun,
            self._core.ports.clock.now(),
            code,
            _text(watched) if text is None else text,
        )
        self._release(watched)
        watched.begun = 0
        if self._alive(watched):
            health = self._record(watched, result)
            if health is not None:
                self._schedule(watched, health)

    def _record(self, watched: _Watched, result: HealthResult) -> Health | None:
        core = self._core
        with core.book.lock(watched.identity):
            container = core.book.get(watched.identity)
            if container is None or core.book.run_of(watched.identity) != watched.run:
                return None
            if container.state.phase is not Phase.RUNNING:
                return None
            before = container.state.health or Health()
            health = healthcheck.after(before, watched.check, result, container.state.started_at)
            updated = with_state(container, dataclasses.replace(container.state, health=health))
            self._keep(updated, durable=health.status != before.status)
        if health.status != before.status:
            core.event(updated, f"health_status: {health.status}")
        return health

    def _keep(self, container: Container, *, durable: bool) -> None:
        """Only a change of the status is worth a commit."""
        if durable:
            try:
                self._core.save(container)
            except EngineError as error:
                _log.error("the health of %s was not recorded: %s", container.id, error.message)
            else:
                return
        self._core.book.put(container)

    def _unregister(self, watched: _Watched) -> None:
        if watched.descriptor >= 0:
            self._streams.pop(watched.descriptor, None)
            with contextlib.suppress(OSError, ValueError):
                self._epoll.unregister(watched.descriptor)
            watched.descriptor = -1

    def _release(self, watched: _Watched) -> None:
        self._unregister(watched)
        process, watched.process = watched.process, None
        stream = process.stream() if process is not None else None
        if stream is not None:
            stream.close()


def _is_ours(event: Event) -> bool:
    return event.type == "container" and event.action in _ACTIONS


def _text(watched: _Watched) -> str:
    shown = bytes(watched.output).decode("utf-8", "replace")
    return f"{shown}..." if watched.cut else shown


def _duration(seconds: float) -> str:
    """As Go prints one: "500ms", "1.5s", "1m30s"."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{rest:g}s"
