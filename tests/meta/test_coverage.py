"""The coverage page tells what the tables say."""

from __future__ import annotations

from tests.meta.coverage import PAGE, page


def test_page_is_fresh() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.meta.coverage"
