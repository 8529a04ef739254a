"""Patience with what was made a moment ago."""

from pathlib import Path

import pytest

from drivers.aws.finding import LATE_SECONDS, patiently
from drivers.aws.options import OPTIONS
from drivers.errors import AuthError, DriverError, GoneError
from drivers.testkit import context


def _answers(*answers: str | DriverError) -> list[str | DriverError]:
    return list(answers)


def _call(left: list[str | DriverError]) -> str:
    answer = left.pop(0) if len(left) > 1 else left[0]
    if isinstance(answer, DriverError):
        raise answer
    return answer


def test_not_found_is_waited_out(tmp_path: Path) -> None:
    left = _answers(GoneError("sg-1 does not exist"), GoneError("not yet"), "here")
    assert patiently(context(tmp_path, OPTIONS, {}), lambda: _call(left)) == "here"


def test_what_never_comes_keeps_amazons_words(tmp_path: Path) -> None:
    ctx = context(tmp_path, OPTIONS, {})
    begun = ctx.clock.monotonic()
    with pytest.raises(GoneError, match="sg-1 does not exist"):
        patiently(ctx, lambda: _call(_answers(GoneError("sg-1 does not exist"))))
    assert LATE_SECONDS <= ctx.clock.monotonic() - begun < LATE_SECONDS + 5


def test_another_error_is_told_as_it_is(tmp_path: Path) -> None:
    left = _answers(GoneError("not yet"), AuthError("ExpiredToken"))
    with pytest.raises(AuthError, match="ExpiredToken"):
        patiently(context(tmp_path, OPTIONS, {}), lambda: _call(left))
