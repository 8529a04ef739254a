"""Conformance suite of the driver contract, for our drivers and everyone else's.

Use: a pytest class that inherits `DriverSuite` and says how to make the driver and a context:

    class TestMine(DriverSuite):
        def make(self, folder):
            return MyDriver(FakeProvider()), context(folder, options={...})

Every call of `make` gives a new, empty provider. Nothing here imports pytest.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from drivers import options as driver_options
from drivers.api import (
    Address,
    Completed,
    Driver,
    DriverContext,
    HostState,
    Kill,
    Seed,
    SeedRequest,
    Snapshot,
    StartStop,
    Suspend,
    Via,
)
from drivers.errors import DriverError
from drivers.options import OptionSpec, Value

T = TypeVar("T")
UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"


class TurnedClock:
    """Time passes only by waiting."""

    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def monotonic(self) -> float:
        return self.time

    def now(self) -> float:
        return self.time

    def wait(self, seconds: float) -> None:
        self.time += max(seconds, 0.001)


class ScriptedHost:
    """drivers.api.Host: answers by command; `closed` are ports that refuse."""

    def __init__(
        self,
        answers: Mapping[str, Sequence[Completed]] | None = None,
        closed: Sequence[tuple[str, int]] = (),
    ) -> None:
        self._answers = {key: list(value) for key, value in (answers or {}).items()}
        self._closed = set(closed)
        self.commands: list[str] = []

    def run(self, command: str, *, timeout: float = 60.0) -> Completed:
        del timeout
        self.commands.append(command)
        for part, left in self._answers.items():
            if part in command and left:
                return left.pop(0) if len(left) > 1 else left[0]
        return Completed(0)

    def dial(self, host: str, port: int, *, timeout: float = 15.0) -> str:
        del timeout
        return "Connection refused" if (host, port) in self._closed else ""


class NoRunner:
    """drivers.api.Runner of a driver that runs nothing."""

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        del stdin, timeout
        raise DriverError(f"unexpected program: {argv[0]}")


class NoHttp:
    """drivers.api.Http of a driver that asks nobody."""

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout: float = 60.0,
    ) -> tuple[int, bytes]:
        del headers, body, timeout
        raise DriverError(f"unexpected request: {method} {url}")


class OpenDoor:
    """drivers.api.Door that only keeps the names of the calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def call(self, name: str, action: Callable[[], T]) -> T:
        self.calls.append(name)
        return action()


