"""The durable definitions of user-made networks: one file each below $ROOT/network/networks."""

from __future__ import annotations

import contextlib
import logging
import os

from agent.engine.codec import CodecError, dumps, loads
from agent.host.tree import write_atomic
from agent.net.definitions import Definition

_log = logging.getLogger(__name__)
_END = ".json"


class Shelf:
    """What `put` returns from is on disk; what `drop` returns from never comes back."""

    def __init__(self, folder: str) -> None:
        self._folder = os.path.join(folder, "networks")

    def put(self, definition: Definition) -> None:
        """Raises OSError."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        write_atomic(self._folder, definition.id + _END, dumps(definition).encode())

    def drop(self, identity: str) -> None:
        """Idempotent.  Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self._folder, identity + _END))
            fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def all(self) -> list[Definition]:
        """By time of creation.  A file that cannot be read is kept aside: one bad byte must not
        keep the agent from starting, nor the other networks from working (case 126)."""
        found: list[Definition] = []
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(self._folder)):
                if name.endswith(_END) and not name.startswith("."):
                    found += self._read(name)
        return sorted(found, key=lambda one: (one.created, one.id))

    def _read(self, name: str) -> list[Definition]:
        path = os.path.join(self._folder, name)
        try:
            with open(path, encoding="utf-8") as file:
                definition = loads(Definition, file.read())
        except (CodecError, ValueError, OSError) as error:
            _log.error("network %s is put aside as %s.bad: %s", name, path, error)
            with contextlib.suppress(OSError):
                os.replace(path, f"{path}.bad")
            return []
        if definition.id + _END != name:
            _log.error("%s is not the definition of that network and is ignored", path)
            return []
        return [definition]
