"""The lock of a computer."""

from pathlib import Path

import pytest

from drivers.errors import DriverError, WaitTimeoutError
from drivers.locks import locked
from drivers.testkit import TurnedClock


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lock"
    clock = TurnedClock()
    began = clock.monotonic()
    with (
        locked(path, what="the work", seconds=5, clock=clock),
        pytest.raises(DriverError, match="was not free within 5 s") as told,
        locked(path, what="the work", seconds=5, clock=clock),
    ):
        pass
    assert clock.monotonic() - began >= 5
    assert "wait for its end" in told.value.hint
    with locked(path, what="the work", seconds=0, clock=clock):
        assert path.exists()


def test_what_the_block_raises_goes_through(tmp_path: Path) -> None:
    clock = TurnedClock()
    with (
        pytest.raises(WaitTimeoutError, match="the boot"),
        locked(tmp_path / "lock", what="x", seconds=5, clock=clock),
    ):
        raise WaitTimeoutError("the boot", 3, "off")
    with locked(tmp_path / "lock", what="x", seconds=0, clock=clock):
        pass


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DriverError, match="cannot make the lock"),
        locked(tmp_path / "file" / "lock", what="x", seconds=0, clock=TurnedClock()),
    ):
        pass
