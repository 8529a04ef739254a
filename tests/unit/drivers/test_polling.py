import pytest

from drivers.errors import WaitTimeoutError
from drivers.polling import Backoff, NotYet, wait_until
from drivers.testkit import TurnedClock


def test_answers_at_once_without_waiting() -> None:
    clock = TurnedClock()
    began = clock.time
    assert wait_until(lambda: 7, what="it", seconds=0, clock=clock) == 7
    assert clock.time == began


def test_retries_until_the_answer() -> None:
    answers = iter([NotYet("a"), NotYet("b"), 3])
    assert wait_until(lambda: next(answers), what="it", seconds=60, clock=TurnedClock()) == 3


def test_time_out_tells_the_last_reason_and_keeps_the_deadline() -> None:
    clock = TurnedClock()
    began = clock.time
    with pytest.raises(WaitTimeoutError, match="it did not happen within 10 s: no route"):
        wait_until(lambda: NotYet("no route"), what="it", seconds=10, clock=clock)
    assert 10 <= clock.time - began < 10.1


def test_pauses_grow_to_a_most() -> None:
    pauses = Backoff(1.0, 2.0, 5.0).pauses()
    assert [next(pauses) for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
