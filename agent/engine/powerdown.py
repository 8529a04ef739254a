"""The host goes down: containers end in order, as long as there are a network and a disk.

What nobody ends is killed by the init system at the very end, after a long wait (systemd-shutdown:
SIGTERM to all, which a process 1 without a handler ignores, then 90 s until SIGKILL).  Restart
policies hold over it: a container that its policy would start again is recorded as waiting for
that, and the next agent starts it.
"""

from __future__ import annotations

import contextlib
import logging
import signal as signals_of_os

from agent.engine import signals
from agent.engine.core import Core
from agent.engine.lifecycle import live
from agent.engine.model import Container, Phase
from agent.engine.respawns import Respawns
from agent.engine.waits import NEXT_EXIT, EndWaiter
from agent.errors import EngineError
from agent.values import frozen

_log = logging.getLogger(__name__)
SIGKILL = int(signals_of_os.SIGKILL)


@frozen
class _Ending:
    container: Container
    waiter: EndWaiter
    deadline: float  # on the clock's monotonic scale


class PowerDown:
    """Ends everything once; the engine must still be open, and the API closed."""

    def __init__(self, core: Core, respawns: Respawns) -> None:
        self._core = core
        self._respawns = respawns

    def run(self, longest: float) -> None:
        """Returns when all have ended, or `longest` s (and the time to kill) are over.

        Each gets its stop signal, and until its stop timeout to follow it.
        """
        self._respawns.hold()
        found = [self._ask(one.id, longest) for one in self._core.book.all()]
        asked = [ending for ending in found if ending is not None]
        for ending in asked:
            if ending.waiter.wait(self._left(ending.deadline)) is None:
                self._signal(ending.container, SIGKILL)
        deadline = self._core.ports.clock.monotonic() + self._core.settings.kill_timeout
        for ending in asked:
            with contextlib.closing(ending.waiter):
                if ending.waiter.wait(self._left(deadline)) is None:
                    _log.error("container %s did not end", ending.container.id)

    def _left(self, deadline: float) -> float:
        return max(0.0, deadline - self._core.ports.clock.monotonic())

    def _ask(self, identity: str, longest: float) -> _Ending | None:
        core = self._core
        with core.book.lock(identity):
            container = core.book.get(identity)
            if container is None or not live(container.state.phase):
                return None
            waiter = core.waits.register(identity, NEXT_EXIT)
            self._signal(container, signals.stop_signal(container.config.stop_signal))
        patience = container.config.stop_timeout
        if patience is None:
            patience = core.settings.stop_timeout
        seconds = longest if patience < 0 else min(float(patience), longest)
        return _Ending(container, waiter, core.ports.clock.monotonic() + seconds)

    def _signal(self, container: Container, number: int) -> None:
        runtime = self._core.ports.runtime
        try:
            runtime.signal(container.id, number)
            if container.state.phase is Phase.PAUSED:
                runtime.resume(container.id)  # else it could not act on the signal
        except EngineError as error:  # it has just ended, mostly
            _log.info("container %s: %s", container.id, error.message)
