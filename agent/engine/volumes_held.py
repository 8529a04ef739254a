"""Volumes with options are mounted while someone uses them: who does, and the first and the last.

Nothing of this is stored: after a restart of the agent the running containers say it again, and the
volume driver asks the kernel what is mounted.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections.abc import Iterable, Iterator

from agent.engine.model import Container, MountPoint
from agent.engine.ports import Volumes
from agent.errors import EngineError

_log = logging.getLogger(__name__)


class _Turn:
    """A volume that is being mounted or released, or about to be, by `wanted` threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.wanted = 0


class HeldVolumes:
    """Threads may share it.  A first use waits for the same volume's last one, for no other's: an
    NFS server that does not answer holds up those who want it."""

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes
        self._lock = threading.Lock()  # of the two tables
        self._users: dict[str, set[str]] = {}
        self._turns: dict[str, _Turn] = {}

    def hold(self, user: str, mounts: Iterable[MountPoint]) -> None:
        """All or none.  Raises what `Volumes.mount` raises."""
        names = sorted({one.name for one in mounts if one.type == "volume"})
        try:
            for name in names:
                with self._turn(name):
                    if not self._used(name):
                        self._volumes.mount(name)
                    with self._lock:
                        self._users.setdefault(name, set()).add(user)
        except BaseException:
            self.drop(user)
            raise

    def drop(self, user: str) -> None:
        """Idempotent.  A volume that can't be unmounted is logged, and mounted still."""
        with self._lock:
            names = [one for one, users in self._users.items() if user in users]
        for name in names:
            with self._turn(name):
                with self._lock:
                    self._users[name].discard(user)
                    last = not self._users[name]
                    if last:
                        del self._users[name]
                if last:
                    self._release(name)

    @contextlib.contextmanager
    def held(self, mounts: Iterable[MountPoint]) -> Iterator[None]:
        """For a short while, by nobody's name."""
        user = secrets.token_hex(8)
        self.hold(user, mounts)
        try:
            yield
        finally:
            self.drop(user)

    def adopt(self, running: Iterable[Container]) -> None:
        """At the agent's start: these use theirs, nobody else uses any."""
        with self._lock:
            for container in running:
                for mount in container.mounts:
                    if mount.type == "volume":
                        self._users.setdefault(mount.name, set()).add(container.id)
        for volume in self._volumes.all():
            if volume.options and not self._used(volume.name):
                self._release(volume.name)

    @contextlib.contextmanager
    def _turn(self, name: str) -> Iterator[None]:
        with self._lock:
            turn = self._turns.setdefault(name, _Turn())
            turn.wanted += 1
        try:
            with turn.lock:
                yield
        finally:
            with self._lock:
                turn.wanted -= 1
                if not turn.wanted:
                    del self._turns[name]  # names come and go: every --rm may have a new one

    def _used(self, name: str) -> bool:
        with self._lock:
            return bool(self._users.get(name))

    def _release(self, name: str) -> None:
        try:
            self._volumes.release(name)
        except EngineError as error:
            _log.error("%s", error.message)
