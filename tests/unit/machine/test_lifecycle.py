import itertools

import pytest

from drivers.api import HostState
from machine import journal
from machine.journal import Step
from machine.lifecycle import ALREADY, TABLE, Action, Event, decide
from machine.model import MachineRecord


@pytest.mark.parametrize(("state", "event"), list(itertools.product(HostState, Event)))
def test_every_pair_has_an_answer(state: HostState, event: Event) -> None:
    action = decide(state, event)
    if action is Action.ALREADY:
        assert event in ALREADY
    assert (action is Action.MISSING) == (state is HostState.NOT_FOUND)


def test_table_is_exactly_the_pairs() -> None:
    assert set(TABLE) == set(itertools.product(HostState, Event))


def test_journal() -> None:
    record = journal.doing(MachineRecord("a", "u", "fake", "t"), Step.HOST, 0)
    assert journal.cut_off(record) == "host"
    record = journal.done(record, Step.HOST, 5)
    assert (journal.cut_off(record), len(record.journal)) == ("", 1)
    assert journal.started(record, Step.HOST)
    assert not journal.started(record, Step.PROVISION)
    assert record.journal[0].at == "1970-01-01T00:00:05Z"
