"""Budgets with a ratchet (style.md 5.3): a change may lower a number freely, and raises one only by
editing budget.json in the same change, where the reviewer sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.meta.measure import Measures, measure

BUDGET: dict[str, int] = json.loads((Path(__file__).parent / "budget.json").read_text())


@pytest.fixture(scope="module")
def measured() -> Measures:
    return measure()


@pytest.mark.parametrize("name", sorted(BUDGET))
def test_budget(measured: Measures, name: str) -> None:
    value = getattr(measured, name)
    number = len(value) if isinstance(value, list) else value
    assert number <= BUDGET[name], f"{name}: {value} (budget {BUDGET[name]})"


def test_no_banned_names(measured: Measures) -> None:
    assert measured.bad_names == []


def test_nothing_banned_is_used(measured: Measures) -> None:
    """security.md R21: no shell, no tarfile.extract, no unverified TLS, no pickles."""
    assert measured.banned == []
