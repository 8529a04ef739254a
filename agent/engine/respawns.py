"""The pending restarts: each container's timer, last back-off and how long its process has run."""

from __future__ import annotations

import threading
from collections.abc import Callable

from agent.engine.core import Core
from agent.engine.model import Container
from agent.engine.restart import Verdict, after_exit
from agent.engine.timers import Timer


class Respawns:
    """In memory only: after an agent's restart back-off begins anew."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._timers: dict[str, Timer] = {}
        self._delays: dict[str, float] = {}
        self._started: dict[str, float] = {}
        self._held = False

    def hold(self) -> None:
        """Start nothing any more: what waits goes on waiting, for the next agent."""
        with self._lock:
            self._held = True
            timers = list(self._timers.values())
            self._timers.clear()
        for timer in timers:
            timer.cancel()

    def started(self, identity: str) -> None:
        """A process of it runs from now on."""
        with self._lock:
            self._started[identity] = self._core.ports.clock.monotonic()

    def ran(self, container: Container, finished_at: int) -> float:
        """Seconds that the process ran: monotonic where this agent has started it (case 135)."""
        with self._lock:
            started = self._started.get(container.id)
        if started is not None:
            return self._core.ports.clock.monotonic() - started
        return max(finished_at - container.state.started_at, 0) / 1e9

    def verdict(self, container: Container, code: int, ran: float) -> Verdict:
        """What the policy says after an exit; remembers the back-off."""
        with self._lock:
            found = after_exit(
                container.host_config.restart_policy,
                code=code,
                manually_stopped=container.state.manually_stopped,
                restart_count=container.state.restart_count,
                ran=ran,
                last_delay=self._delays.get(container.id, 0.0),
            )
            self._delays[container.id] = found.delay
        return found

    def schedule(self, identity: str, delay: float, function: Callable[[], None]) -> None:
        """Runs `function` on a worker thread after `delay` s, unless cancelled or held before."""

        def due() -> None:
            with self._lock:
                if self._timers.get(identity) is timer:
                    del self._timers[identity]
            self._core.jobs.submit(function)

        with self._lock:
            if self._held:
                return
            timer = self._core.timers.after(delay, due)
            self._timers[identity] = timer

    def cancel(self, identity: str) -> None:
        """Drops the pending restart and the back-off."""
        with self._lock:
            timer = self._timers.pop(identity, None)
            self._delays.pop(identity, None)
        if timer is not None:
            timer.cancel()

    def forget(self, identity: str) -> None:
        self.cancel(identity)
        with self._lock:
            self._started.pop(identity, None)
