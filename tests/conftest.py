"""Fixtures for every test: the lab's (see tests.lab.fixtures), and the mark of live tests."""

from pathlib import Path

import pytest

pytest_plugins = ["tests.lab.fixtures"]

_LIVE = Path(__file__).parent / "live"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--long`: the reliability goals as security.md has them (hours), not their quick form."""
    parser.addoption("--long", action="store_true", help="the long form of the reliability goals")


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the long form was asked for."""
    return bool(request.config.getoption("--long"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What lies in tests/live, or asks for the lab, is live; one worker runs all of a module."""
    for item in items:
        uses_lab = "lab" in getattr(item, "fixturenames", ())
        if uses_lab or item.path.is_relative_to(_LIVE):
            item.add_marker(pytest.mark.live)
