"""Work in another network namespace, by a thread that enters it and ends."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

from agent.host.syscalls import CLONE_NEWNET, setns

T = TypeVar("T")


def open_namespace(pid: int) -> int:
    """A descriptor of that process's network namespace.  OSError when the process has ended."""
    return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def run_inside(namespace: int, action: Callable[[], T]) -> T:
    """What `action` returns, run in the network namespace of that descriptor.

    The thread never comes back: it ends there, so no thread of the pool can be left in a
    container's namespace.  /proc/sys/net is that namespace's for it.  Raises OSError.
    """
    results: list[T] = []
    failures: list[OSError] = []

    def enter() -> None:
        try:
            setns(namespace, CLONE_NEWNET)
            results.append(action())
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=enter, name="netns", daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    if not results:
        raise RuntimeError("the thread in the network namespace died")
    return results[0]
