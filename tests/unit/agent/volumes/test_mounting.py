"""The local driver's options as arguments of mount(2)."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.errors import EngineError
from agent.volumes.mounting import MountPlan, mount, plan


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (
            {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=1000,noexec"},
            MountPlan("tmpfs", "tmpfs", 0x8, "size=1m,uid=1000", 0),
        ),
        (
            {"type": "none", "device": "/srv", "o": "bind"},
            MountPlan("/srv", "none", 0x1000, "", 0),
        ),
        (
            {"type": "none", "device": "/srv", "o": "rbind,ro,nosuid,rslave"},
            MountPlan("/srv", "none", 0x5003, "", 0x80000 | 0x4000),
        ),
        (
            {"type": "nfs", "device": ":/path", "o": "addr=10.0.0.1,rw,,nfsvers=4"},
            MountPlan(":/path", "nfs", 0, "addr=10.0.0.1,nfsvers=4", 0),
        ),
        ({"type": "ext4", "device": "/dev/sdz1"}, MountPlan("/dev/sdz1", "ext4", 0, "", 0)),
        (
            {"type": "ext4", "device": "/dev/x", "o": "ro,rw,sync,async,ro"},
            MountPlan("/dev/x", "ext4", 1, "", 0),
        ),
    ],
)
def test_plans(options: Mapping[str, str], wanted: MountPlan) -> None:
    assert plan(options) == wanted


@pytest.mark.parametrize("name", ["password", "Password2", "pass", "pass2", "secret"])
def test_case_151_no_password_is_told_when_a_mount_fails(name: str, tmp_path: Path) -> None:
    words = f"user=me,{name}=c4nary,uid=1"
    options = {"type": "no-such-type", "device": "//h/share", "o": words}
    with pytest.raises(EngineError) as told:
        mount(options, str(tmp_path))
    assert "c4nary" not in told.value.message
    assert f"user=me,{name}=********,uid=1" in told.value.message
