import pytest

from agent.errors import EngineError, Kind
from agent.runtime import translate
from agent.runtime.adapter import parse_size
from agent.runtime.cgroups import Hierarchies, monitor_homes, parse_mountinfo

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
34 31 0:31 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""


def test_hierarchies():
    hybrid = parse_mountinfo(HYBRID)
    assert hybrid.hidden == "/sys/fs/cgroup/unified"
    assert not hybrid.unified
    pure = parse_mountinfo("31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    assert pure == Hierarchies((), "/sys/fs/cgroup")
    assert pure.unified
    assert pure.hidden is None


def test_monitors_leave_a_service_and_nothing_else():
    hybrid = parse_mountinfo(HYBRID)
    assert monitor_homes(hybrid, "/machine", "2:cpu:/x\n1:name=systemd:/\n0::/\n") == ()
    assert monitor_homes(hybrid, "/machine", "1:name=systemd:/system.slice/a.service\n") == (
        "/sys/fs/cgroup/systemd/machine-conmon",
    )
    pure = Hierarchies((), "/sys/fs/cgroup")
    assert monitor_homes(pure, "/machine", "0::/system.slice/a.service\n") == (
        "/sys/fs/cgroup/machine-conmon",
    )


@pytest.mark.parametrize(
    ("runtime", "said", "program", "part"),
    [
        (
            "crun",
            "executable file `nosuch` not found in $PATH: No such file or directory\n",
            "nosuch",
            'exec: "nosuch": executable file not found in $PATH',
        ),
        (
            "crun",
            "executable file `/x` not found in $PATH: No such file or directory",
            "/x",
            'exec: "/x": stat /x: no such file or directory',
        ),
        ("crun", "open executable: Operation not permitted", "/etc", 'exec: "/etc": permission denied'),
        (
            "runc",
            (
                'time="2026" level=error msg="runc create failed: unable to start container '
                'process: exec: \\"nosuch\\": executable file not found in $PATH"\n'
            ),
            "nosuch",
            'exec: "nosuch": executable file not found in $PATH',
        ),
    ],
)  # fmt: skip
def test_create_errors(runtime, said, program, part):
    error = translate.create_error(runtime, said, (program,))
    assert error.kind is Kind.INVALID
    assert error.message == (
        "failed to create task for container: failed to create shim task: OCI runtime create "
        f"failed: {runtime} create failed: unable to start container process: {part}: unknown"
    )


def test_other_errors_are_ours():
    assert translate.create_error("crun", "mount `x`: no space", ("a",)).kind is Kind.INTERNAL


def test_exec_errors():
    said = '{"msg":"exec failed: unable to start container process: exec: \\"x\\": executable file not found in $PATH"}'
    error = translate.exec_error(said, ("x",))
    assert error.message == (
        "OCI runtime exec failed: exec failed: unable to start container process: "
        'exec: "x": executable file not found in $PATH: unknown'
    )
    assert translate.exec_code(error) == 127
    assert (
        translate.exec_code(translate.exec_error("open executable: Permission denied", ("/x",)))
        == 126
    )


def test_sizes():
    assert [parse_size(text) for text in ("10m", "1G", "512k", "7", "7b")] == [
        10 << 20, 1 << 30, 512 << 10, 7, 7,
    ]  # fmt: skip
    for bad in ("", "m", "-1", "1_0", "10mb"):
        with pytest.raises(EngineError):
            parse_size(bad)
