"""stop and kill.  The container's lock is held to send signals, never to wait for an end."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import signal as signals_of_os

from agent.engine import signals
from agent.engine.core import Core, stepped, with_state
from agent.engine.lifecycle import Happening, live
from agent.engine.model import Container, Phase
from agent.engine.respawns import Respawns
from agent.engine.restart import enabled
from agent.engine.waits import NEXT_EXIT, EndWaiter
from agent.errors import EngineError, Kind, conflict, internal

_log = logging.getLogger(__name__)
SIGKILL = int(signals_of_os.SIGKILL)


class Stopping:
    """Ends containers at a user's wish; the restart policy then leaves them alone."""

    def __init__(self, core: Core, respawns: Respawns) -> None:
        self._core = core
        self._respawns = respawns

    def stop(
        self, reference: str, *, timeout: int | None, signal: str, announce: bool = True
    ) -> bool:
        """False when it does not run.  timeout in s: None = the container's, -1 = for ever."""
        with self._core.book.locked(reference) as container:
            number = signals.stop_signal(signal or container.config.stop_signal)
            waiter = self._begin(container, number)
        if waiter is False:
            return False
        if not isinstance(waiter, bool):
            with contextlib.closing(waiter):
                self._await(container, waiter, self._patience(container, timeout))
        if announce:
            self._core.event(container, "stop")
        return True

    def kill(self, reference: str, signal: str) -> None:
        """SIGKILL waits for the end, others don't.  CONFLICT when it does not run."""
        number = signals.number(signal) if signal else SIGKILL
        with self._core.book.locked(reference) as container:
            phase = container.state.phase
            if phase is not Phase.RESTARTING and not live(phase):
                raise conflict(
                    f"Cannot kill container: {reference}: container {container.id} is not running"
                )
            if number != SIGKILL:
                self._notify(container, number)
                return
            waiter = self._begin(container, number)
        if not isinstance(waiter, bool):
            with contextlib.closing(waiter):
                self._await_kill(container, waiter)

    def _begin(self, container: Container, number: int) -> EndWaiter | bool:
        """With the lock held: sends the first signal.  False = it does not run, True = it waited
        for a restart and now stays down."""
        if container.state.phase is Phase.RESTARTING:
            self._settle(container)
            return True
        if not live(container.state.phase):
            return False
        # In memory is enough: it becomes durable with the exit, before stop is answered.
        marked = _manual(container)
        self._core.book.put(marked)
        waiter = self._core.waits.register(container.id, NEXT_EXIT)
        try:
            self._send(marked, number)
        except EngineError:
            waiter.close()
            raise
        return waiter

    def _notify(self, container: Container, number: int) -> None:
        """A kill that is not awaited; "manually stopped" must be durable before the answer."""
        if container.state.phase is Phase.RESTARTING:
            self._settle(container)
            return
        stops = {signals.stop_signal(container.config.stop_signal)}
        if number in stops or number not in signals.NOTICES:
            container = _manual(container)
            if enabled(container.host_config.restart_policy):
                self._core.save(container)
            else:
                self._core.book.put(container)
        self._send(container, number)

    def _settle(self, container: Container) -> None:
        """It waits for its restart: it now stays down."""
        self._respawns.cancel(container.id)
        state = dataclasses.replace(stepped(container, Happening.STOP), manually_stopped=True)
        self._core.save(with_state(container, state))

    def _send(self, container: Container, number: int) -> None:
        runtime = self._core.ports.runtime
        try:
            runtime.signal(container.id, number)
        except EngineError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise  # NOT_FOUND: it has just ended, its exit is on the way
        self._core.event(container, "kill", signal=str(number))
        if container.state.phase is Phase.PAUSED and number not in signals.NOTICES:
            self._thaw(container)

    def _thaw(self, container: Container) -> None:
        """A frozen process can't act on a signal (v1 freezer: not even on SIGKILL)."""
        try:
            self._core.ports.runtime.resume(container.id)
        except EngineError as error:
            _log.warning("container %s was not thawed: %s", container.id, error.message)
            return
        state = dataclasses.replace(container.state, phase=Phase.RUNNING)
        self._core.book.put(with_state(container, state))

    def _patience(self, container: Container, timeout: int | None) -> float | None:
        seconds = container.config.stop_timeout if timeout is None else timeout
        if seconds is None:
            seconds = self._core.settings.stop_timeout
        return None if seconds < 0 else float(seconds)

    def _await(self, container: Container, waiter: EndWaiter, patience: float | None) -> None:
        if waiter.wait(patience) is not None:
            return
        with self._core.book.lock(container.id):
            if waiter.result() is None:
                self._send(self._core.book.get(container.id) or container, SIGKILL)
        self._await_kill(container, waiter)

    def _await_kill(self, container: Container, waiter: EndWaiter) -> None:
        if waiter.wait(self._core.settings.kill_timeout) is None:
            raise internal(
                f"cannot stop container: {container.id}: tried to kill container, but did not"
                " receive an exit event"
            )


def _manual(container: Container) -> Container:
    state = dataclasses.replace(container.state, manually_stopped=True)
    return with_state(container, state)
