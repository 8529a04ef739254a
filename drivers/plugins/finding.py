"""Plugin binaries on PATH. Only absolute folders are looked into: a PATH with "." runs nothing."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from drivers.plugins.child import Spawner
from drivers.plugins.driver import PluginDriver
from drivers.plugins.session import Binary

PREFIX: Final = "docker-machine-driver-"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def on_path(path: str) -> dict[str, Path]:
    """Names of drivers to binaries; the first folder of PATH that has one wins."""
    found: dict[str, Path] = {}
    for binary in _binaries(path):
        name = binary.name.removeprefix(PREFIX).removesuffix(".exe")
        if _NAME.fullmatch(name):
            found.setdefault(name, binary)
    return found


def _binaries(path: str) -> Iterator[Path]:
    for part in path.split(os.pathsep):
        folder = Path(part)
        if not folder.is_absolute():
            continue
        try:
            entries = sorted(folder.glob(f"{PREFIX}*"))
        except OSError:
            continue
        for entry in entries:
            if entry.is_file() and os.access(entry, os.X_OK):
                yield entry


class Plugins:
    """The plugins of one command's run; each asked for its flags once. Thread-safe."""

    def __init__(
        self,
        path: str,
        spawner: Spawner,
        say: Callable[[str], None],
        debug: Callable[[str], None],
    ) -> None:
        self._path = path
        self._spawner = spawner
        self._say, self._debug = say, debug
        self._loaded: dict[str, PluginDriver] = {}
        self._lock = threading.Lock()

    def __call__(self, name: str) -> PluginDriver | None:
        """The driver of that name, or None when no binary has it."""
        with self._lock:
            if name not in self._loaded:
                binary = on_path(self._path).get(name)
                if binary is None:
                    return None
                found = Binary(name, binary, self._spawner, self._say, self._debug)
                self._loaded[name] = PluginDriver(found)
            return self._loaded[name]
