"""Kept texts are those that would be made anew."""

import dataclasses
import json

import pytest

from agent.api.application import EngineApplication
from agent.api.texts import ListTexts, Texts, halves
from agent.engine.model import Phase
from agent.wire.http import Body, Reply, Request, parse_target
from tests.unit.agent.api.backend import EXITED, NOW, RUNNING, FakeBackend


def test_halves_leave_room_for_one_value():
    before, after = halves({"a": 1, "Status": "x", "z": {"Status": 'y"'}}, "Status")
    text = f'{before}"new"{after}'
    assert json.loads(text) == {"a": 1, "Status": "new", "z": {"Status": 'y"'}}


def always(text):
    return lambda _: text


class Makes:
    """Counts what is made."""

    def __init__(self):
        self.made = []

    def entry(self, one):
        self.made.append(one.id)
        return {"Id": one.id, "Status": "", "Name": one.name}


def test_an_entry_is_made_again_only_for_another_value():
    texts, makes = ListTexts(()), Makes()
    for status in ("first", "second"):
        found = json.loads(texts.text([RUNNING, EXITED], makes.entry, always(status)))
        assert [one["Status"] for one in found] == [status, status]
    assert len(makes.made) == 2
    renamed = dataclasses.replace(RUNNING, name="other")
    found = json.loads(texts.text([renamed, EXITED], makes.entry, lambda _: ""))
    assert [one["Name"] for one in found] == ["other", EXITED.name]
    assert makes.made[2:] == [RUNNING.id]


def test_entries_of_gone_containers_are_dropped():
    texts, makes = ListTexts(()), Makes()
    many = [dataclasses.replace(RUNNING, id=f"{number:064x}") for number in range(100)]
    texts.text(many, makes.entry, lambda _: "")
    texts.forget({one.id: one for one in many[:10]})
    del makes.made[:]
    texts.text(many[:10], makes.entry, lambda _: "")
    assert makes.made == []
    texts.text(many[10:11], makes.entry, lambda _: "")
    assert makes.made == [many[10].id]


def test_other_surroundings_make_other_texts():
    texts = Texts()
    first = texts.listing((1, 51), {"bridge": "a"})
    assert texts.listing((1, 51), {"bridge": "a"}) is first
    assert texts.listing((1, 51), {"bridge": "b"}) is not first
    for minor in range(24, 52):  # as many versions as a client may ask for
        texts.listing((1, minor), {})
    assert texts.inspected(RUNNING, 1, lambda: {"a": 1}) == b'{"a":1}\n'
    assert texts.inspected(RUNNING, 1, lambda: {"a": 2}) == b'{"a":1}\n'
    assert texts.inspected(RUNNING, 2, lambda: {"a": 3}) == b'{"a":3}\n'
    changed = dataclasses.replace(RUNNING)
    assert texts.inspected(changed, 2, lambda: {"a": 4}) == b'{"a":4}\n'


@pytest.fixture
def backend():
    return FakeBackend()


@pytest.mark.parametrize("target", ["/containers/json?all=1", f"/containers/{RUNNING.id}/json"])
def test_an_answer_follows_its_container(backend, target):
    application = EngineApplication(backend, lambda: NOW)

    def ask():
        path, query = parse_target(target)
        request = Request("GET", target, path, query)
        answer = application.resolve(request).handler(request, Body())
        assert isinstance(answer, Reply)
        return json.loads(answer.body)

    before = ask()
    assert ask() == before
    state = dataclasses.replace(RUNNING.state, phase=Phase.PAUSED)
    paused = dataclasses.replace(RUNNING, state=state)
    backend.containers.known = {paused.id: paused, EXITED.id: EXITED}
    assert ask() != before
    assert "paused" in json.dumps(ask())
