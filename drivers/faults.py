"""The fault table of the driver contract: what may go wrong between a driver and its provider.

Use: a pytest class that inherits `FaultSuite` and says how to make a rig:

    class TestMineFaults(FaultSuite):
        def rig(self, folder):
            return MyRig(folder)      # a new provider, with something of someone else's in it

Every call that a driver makes goes through its context's door (`drivers.api.Door`), so the table is
made by counting the calls of a run without faults and breaking each of them in each way. Nothing
here imports pytest. `FaultSuite.every` is the step between the calls that are broken: 1 is the whole
table.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

from drivers.api import Driver, DriverContext
from drivers.errors import AuthError, DriverError, GoneError, QuotaError, TransientError
from drivers.testkit import UUID

T = TypeVar("T")
OTHER_UUID = "7c9e6679-7425-40de-944b-e07fc1f90ae7"


class Killed(BaseException):
    """The program was killed at this call: no driver may catch it."""


class Fault(enum.Enum):
    """How one call of the provider goes wrong."""

    KILLED_BEFORE = "killed before the call"
    KILLED_AFTER = "killed after the call, before its answer"
    TIMEOUT_BEFORE = "no answer, and nothing was done"
    TIMEOUT_AFTER = "no answer, and it was done"
    THROTTLED = "429"
    BROKEN = "503"


class Rig(Protocol):
    """A driver before a provider that the suite can look into, behind the driver's back."""

    @property
    def driver(self) -> Driver: ...

    def context(self, door: BreakableDoor, uuid: str = UUID) -> DriverContext:
        """A context of a machine of the same name and provider, with this door and empty state."""

    def inventory(self, uuid: str) -> list[str]:
        """Everything that the provider has of that machine, hosts as "host ...", sorted."""

    def foreign(self) -> object:
        """All that belongs to nobody of ours, comparable: it must never change."""


class BreakableDoor:
    """drivers.api.Door: the call number `at` (from 0) goes wrong by `fault`, once.

    Every call from the number `dead_from` on raises AuthError; `refuses` maps names of calls to
    what they raise, every time.
    """

    def __init__(
        self, *, at: int = -1, fault: Fault | None = None, dead_from: int = 1 << 30
    ) -> None:
        self.calls: list[str] = []
        self.at = at
        self.fault = fault
        self.dead_from = dead_from
        self.refuses: dict[str, DriverError] = {}  # by call name, every time

    def call(self, name: str, action: Callable[[], T]) -> T:
        number = len(self.calls)
        self.calls.append(name)
        if number >= self.dead_from:
            raise AuthError("ExpiredToken: the security token has expired")
        if name in self.refuses:
            raise self.refuses[name]
        if number != self.at or self.fault is None:
            return action()
        _before(self.fault, name)
        answer = action()
        _after(self.fault, name)
        return answer


def _before(fault: Fault, name: str) -> None:
    if fault is Fault.KILLED_BEFORE:
        raise Killed(name)
    if fault is Fault.TIMEOUT_BEFORE:
        raise TransientError(f"{name}: timed out")
    if fault is Fault.THROTTLED:
        raise TransientError(f"{name}: 429 too many requests", retry_after=1.0)
    if fault is Fault.BROKEN:
        raise TransientError(f"{name}: 503 service unavailable")


def _after(fault: Fault, name: str) -> None:
    if fault is Fault.KILLED_AFTER:
        raise Killed(name)
    if fault is Fault.TIMEOUT_AFTER:
        raise TransientError(f"{name}: timed out")


