"""Volumes are mounted at the first use and released at the last."""

import gc
import threading

import pytest

from agent.engine.model import MountPoint
from agent.engine.volumes_held import HeldVolumes
from agent.errors import EngineError
from tests.support.fakes import FakeVolumes


def volume(name: str) -> MountPoint:
    return MountPoint(type="volume", target=f"/{name}", name=name)


def made(*names: str) -> tuple[FakeVolumes, HeldVolumes]:
    fake = FakeVolumes([])
    for name in names:
        fake.create(name)
    fake.journal.clear()
    return fake, HeldVolumes(fake)


def test_first_and_last() -> None:
    fake, held = made("a", "b")
    held.hold("one", [volume("a"), volume("a"), MountPoint(type="tmpfs", target="/t")])
    held.hold("two", [volume("a"), volume("b")])
    held.drop("one")
    held.drop("one")
    assert fake.journal == [("volumes.mount", "a"), ("volumes.mount", "b")]
    with held.held([volume("b")]):
        held.drop("two")
        assert fake.journal[2:] == [("volumes.release", "a")]
    assert fake.journal[3:] == [("volumes.release", "b")]


def test_nothing_is_kept_of_volumes_that_nobody_uses() -> None:
    fake, held = made(*(f"v{number}" for number in range(50)))
    gc.collect()
    before = len(gc.get_objects())
    for number in range(50):
        with held.held([volume(f"v{number}")]):
            fake.journal.clear()
    fake.journal.clear()
    gc.collect()
    assert len(gc.get_objects()) - before < 25


def test_all_or_none() -> None:
    fake, held = made("a")
    with pytest.raises(EngineError):
        held.hold("one", [volume("a"), volume("missing")])
    assert fake.journal[-1] == ("volumes.release", "a")


def test_a_first_use_that_hangs_holds_up_its_own_volume_only() -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Slow(FakeVolumes):
        def mount(self, name: str) -> None:
            super().mount(name)
            if name == "far":
                entered.set()
                assert go_on.wait(10)

    fake = Slow([])
    for name in ("far", "near"):
        fake.create(name)
    held = HeldVolumes(fake)
    thread = threading.Thread(target=held.hold, args=("one", [volume("far")]))
    thread.start()
    assert entered.wait(10)
    held.hold("two", [volume("near")])
    held.drop("two")
    go_on.set()
    thread.join(10)
    assert not thread.is_alive()
