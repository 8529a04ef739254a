"""Facts of the host."""

import pytest

from agent.runtime.host import unified_swap


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ((), True),
        (("memory.max",), False),
        (("memory.max", "memory.swap.max"), True),
    ],
)
def test_unified_swap(tmp_path, files, expected):
    (tmp_path / "system.slice").mkdir()
    for name in files:
        (tmp_path / "system.slice" / name).write_text("max")
    assert unified_swap(str(tmp_path)) is expected
