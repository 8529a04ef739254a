"""Which container uses which volume: keeps `volume rm` and `create` from meeting."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from agent.errors import conflict


class VolumeClaims:
    """A volume that is claimed is not removed, one that is being removed can't be claimed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users: dict[str, set[str]] = {}
        self._leaving: set[str] = set()

    def claim(self, identity: str, names: Iterable[str]) -> None:
        """Waits for a removal under way, then takes the names."""
        wanted = set(names)
        with self._changed:
            self._changed.wait_for(lambda: not (wanted & self._leaving))
            for name in wanted:
                self._users.setdefault(name, set()).add(identity)

    def drop(self, identity: str) -> None:
        """Gives back all that a container holds."""
        with self._changed:
            for name in [one for one, users in self._users.items() if identity in users]:
                self._users[name].discard(identity)
                if not self._users[name]:
                    del self._users[name]

    def users(self, name: str) -> list[str]:
        with self._changed:
            return sorted(self._users.get(name, ()))

    def leave(self, name: str) -> None:
        """Before a removal.  CONFLICT "remove NAME: volume is in use - [ID]"."""
        with self._changed:
            self._changed.wait_for(lambda: name not in self._leaving)
            users = sorted(self._users.get(name, ()))
            if users:
                raise conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
            self._leaving.add(name)

    def left(self, name: str) -> None:
        """After it, however it went."""
        with self._changed:
            self._leaving.discard(name)
            self._changed.notify_all()
