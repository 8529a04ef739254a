"""The security floor of OCI runtimes (C31)."""

import pytest

from agent.engine.runtimefloor import warning


@pytest.mark.parametrize(
    ("name", "version", "old"),
    [
        ("crun", "1.8.1", True),
        ("crun", "1.27.9", True),
        ("crun", "1.28", False),
        ("crun", "1.28.1+dev", False),
        ("crun", "2.0", False),
        ("runc", "1.1.5+ds1", True),
        ("runc", "1.3.5", True),
        ("runc", "1.3.6", False),
        ("runc", "1.4.2", True),
        ("runc", "1.4.3", False),
        ("runc", "1.5.0", False),
        ("runc", "1.6.1", False),
        ("runc", "", False),
        ("youki", "0.1", False),
    ],
)
def test_floor(name: str, version: str, old: bool) -> None:
    said = warning(name, version)
    assert bool(said) is old
    if old:
        assert f"WARNING: {name} {version} " in said
        assert "CVE-" in said
