"""One engine a module: builds leave only images behind."""

from collections.abc import Iterator

import pytest

from tests.cases.build.engine import Engine


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine()
    try:
        made.start()
        yield made
    finally:
        made.stop()
