import itertools

import pytest

from agent.engine.lifecycle import FULFILLED, REFUSALS, TABLE, Happening, live, step
from agent.engine.model import Phase
from agent.errors import EngineError, Kind


@pytest.mark.parametrize(("phase", "happening"), list(itertools.product(Phase, Happening)))
def test_every_pair_has_one_answer(phase, happening):
    pair = (phase, happening)
    assert (pair in TABLE) + (pair in FULFILLED) + (pair in REFUSALS) <= 1
    if pair in TABLE:
        assert step(phase, happening, identity="abc", name="web") is TABLE[pair]
        return
    with pytest.raises(EngineError) as caught:
        step(phase, happening, identity="abc", name="web")
    fulfilled = pair in FULFILLED
    assert caught.value.kind is (Kind.NOT_MODIFIED if fulfilled else Kind.CONFLICT)
    assert fulfilled or caught.value.message
    assert "{" not in caught.value.message


def test_every_phase_but_dead_is_reached():
    assert {*TABLE.values(), Phase.CREATED} == {*Phase} - {Phase.DEAD}


def test_only_live_ones_have_a_process():
    assert [one for one in Phase if live(one)] == [Phase.RUNNING, Phase.PAUSED]


@pytest.mark.parametrize(
    ("phase", "happening", "text"),
    [
        (Phase.PAUSED, Happening.START, "cannot start a paused container, try unpause instead"),
        (Phase.EXITED, Happening.EXEC, "Container abc is not running"),
        (Phase.RUNNING, Happening.UNPAUSE, "Container abc is not paused"),
        (
            Phase.RUNNING,
            Happening.REMOVE,
            (
                'cannot remove container "/web": container is running: stop the container before'
                " removing or force remove"
            ),
        ),
    ],
)
def test_dockers_texts(phase, happening, text):
    with pytest.raises(EngineError) as caught:
        step(phase, happening, identity="abc", name="web")
    assert caught.value.message == text
