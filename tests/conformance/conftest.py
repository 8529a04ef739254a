"""`--whole-fault-table`: break every call of every driver, not a part of them (minutes)."""

import pytest

from drivers.faults import FaultSuite


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole-fault-table", action="store_true", help=__doc__ or "")


@pytest.fixture(autouse=True)
def _whole_table(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--whole-fault-table") and isinstance(request.instance, FaultSuite):
        request.instance.every = 1  # type: ignore[misc]
