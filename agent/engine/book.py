"""The containers in memory: by id, name and id prefix, with one lock each.

The values are immutable; who changes one holds its lock and puts a new value.  The small lock
inside guards the indexes only and is never held over a call to a port.
"""

from __future__ import annotations

import bisect
import contextlib
import threading
from collections.abc import Iterator

from agent.engine.model import Container
from agent.errors import conflict, invalid, not_found


class Book:
    """All containers of this agent.  Every method may be called from any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._by_id: dict[str, Container] = {}
        self._names: dict[str, str] = {}
        self._sorted: list[str] = []
        self._locks: dict[str, threading.RLock] = {}
        self._runs: dict[str, int] = {}

    def reserve(self, name: str, identity: str) -> None:
        """Takes a name.  CONFLICT with docker's text, naming the owner (case 131)."""
        with self._guard:
            owner = self._names.setdefault(name, identity)
        if owner != identity:
            raise conflict(
                f'Conflict. The container name "/{name}" is already in use by container'
                f' "{owner}". You have to remove (or rename) that container to be able to reuse'
                " that name."
            )

    def free(self, name: str, identity: str) -> None:
        """Gives a name back if it is this container's."""
        with self._guard:
            if self._names.get(name) == identity:
                del self._names[name]

    def put(self, container: Container) -> None:
        """Adds or replaces; the name must have been reserved."""
        with self._guard:
            if container.id not in self._by_id:
                bisect.insort(self._sorted, container.id)
            self._by_id[container.id] = container

    def discard(self, identity: str) -> None:
        """Forgets a container and its name."""
        with self._guard:
            container = self._by_id.pop(identity, None)
            self._runs.pop(identity, None)
            self._locks.pop(identity, None)
            if container is None:
                return
            del self._sorted[bisect.bisect_left(self._sorted, identity)]
            if self._names.get(container.name) == identity:
                del self._names[container.name]

    def get(self, identity: str) -> Container | None:
        """By full id."""
        with self._guard:
            return self._by_id.get(identity)

    def find(self, reference: str) -> Container:
        """By id, name or unique prefix of an id.  NOT_FOUND, INVALID when ambiguous."""
        with self._guard:
            found = self._by_id.get(reference)
            if found is None:
                found = self._by_id.get(self._names.get(reference.removeprefix("/"), ""))
            if found is not None:
                return found
            ids = self._with_prefix(reference)
            if len(ids) == 1:
                return self._by_id[ids[0]]
        if ids:
            raise invalid(f"multiple IDs found with provided prefix: {reference}")
        raise not_found(f"No such container: {reference}")

    def _with_prefix(self, prefix: str) -> list[str]:
        if not prefix:
            return []
        start = bisect.bisect_left(self._sorted, prefix)
        return [one for one in self._sorted[start : start + 2] if one.startswith(prefix)]

    def all(self) -> list[Container]:
        with self._guard:
            return list(self._by_id.values())

    @contextlib.contextmanager
    def locked(self, reference: str) -> Iterator[Container]:
        """The container as it is, with its lock held.  NOT_FOUND also when it went meanwhile."""
        identity = self.find(reference).id
        with self.lock(identity):
            container = self.get(identity)
            if container is None:
                raise not_found(f"No such container: {reference}")
            yield container

    def lock(self, identity: str) -> threading.RLock:
        """The lock of one container (re-entrant); one is made for an unknown id as well."""
        with self._guard:
            found = self._locks.get(identity)
            if found is None:
                found = threading.RLock()
                if identity in self._by_id:
                    self._locks[identity] = found
            return found

    def next_run(self, identity: str) -> int:
        """Counts the starts of a container since the agent came up: an exit that was observed of
        an earlier start must not be taken for the present one's."""
        with self._guard:
            self._runs[identity] = self._runs.get(identity, 0) + 1
            return self._runs[identity]

    def run_of(self, identity: str) -> int:
        with self._guard:
            return self._runs.get(identity, 0)
