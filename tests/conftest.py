"""Fixtures for every test: the lab's (see tests.lab.fixtures), and the mark of live tests."""

from pathlib import Path

import pytest

pytest_plugins = ["tests.lab.fixtures"]

_LIVE = Path(__file__).parent / "live"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What lies in tests/live, or asks for the lab, is live; one worker runs all of a module."""
    for item in items:
        uses_lab = "lab" in getattr(item, "fixturenames", ())
        if uses_lab or item.path.is_relative_to(_LIVE):
            item.add_marker(pytest.mark.live)
