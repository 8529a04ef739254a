from pathlib import Path

from tests.lab.cgroups import Hierarchy, inner_mounts, parse_mountinfo
from tests.lab.enter import CgroupMount

_HYBRID = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime shared:3 - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
50 27 0:40 / /mnt/elsewhere/memory rw - cgroup cgroup rw,memory
"""
_PURE = "35 30 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def test_hybrid_hierarchies_are_found_where_they_are_mounted() -> None:
    assert parse_mountinfo(_HYBRID) == [
        Hierarchy(Path("/sys/fs/cgroup/unified"), "cgroup2", ""),
        Hierarchy(Path("/sys/fs/cgroup/cpu,cpuacct"), "cgroup", "cpu,cpuacct"),
        Hierarchy(Path("/sys/fs/cgroup/systemd"), "cgroup", "none,name=systemd"),
    ]


def test_a_host_sees_the_same_layout() -> None:
    assert [m.place for m in inner_mounts(parse_mountinfo(_HYBRID), only_v2=False)] == [
        "unified",
        "cpu,cpuacct",
        "systemd",
    ]
    pure = (CgroupMount("", "cgroup2", ""),)
    assert inner_mounts(parse_mountinfo(_PURE), only_v2=False) == pure


def test_a_v2_host_on_a_hybrid_computer_sees_only_v2() -> None:
    assert inner_mounts(parse_mountinfo(_HYBRID), only_v2=True) == (CgroupMount("", "cgroup2", ""),)
