"""The coverage page tells what the tables say, and names a test for each row."""

from __future__ import annotations

from tests.meta.coverage import PAGE, page, untested


def test_page_is_fresh() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.meta.coverage"


def test_every_served_route_has_a_test() -> None:
    assert untested() == []
