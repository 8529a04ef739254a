"""What came of a large blob before the agent died or the network went: the next pull goes on there.

    images/partial/sha256-<hex>       compressed bytes from the start, never trusted: hashed again

Only blobs above a size are kept so, beside being unpacked: the copy costs a write to the page cache,
and it is removed as soon as its layer is there, mostly before the kernel has written any of it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import suppress

from agent.images.manifest import Descriptor
from agent.images.settings import Limits

_PIECE = 256 << 10
_AGE = 24 * 3600.0  # seconds: what nobody went on with by then goes
_MOST = 8 << 30  # bytes of all of them
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Partial:
    """The kept bytes of one blob, for one download at a time.  Trouble with it is no trouble."""

    def __init__(self, path: str, fd: int, limit: int) -> None:
        self._path = path
        self._fd = fd
        self._limit = limit
        self.used = False  # it had bytes of an earlier try

    def pieces(self) -> Iterator[bytes]:
        """What is there; what is added afterwards follows it."""
        size = os.fstat(self._fd).st_size
        if size > self._limit:
            os.ftruncate(self._fd, 0)  # not of a blob of this size
            return
        with suppress(OSError):
            while piece := os.read(self._fd, _PIECE):
                self.used = True
                yield piece

    def add(self, piece: bytes) -> None:
        """Keep the next bytes; on a full disk none are kept any more."""
        if self._fd < 0:
            return
        try:
            if os.write(self._fd, piece) < len(piece):
                self.drop()
        except OSError:
            self.drop()

    def drop(self) -> None:
        """They are needed no more, or they are wrong.  Idempotent."""
        if self._fd >= 0:
            with suppress(OSError):
                os.unlink(self._path)
            self.close()

    def close(self) -> None:
        """Leave them for the next try.  Idempotent."""
        if self._fd >= 0:
            if os.fstat(self._fd).st_size == 0:
                with suppress(OSError):
                    os.unlink(self._path)
            os.close(self._fd)
            self._fd = -1


def opened(folder: str, blob: Descriptor, limits: Limits) -> Partial | None:
    """The kept bytes of a blob, if it is one to keep and nobody else downloads it now."""
    if blob.size < limits.partial_from:
        return None
    path = os.path.join(folder, blob.digest.replace(":", "-"))  # a digest is checked when decoded
    try:
        if sweep(folder) + blob.size > _MOST:
            return None
        space = os.statvfs(folder)
        if space.f_bavail * space.f_frsize < 4 * blob.size + limits.reserve_bytes:
            return None
        fd = os.open(path, _FLAGS, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return Partial(path, fd, blob.size)


def sweep(folder: str) -> int:
    """Remove what is old; bytes that are left."""
    total = 0
    oldest = time.time() - _AGE
    for entry in os.scandir(folder):
        found = entry.stat(follow_symlinks=False)
        if found.st_mtime < oldest:
            with suppress(OSError):
                os.unlink(entry.path)
        else:
            total += found.st_size
    return total
