from collections.abc import Iterator

import pytest

from tests.support.fakes import World
from tests.support.fakes import world as make_world


@pytest.fixture
def world() -> Iterator[World]:
    with make_world() as made:
        yield made
