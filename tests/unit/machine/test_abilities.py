"""Suspend, snapshots, sizes, console and gc over the fake provider."""

from pathlib import Path

import pytest

from drivers.api import HostState, Size
from drivers.fake import OPTIONS
from drivers.options import resolve
from machine.errors import MachineError
from machine.lifecycle import Event
from tests.unit.machine.test_service import World

COLLEAGUE = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
VALUES = resolve(OPTIONS, {"token": "s3cret"}, {})


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.create()
    return made


def test_suspend_and_resume(world: World) -> None:
    service = world.service()
    service.power(["web"], Event.SUSPEND)
    assert service.state("web") is HostState.SAVED
    with pytest.raises(MachineError, match="already suspended"):
        service.power(["web"], Event.SUSPEND)
    service.power(["web"], Event.RESUME)
    assert service.state("web") is HostState.RUNNING
    service.power(["web"], Event.STOP)
    with pytest.raises(MachineError, match="is not suspended"):
        service.power(["web"], Event.RESUME)


def test_snapshots(world: World) -> None:
    abilities = world.service().abilities
    abilities.snapshot("web", "before-upgrade")
    with pytest.raises(MachineError, match="already"):
        abilities.snapshot("web", "before-upgrade")
    assert abilities.snapshots("web") == ["before-upgrade"]
    world.host.runs.clear()
    abilities.restore("web", "before-upgrade")
    assert world.host.runs[-1] == "verify", "the engine was not waited for"
    abilities.drop_snapshot("web", "before-upgrade")
    with pytest.raises(MachineError, match="has no snapshot"):
        abilities.drop_snapshot("web", "before-upgrade")


@pytest.mark.parametrize("label", ["", "-x", "a b", "../x", "x" * 64, "a\n"])
def test_labels_that_can_not_be(world: World, label: str) -> None:
    with pytest.raises(MachineError, match="can't be a snapshot's name"):
        world.service().abilities.snapshot("web", label)


def test_resize_and_console(world: World) -> None:
    abilities = world.service().abilities
    abilities.resize("web", Size(plan="large"))
    assert [s.size for s in world.cloud.servers.values()] == ["large"]
    with pytest.raises(MachineError, match="no size huge"):
        abilities.resize("web", Size(plan="huge"))
    with pytest.raises(MachineError, match="Nothing to change"):
        abilities.resize("web", Size())
    assert "login:" in abilities.console("web")


def test_case_160_gc_finds_what_no_machine_accounts_for(world: World) -> None:
    world.cloud.make_server(COLLEAGUE)
    for tag in ("*", "?" * 36, "", "../../x", COLLEAGUE.upper(), f"{COLLEAGUE}\n"):
        world.cloud.make_server(tag)  # whose tags are nothing that this program has ever made
    lost = world.store.load("web").uuid
    world.store.forget("web")  # as `rm -f` does when the provider could not be reached
    abilities = world.service().abilities
    found = {o.uuid: o for o in abilities.orphans("fake", VALUES)}
    assert {uuid: o.ours for uuid, o in found.items()} == {lost: True, COLLEAGUE: False}
    assert found[lost].things == ("key key-1", "server server-2")
    abilities.collect("fake", VALUES, found[lost])
    assert len([s for s in world.cloud.servers.values() if s.tag == COLLEAGUE]) == 1
    assert len(world.cloud.servers) == 7
    assert world.cloud.keys == {}


def test_case_160_machines_of_the_store_are_no_orphans(world: World) -> None:
    assert world.service().abilities.orphans("fake", VALUES) == []
