"""The cache: each entry is built once, under a lock, in a temporary name, and renamed when whole."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path


def key_of(*recipe: object) -> str:
    """A short hash of a recipe (anything that JSON can say)."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive flock on `path`; the kernel releases it when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


class Cache:
    """Entries NAME-KEY below one folder. An entry that exists is complete and never changes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str, key: str) -> Path:
        """Where the entry is or would be."""
        return self.root / f"{name}-{key}"

    def entry(self, name: str, key: str, build: Callable[[Path], None]) -> Path:
        """The entry's folder; `build(folder)` fills it first when there is none.

        Two callers (threads or processes) never build the same entry twice. What `build` raises
        passes through and leaves nothing.
        """
        final = self.path(name, key)
        if final.is_dir():
            return final
        with locked(self.root / f".lock-{name}-{key}"):
            if final.is_dir():
                return final
            for old in self.root.glob(f".tmp-{name}-{key}-*"):
                shutil.rmtree(old)  # of a build that was killed: we hold its lock
            temporary = self.root / f".tmp-{name}-{key}-{os.getpid()}"
            temporary.mkdir()
            try:
                build(temporary)
                temporary.rename(final)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return final
