from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cases.net.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(str(tmp_path))
    try:
        yield made
    finally:
        made.close()
