"""What happens when a container's init ends.

Order: network given back, state durable, waiters told, and only then the runtime's leftovers
deleted: the exit file among them is what a crash in between is recovered from.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import threading
from collections.abc import Iterator

from agent.api.backend import WaitResult
from agent.engine import healthcheck
from agent.engine.core import Core, stepped, with_state
from agent.engine.lifecycle import Happening, live
from agent.engine.model import Container
from agent.engine.ports import Exit
from agent.engine.removal import Removal
from agent.engine.respawns import Respawns
from agent.engine.starting import Starting
from agent.errors import EngineError

_log = logging.getLogger(__name__)


class Exits:
    """`on_exit` is the runtime's callback."""

    def __init__(
        self, core: Core, respawns: Respawns, starting: Starting, removal: Removal
    ) -> None:
        self._core = core
        self._respawns = respawns
        self._starting = starting
        self._removal = removal
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}

    def on_exit(self, ended: Exit) -> None:
        """From the runtime's watcher thread: only hands over."""
        run = self._core.book.run_of(ended.container_id)
        self._core.jobs.submit(functools.partial(self.handle, ended, run))

    def handle(self, ended: Exit, run: int) -> None:
        """Blocks while the container is being started; ignores the end of an earlier run."""
        identity = ended.container_id
        with self._core.book.lock(identity):
            container = self._core.book.get(identity)
            if container is not None and self._core.book.run_of(identity) != run:
                return
            if container is None or not live(container.state.phase):
                self._delete(identity)
                if container is None:  # a build's: it has a waiter, but no record
                    self._core.waits.exited(identity, WaitResult(ended.code, ended.error))
                return
            self.finish(container, ended)

    @contextlib.contextmanager
    def kept(self, identity: str) -> Iterator[None]:
        """While inside, an exit does not remove a --rm container (`docker restart`)."""
        with self._lock:
            self._held[identity] = self._held.get(identity, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self._held[identity] -= 1
                if not self._held[identity]:
                    del self._held[identity]

    def finish(self, container: Container, ended: Exit) -> None:
        """With the lock held: a running container has ended."""
        core, identity = self._core, container.id
        finished_at = ended.finished_at or core.ports.clock.now()
        ran = self._respawns.ran(container, finished_at)
        verdict = self._respawns.verdict(container, ended.code, ran)
        happening = Happening.EXIT_RESPAWN if verdict.restart else Happening.EXIT
        after = with_state(
            container,
            dataclasses.replace(
                stepped(container, happening),
                pid=0,
                exit_code=ended.code,
                error=ended.error,
                oom_killed=ended.oom_killed,
                finished_at=max(finished_at, container.state.started_at),
                restart_count=container.state.restart_count + verdict.restart,
                endpoints=(),
                health=healthcheck.ended(container.state.health),
            ),
        )
        self._release(container)
        core.held_volumes.drop(identity)
        removing = container.host_config.auto_remove and identity not in self._held
        self._record(after, durable=not removing)
        self._announce(container, after, ran)
        core.waits.exited(identity, WaitResult(ended.code, ended.error))
        if removing:
            self._removal.remove_locked(after, volumes=True)
            return
        self._delete(identity)
        if verdict.restart:
            self.respawn_after(identity, verdict.delay)

    def respawn_after(self, identity: str, delay: float) -> None:
        """Starts a RESTARTING container after `delay` s."""
        self._respawns.schedule(
            identity, delay, functools.partial(self._starting.respawn, identity)
        )

    def _record(self, after: Container, *, durable: bool) -> None:
        """What the kernel says holds even when the disk is full: a later save brings it there."""
        if durable:
            try:
                self._core.ports.records.save(after)
            except EngineError as error:
                _log.error("the end of %s was not recorded: %s", after.id, error.message)
        self._core.book.put(after)

    def _release(self, container: Container) -> None:
        self._core.ports.network.silence_names(container.id)
        for endpoint in container.state.endpoints:
            try:
                self._core.ports.network.release(container.id, endpoint)
            except (EngineError, OSError) as error:
                _log.error("the network of %s was not released: %s", container.id, error)

    def _delete(self, identity: str) -> None:
        try:
            self._core.ports.runtime.delete(identity)
        except (EngineError, OSError) as error:
            _log.error("container %s was not cleaned up: %s", identity, error)

    def _announce(self, before: Container, after: Container, ran: float) -> None:
        core = self._core
        if after.state.oom_killed:
            core.event(after, "oom")
        core.event(
            after, "die", exitCode=str(after.state.exit_code), execDuration=str(int(max(ran, 0)))
        )
        for mount in after.mounts:
            if mount.type == "volume":
                attributes = {"container": after.id, "driver": mount.driver}
                core.bus.publish("volume", "unmount", mount.name, attributes)
        for endpoint in before.state.endpoints:
            attributes = {"container": after.id, "name": endpoint.network, "type": endpoint.driver}
            core.bus.publish("network", "disconnect", endpoint.network_id, attributes)
