"""Removing containers.

The record goes first, in one commit with the intent to clean up; so a crash leaves the container
wholly gone, and what is left of it is removed at the next start, or by the sweep when a step
failed (a busy mount).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping

from agent.api.backend import WaitResult
from agent.engine import imagemounts
from agent.engine.core import Core, stepped
from agent.engine.execs import Execs
from agent.engine.lifecycle import Happening, live
from agent.engine.model import Container, Phase
from agent.engine.respawns import Respawns
from agent.engine.stopping import Stopping
from agent.errors import EngineError, Kind, conflict

_log = logging.getLogger(__name__)
_ATTEMPTS = 3


class Removal:
    """`remove` for users, `remove_locked` for --rm, `redo` for what was left over."""

    def __init__(self, core: Core, respawns: Respawns, execs: Execs, stopping: Stopping) -> None:
        self._core = core
        self._respawns = respawns
        self._execs = execs
        self._stopping = stopping
        self._lock = threading.Lock()
        self._unfinished: dict[int, tuple[str, Mapping[str, str]]] = {}

    def remove(self, reference: str, *, force: bool, volumes: bool) -> None:
        """CONFLICT with docker's text when it runs and `force` is not given."""
        identity = self._core.book.find(reference).id
        for _ in range(_ATTEMPTS):
            with self._core.book.lock(identity):
                container = self._core.book.get(identity)
                if container is None:
                    return  # --rm, or another remove, was faster
                if not _busy(container):
                    self.remove_locked(container, volumes=volumes)
                    return
                if not force:
                    stepped(container, Happening.REMOVE)  # raises
            self._end(identity)
        raise conflict(f"container {identity} is started again and again, it cannot be removed")

    def _end(self, identity: str) -> None:
        try:
            self._stopping.kill(identity, "KILL")
        except EngineError as error:
            # It ended by itself between look and kill.
            if error.kind not in {Kind.CONFLICT, Kind.NOT_FOUND}:
                raise

    def remove_locked(self, container: Container, *, volumes: bool) -> None:
        """With the lock held, of a container that does not run."""
        core, identity = self._core, container.id
        self._respawns.forget(identity)
        names = [one.name for one in container.mounts if one.anonymous] if volumes else []
        detail = {"volumes": ",".join(names)}
        pinned = imagemounts.snapshots(identity, container.mounts)
        if pinned:
            detail["snapshots"] = ",".join(pinned)
        row = core.ports.records.retire(identity, detail)
        core.book.discard(identity)
        core.claims.drop(identity)
        self._execs.forget(identity)
        self._clean(row, identity, detail)
        core.event(container, "destroy")
        core.attachments.end(identity)
        # no error here, as in docker: whoever started it has had it, and would print it twice
        core.waits.removed(identity, WaitResult(container.state.exit_code))

    def redo(self, row: int, identity: str, detail: Mapping[str, str]) -> None:
        """A "remove" intent that a dead agent left."""
        self._clean(row, identity, detail)

    def sweep(self) -> None:
        """Tries again what failed."""
        with self._lock:
            unfinished, self._unfinished = self._unfinished, {}
        for row, (identity, detail) in unfinished.items():
            self._clean(row, identity, detail)

    def _clean(self, row: int, identity: str, detail: Mapping[str, str]) -> None:
        ports = self._core.ports
        steps: list[Callable[[], None]] = [
            lambda: ports.runtime.delete(identity),
            lambda: ports.runtime.remove_logs(identity),
            lambda: self._remove_snapshots([identity, *names_in(detail, "snapshots")]),
            lambda: self._core.files.remove(identity),
            lambda: self._remove_volumes(names_in(detail)),
        ]
        failed = [step for step in steps if not _done(step, identity)]  # each is tried
        if not failed:
            ports.records.end(row)
            return
        with self._lock:
            self._unfinished[row] = (identity, detail)

    def _remove_snapshots(self, names: Iterable[str]) -> None:
        for name in names:
            self._core.ports.snapshots.remove(name)

    def _remove_volumes(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                self._core.claims.leave(name)
            except EngineError:
                continue  # another container has mounted it by its name
            try:
                self._core.ports.volumes.remove(name)
            finally:
                self._core.claims.left(name)
            self._core.bus.publish("volume", "destroy", name, {"driver": "local"})


def names_in(detail: Mapping[str, str], what: str = "volumes") -> list[str]:
    """The volumes, or snapshots, of an intent."""
    return [one for one in detail.get(what, "").split(",") if one]


def _busy(container: Container) -> bool:
    return live(container.state.phase) or container.state.phase is Phase.RESTARTING


def _done(step: Callable[[], None], identity: str) -> bool:
    try:
        step()
    except (EngineError, OSError) as error:
        _log.warning("container %s is not wholly removed yet: %s", identity, error)
        return False
    return True