class FaultSuite:
    """The table. `creates` are the calls whose refusal stands for a quota that is used up."""

    every: ClassVar[int] = 1
    creates: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[tuple[str, ...]] = ()  # calls that may answer "not found" for a while

    def rig(self, folder: Path) -> Rig:
        raise NotImplementedError

    def test_a_broken_call_of_create_leaves_exactly_one_host(self, tmp_path: Path) -> None:
        for number, fault in self._table(self._create_calls(tmp_path)):
            where = f"call {number}: {fault.value}"
            rig = self._rig(tmp_path, f"c{number}-{fault.name}")
            before = rig.foreign()
            state = _attempt(rig, BreakableDoor(at=number, fault=fault), {})
            _finish(rig, state, where)
            assert hosts(rig, UUID) == 1, where
            assert rig.foreign() == before, where

    def test_a_broken_create_is_removed_without_a_trace(self, tmp_path: Path) -> None:
        for number, fault in self._table(self._create_calls(tmp_path)):
            where = f"call {number}: {fault.value}"
            rig = self._rig(tmp_path, f"r{number}-{fault.name}")
            before = rig.foreign()
            state = _attempt(rig, BreakableDoor(at=number, fault=fault), {})
            _remove(rig, state)
            assert rig.inventory(UUID) == [], where
            assert rig.foreign() == before, where

    def test_a_broken_call_of_remove_is_made_good_by_the_next(self, tmp_path: Path) -> None:
        rig = self._rig(tmp_path, "count")
        counting = BreakableDoor()
        state = _attempt(rig, BreakableDoor(), {})
        rig.driver.remove(_with(rig.context(counting), state))
        for number, fault in self._table(len(counting.calls)):
            where = f"call {number}: {fault.value}"
            rig = self._rig(tmp_path, f"m{number}-{fault.name}")
            before = rig.foreign()
            state = _attempt(rig, BreakableDoor(), {})
            door = BreakableDoor(at=number, fault=fault)
            try:
                rig.driver.remove(_with(rig.context(door), state))
            except (DriverError, Killed):
                rig.driver.remove(_with(rig.context(BreakableDoor()), state))
            assert rig.inventory(UUID) == [], where
            assert rig.foreign() == before, where

    def test_what_was_made_and_not_saved_is_found_again(self, tmp_path: Path) -> None:
        """After the answer and before the save: the state never got to the disk."""
        rig = self._rig(tmp_path, "unsaved")
        steps = len(list(rig.driver.create(rig.context(BreakableDoor()))))
        for cut in range(1, steps + 1):
            rig = self._rig(tmp_path, f"unsaved-{cut}")
            running = rig.driver.create(rig.context(BreakableDoor()))
            saved: dict[str, object] = {}
            for index in range(cut):
                made = next(running)
                if index < cut - 1:
                    saved[made.key] = made.value
            del running
            _finish(rig, saved, f"after {cut} things")
            assert hosts(rig, UUID) == 1, f"after {cut} things"
            _remove(rig, saved)
            assert rig.inventory(UUID) == []

    def test_a_used_up_quota_is_told_and_leaves_nothing(self, tmp_path: Path) -> None:
        for name in self.creates:
            rig = self._rig(tmp_path, f"quota-{name}")
            door = BreakableDoor()
            door.refuses[name] = QuotaError("LimitExceeded: you have reached your limit")
            state: dict[str, object] = {}
            told = ""
            try:
                _store(rig, door, state)
            except DriverError as err:
                told = err.message
            assert "LimitExceeded" in told, name
            _remove(rig, state)
            assert rig.inventory(UUID) == [], name

    def test_what_is_not_found_for_a_while_is_waited_for(self, tmp_path: Path) -> None:
        for name in self.reads:
            rig = self._rig(tmp_path, f"late-{name}")
            door = LateDoor(name, self.creates)
            _store(rig, door, {})
            assert hosts(rig, UUID) == 1, name
            assert door.hidden == 0, f"{name} was never asked after a create"

    def test_two_machines_of_one_name_do_not_touch_each_other(self, tmp_path: Path) -> None:
        rig = self._rig(tmp_path, "twins")
        first = _attempt(rig, BreakableDoor(), {})
        other: dict[str, object] = {}
        try:
            _store(rig, BreakableDoor(), other, OTHER_UUID)
        except DriverError:
            assert hosts(rig, OTHER_UUID) == 0
        rig.driver.remove(_with(rig.context(BreakableDoor(), OTHER_UUID), other))
        assert rig.inventory(OTHER_UUID) == []
        assert hosts(rig, UUID) == 1
        _finish(rig, first, "the first of two")
        _remove(rig, first)
        assert rig.inventory(UUID) == []

    def test_credentials_that_expire_are_told_and_new_ones_go_on(self, tmp_path: Path) -> None:
        for number in range(0, self._create_calls(tmp_path), self.every):
            rig = self._rig(tmp_path, f"expired-{number}")
            state: dict[str, object] = {}
            expired = False
            try:
                _store(rig, BreakableDoor(dead_from=number), state)
            except AuthError:
                expired = True
            assert expired, f"call {number}"
            _finish(rig, state, f"credentials expired at call {number}")
            assert hosts(rig, UUID) == 1

    def _rig(self, folder: Path, name: str) -> Rig:
        own = folder / name
        own.mkdir()
        return self.rig(own)

    def _create_calls(self, folder: Path) -> int:
        """How many calls a create without faults makes."""
        door = BreakableDoor()
        _store(self._rig(folder, "count"), door, {})
        return len(door.calls)

    def _table(self, calls: int) -> Iterator[tuple[int, Fault]]:
        assert calls, "the driver calls nobody through its door"
        for number in range(0, calls, self.every):
            for fault in Fault:
                yield number, fault


class LateDoor(BreakableDoor):
    """The first calls of `name` after a create answer "not found", as slow catalogues do."""

    def __init__(self, name: str, creates: tuple[str, ...]) -> None:
        super().__init__()
        self.hidden = 0
        self._name = name
        self._creates = creates
        self._armed = True

    def call(self, name: str, action: Callable[[], T]) -> T:
        if name == self._name and self.hidden:
            self.calls.append(name)
            self.hidden -= 1
            raise GoneError(f"{name}: NotFound")
        answer = super().call(name, action)
        if name in self._creates and self._armed:
            self._armed, self.hidden = False, 2
        return answer


def hosts(rig: Rig, uuid: str) -> int:
    """How many hosts the provider has of that machine."""
    return sum(1 for line in rig.inventory(uuid) if line.startswith("host "))


def _with(ctx: DriverContext, state: dict[str, object]) -> DriverContext:
    return dataclasses.replace(ctx, state=dict(state))


def _store(rig: Rig, door: BreakableDoor, state: dict[str, object], uuid: str = UUID) -> None:
    """Run create, saving into `state` as the caller does."""
    for made in rig.driver.create(_with(rig.context(door, uuid), state)):
        state[made.key] = made.value


def _attempt(rig: Rig, door: BreakableDoor, state: dict[str, object]) -> dict[str, object]:
    """What was saved when create ended, well or not."""
    with contextlib.suppress(Killed, DriverError):
        _store(rig, door, state)
    return state


def _finish(rig: Rig, state: dict[str, object], where: str) -> None:
    """The same create again, without faults, goes to its end."""
    try:
        _store(rig, BreakableDoor(), state)
    except DriverError as err:
        raise AssertionError(f"{where}: not resumed: {err.message}") from err


def _remove(rig: Rig, state: dict[str, object]) -> None:
    rig.driver.remove(_with(rig.context(BreakableDoor()), state))
