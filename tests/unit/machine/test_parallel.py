"""Several machines at once."""

from __future__ import annotations

import signal
import threading

import pytest

from machine.parallel import each


def test_results_keep_the_order_and_the_limit_holds() -> None:
    lock = threading.Lock()
    now = most = 0

    def work(item: int) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        threading.Event().wait(0.002)
        with lock:
            now -= 1
        return item * 2

    assert each(work, list(range(40)), most=4) == [2 * item for item in range(40)]
    assert 1 < most <= 4
    assert each(work, []) == []


def test_the_first_failure_is_raised_after_all_have_ended() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        done.append(item)
        if item in {1, 3}:
            raise ValueError(item)

    with pytest.raises(ValueError, match="1"):
        each(work, range(5))
    assert sorted(done) == [0, 1, 2, 3, 4]


def test_case_157_an_interrupt_does_not_wait_for_a_hanging_host() -> None:
    held = threading.Event()
    main = threading.main_thread().ident
    assert main is not None

    def work(item: int) -> None:
        if item == 0:
            signal.pthread_kill(main, signal.SIGINT)
        held.wait(30)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            each(work, [0, 1])
    finally:
        signal.signal(signal.SIGINT, before)
        held.set()
