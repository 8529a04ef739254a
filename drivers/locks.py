"""A lock between processes of this computer: a file, locked by the kernel, with a deadline."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from drivers.errors import DriverError, WaitTimeoutError
from drivers.polling import Backoff, Clock, NotYet, wait_until


@contextlib.contextmanager
def locked(path: Path, *, what: str, seconds: float, clock: Clock) -> Iterator[None]:
    """Hold `path` for the time of the block; the kernel lets it go when its holder dies.

    Two threads of one process exclude each other as well. The file stays: removing it would let two
    holders in. Raises DriverError when the lock is not free within `seconds`; `what` is the work
    that it guards, for that text.
    """
    import fcntl

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as err:
        raise DriverError(f"cannot make the lock {path}: {err.strerror}") from err

    def attempt() -> NotYet | None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return NotYet("another command holds it")
        return None

    try:
        _acquire(attempt, path, what, seconds, clock)
        yield
    finally:
        os.close(fd)


def _acquire(
    attempt: Callable[[], NotYet | None], path: Path, what: str, seconds: float, clock: Clock
) -> None:
    try:
        wait_until(
            attempt, what=what, seconds=seconds, clock=clock, backoff=Backoff(first=0.02, most=0.5)
        )
    except WaitTimeoutError as err:
        raise DriverError(
            f"{what}: the lock {path} was not free within {seconds:.0f} s",
            hint="Another machine command holds it; wait for its end, or stop it.",
        ) from err
