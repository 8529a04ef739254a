"""Several machines at once, on threads that a Ctrl-C does not wait for.

concurrent.futures joins its threads on the way out, so an interrupt would wait for the slowest host;
security.md case 157 wants the end within a second.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def each(work: Callable[[T], R], items: Sequence[T], most: int = 16) -> list[R]:
    """`work` of every item, in the items' order, at most `most` at a time.

    Raises what `work` raised for the first such item, after all have ended.
    """
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for index in range(len(items)):
        todo.put(index)
    results: dict[int, R] = {}
    failed: dict[int, BaseException] = {}

    def worker() -> None:
        while True:
            try:
                index = todo.get_nowait()
            except queue.Empty:
                return
            try:
                results[index] = work(items[index])
            except BaseException as err:  # noqa: BLE001  handed to the caller below
                failed[index] = err

    count = min(most, len(items))
    threads = [threading.Thread(target=worker, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[min(failed)]
    return [results[index] for index in range(len(items))]
