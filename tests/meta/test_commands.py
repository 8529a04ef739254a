"""The page of the commands tells what the commands say."""

from __future__ import annotations

from machine.cli import COMMANDS
from tests.meta.commands import EXAMPLES, PAGE, page


def test_page_is_fresh() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.meta.commands"


def test_examples_are_of_commands() -> None:
    assert set(EXAMPLES) <= set(COMMANDS)
