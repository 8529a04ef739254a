"""Waiting with a deadline, for the few places where the kernel offers nothing to block on."""

import threading
import time
from collections.abc import Callable

from tests.lab.errors import LabError

_NEVER = threading.Event()


def wait_until(
    predicate: Callable[[], bool], seconds: float, what: str, *, interval: float = 0.01
) -> None:
    """Return once `predicate()` is true; ask every `interval` seconds, slower as time goes by.

    Raises LabError naming `what` after `seconds`.
    """
    end = time.monotonic() + seconds
    pause = interval
    while not predicate():
        if time.monotonic() >= end:
            raise LabError(f"{what}: not within {seconds:g} s")
        _NEVER.wait(pause)
        pause = min(pause * 1.2, 20 * interval)