class FixedSeeds:
    """drivers.api.Seeds with constant keys; `key_path` is a path where nothing is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.asked: list[SeedRequest] = []

    def seed(self, wanted: SeedRequest) -> Seed:
        self.asked.append(wanted)
        body = b"AAAAC3NzaC1lZDI1NTE5AAAAI" + b"A" * 43
        return Seed(
            user=wanted.user,
            key_path=str(self._folder / "id_ed25519"),
            public_key=f"ssh-ed25519 {body.decode()} conformance",
            host_keys=(f"ssh-ed25519 {body.decode()}",),
            user_data=b"#cloud-config\n{}\n",
            meta_data=b"{}\n",
            network_config=b"{}\n",
        )


def context(
    folder: Path,
    specs: Sequence[OptionSpec],
    given: Mapping[str, Value | None],
    host: ScriptedHost | None = None,
) -> DriverContext:
    """A context with all fakes, and the options resolved as `create` does it."""
    return DriverContext(
        name="conformance",
        uuid=UUID,
        options=driver_options.resolve(specs, given, {}),
        state={},
        folder=folder,
        clock=TurnedClock(),
        runner=NoRunner(),
        http=NoHttp(),
        host=host or ScriptedHost(),
        door=OpenDoor(),
        seeds=FixedSeeds(folder),
        cache=folder / "cache",
    )


class DriverSuite:
    """The tests. Each makes its own driver and context."""

    def make(self, folder: Path) -> tuple[Driver, DriverContext]:
        raise NotImplementedError

    def test_options_are_a_sound_table(self, tmp_path: Path) -> None:
        driver, _ = self.make(tmp_path)
        flags = [flag for spec in driver.options for flag in spec.flags]
        names = [spec.name for spec in driver.options]
        assert len(set(flags)) == len(flags)
        assert len(set(names)) == len(names)
        assert re.fullmatch("[a-z0-9]+", driver.name)
        assert driver.summary
        for spec in driver.options:
            assert all(re.fullmatch("--[a-z0-9-]+", flag) for flag in spec.flags), spec
            assert all(re.fullmatch("[A-Z][A-Z0-9_]*", env) for env in spec.env), spec
            assert spec.help, spec
            assert spec.flags, spec
            driver_options.parse(spec, spec.default)

    def test_secrets_do_not_reach_the_record(self, tmp_path: Path) -> None:
        driver, ctx = self.make(tmp_path)
        stored = driver_options.stored(driver.options, dict(ctx.options))
        assert not [spec.name for spec in driver.options if spec.secret and spec.name in stored]

    def test_check_finds_nothing_and_changes_nothing(self, tmp_path: Path) -> None:
        driver, ctx = self.make(tmp_path)
        assert driver.check(ctx) == []
        assert driver.check(ctx) == []
        assert list(tmp_path.iterdir()) == []

    def test_create_makes_a_host_with_an_address(self, tmp_path: Path) -> None:
        driver, ctx = self.make(tmp_path)
        ctx = created(driver, ctx)
        assert driver.state(ctx) is HostState.RUNNING
        address = driver.address(ctx)
        assert isinstance(address, Address)
        assert address.host
        assert (address.ssh is not None) == (address.via is Via.SSH)

    def test_create_again_makes_nothing(self, tmp_path: Path) -> None:
        driver, ctx = self.make(tmp_path)
        ctx = created(driver, ctx)
        assert list(driver.create(ctx)) == []

    def test_create_cut_off_anywhere_is_resumed(self, tmp_path: Path) -> None:
        """The last thing that was made may be missing from the state: it must be found again."""
        folder = tmp_path / "whole"
        folder.mkdir()
        driver, ctx = self.make(folder)
        whole = created(driver, ctx)
        for cut in range(len(whole.state) + 1):
            for stored in {cut, max(0, cut - 1)}:
                self._cut(tmp_path / f"{cut}-{stored}", cut, stored, whole)

    def _cut(self, folder: Path, cut: int, stored: int, whole: DriverContext) -> None:
        folder.mkdir()
        driver, ctx = self.make(folder)
        state: dict[str, object] = {}
        running = driver.create(ctx)
        for index in range(cut):
            made = next(running)
            if index < stored:
                state[made.key] = made.value
        del running
        again = created(driver, dataclasses.replace(ctx, state=state))
        assert set(again.state) == set(whole.state)
        driver.remove(again)
        if not driver.adopts:
            assert driver.state(again) is HostState.NOT_FOUND, "something was made twice"

    def test_remove_twice(self, tmp_path: Path) -> None:
        driver, ctx = self.make(tmp_path)
        ctx = created(driver, ctx)
        driver.remove(ctx)
        driver.remove(ctx)
        if not driver.adopts:
            assert driver.state(ctx) is HostState.NOT_FOUND

    def test_remove_without_state_finds_by_tag(self, tmp_path: Path) -> None:
        driver, ctx = self.make(tmp_path)
        whole = created(driver, ctx)
        driver.remove(ctx)
        if not driver.adopts:
            assert driver.state(whole) is HostState.NOT_FOUND

    def test_start_and_stop_are_no_ops_in_the_wanted_state(self, tmp_path: Path) -> None:
        driver, ctx = self.make(tmp_path)
        ctx = created(driver, ctx)
        if not isinstance(driver, StartStop):
            return
        driver.start(ctx)
        assert driver.state(ctx) is HostState.RUNNING
        for _ in range(2):
            driver.stop(ctx)
            assert driver.state(ctx) is HostState.STOPPED
        driver.start(ctx)
        assert driver.state(ctx) is HostState.RUNNING

    def test_kill_turns_off(self, tmp_path: Path) -> None:
        driver, ctx = self.make(tmp_path)
        ctx = created(driver, ctx)
        if isinstance(driver, Kill):
            driver.kill(ctx)
            assert driver.state(ctx) is HostState.STOPPED

    def test_suspend_and_resume(self, tmp_path: Path) -> None:
        driver, ctx = self.make(tmp_path)
        ctx = created(driver, ctx)
        if isinstance(driver, Suspend):
            for _ in range(2):
                driver.suspend(ctx)
                assert driver.state(ctx) in {HostState.SAVED, HostState.PAUSED}
            for _ in range(2):
                driver.resume(ctx)
                assert driver.state(ctx) is HostState.RUNNING

    def test_snapshots_have_labels_and_go_with_the_host(self, tmp_path: Path) -> None:
        driver, ctx = self.make(tmp_path)
        ctx = created(driver, ctx)
        if isinstance(driver, Snapshot):
            driver.snapshot(ctx, "first")
            driver.snapshot(ctx, "second")
            assert driver.snapshots(ctx) == ["first", "second"]
            driver.restore(ctx, "first")
            for _ in range(2):
                driver.drop_snapshot(ctx, "second")
            assert "second" not in driver.snapshots(ctx)
            driver.remove(ctx)
            assert driver.state(ctx) is HostState.NOT_FOUND


def created(driver: Driver, ctx: DriverContext) -> DriverContext:
    """Run create to its end, storing as the real caller does."""
    state = dict(ctx.state)
    for made in driver.create(ctx):
        state[made.key] = made.value
    return dataclasses.replace(ctx, state=state)
