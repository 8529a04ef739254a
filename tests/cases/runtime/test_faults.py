"""Hostile and fault cases of reference/security.md, by their numbers."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.engine.model import ContainerConfig, HostConfig, Resources
from agent.errors import EngineError
from agent.host import process
from agent.runtime import record, spec

pytestmark = pytest.mark.live


def test_failed_creates_leave_nothing(bench):
    for args, options, text in (
        (("nosuch",), {}, 'exec: "nosuch": executable file not found in $PATH'),
        (("/nosuch",), {}, "no such file or directory"),
        (("/etc/passwd",), {}, "permission denied"),
        (("true",), {"user": "nosuch"}, "unable to find user nosuch: no matching entries"),
        (("true",), {"working_dir": "/etc/passwd/x"}, "is not a directory"),
    ):
        made = bench.launch(*args, **options)
        with pytest.raises(EngineError) as caught:
            bench.runtime.create(made)
        assert text in caught.value.message
        bench.runtime.remove_logs(made.container.id)
    bench.assert_clean()


def test_case_041_environment_of_the_monitor(bench):
    bad = ("LD_PRELOAD=/x.so", "PATH=/image", "PYTHONPATH=/image", "NOTIFY_SOCKET=/n")
    container = bench.begin("/bin/sleep", "1000", env=bad)
    known = bench.record(container.id)
    environ = Path(f"/proc/{known.monitor}/environ").read_bytes().split(b"\0")
    values = dict(entry.split(b"=", 1) for entry in environ if entry)
    assert values.pop(b"_OCI_SYNCPIPE", b"")
    assert values.pop(b"_OCI_STARTPIPE", b"")
    assert values == {k.encode(): v.encode() for k, v in process.ENVIRONMENT.items()}


def test_case_042_descriptors_and_working_directory(bench):
    container = bench.begin("sleep", "1000")
    assert bench.exec(container, "ls", "/proc/1/fd")[1].split() == [b"0", b"1", b"2"]
    (bench.lower / "trap").symlink_to("/proc/self/fd/7")
    for number in (3, 7, 40):
        with pytest.raises(EngineError):
            bench.exec(container, "pwd", working_dir=f"/proc/self/fd/{number}")
        with pytest.raises(EngineError):
            bench.run("pwd", working_dir=f"/proc/self/fd/{number}")
    with pytest.raises(EngineError):
        bench.run("pwd", working_dir="/trap")


def test_case_020_dev_as_a_symlink(bench):
    canary = bench.base / "canary"
    canary.mkdir()
    os.rmdir(bench.lower / "dev")
    (bench.lower / "dev").symlink_to(canary)
    with pytest.raises(EngineError, match="/dev is not a directory"):
        bench.run("true")
    assert os.listdir(canary) == []


def test_case_049_passwd_is_a_fifo(bench):
    (bench.lower / "etc/passwd").unlink()
    os.mkfifo(bench.lower / "etc/passwd")
    began = time.monotonic()
    for user in ("12", "bob"):
        with pytest.raises(EngineError, match="/etc/passwd is not a regular file"):
            bench.run("true", user=user)
    assert time.monotonic() - began < 2


def capabilities_of(bench, **options) -> dict[str, str]:
    lines = bench.sh("grep ^Cap /proc/self/status", **options).split()
    return dict(zip(lines[::2], lines[1::2], strict=True))


def test_case_051_capabilities(bench):
    default = "00000000a80425fb"
    none = "0" * 16
    found = capabilities_of(bench)
    assert found == {
        "CapInh:": none, "CapAmb:": none, "CapBnd:": default, "CapEff:": default, "CapPrm:": default,
    }  # fmt: skip
    assert capabilities_of(bench, user="bob")["CapEff:"] == none
    dropped = capabilities_of(bench, host=HostConfig(cap_drop=("ALL",)))
    assert set(dropped.values()) == {none}
    container = bench.begin("sleep", "1000")
    assert default.encode() in bench.exec(container, "grep", "CapBnd", "/proc/self/status")[1]


def test_case_052_groups(bench):
    assert bench.sh("id -G", user="bob").split() == ["1000", "2000"]
    host = HostConfig(group_add=("77",))
    assert set(bench.sh("id -G", user="bob", host=host).split()) == {"1000", "2000", "77"}


def test_case_053_masks_and_read_only_paths(bench):
    script = """
    wc -c < /proc/interrupts; wc -c < /proc/timer_list; ls /sys/firmware | wc -l
    cat /proc/mounts"""
    counts, mounts = bench.sh(script).split("\n")[:3], {}
    out = bench.sh("cat /proc/mounts")
    for line in out.splitlines():
        _, target, _, options, *_ = line.split()
        mounts[target] = options.split(",")[0]
    assert counts == ["0", "0", "0"]
    for path in (*spec.READ_ONLY, "/sys", "/sys/fs/cgroup/memory"):
        if os.path.exists(path):
            assert mounts[path] == "ro", path


def test_case_053_privileged_has_none(bench):
    out = bench.sh("wc -c < /proc/interrupts; ls /dev | wc -l", host=HostConfig(privileged=True))
    interrupts, devices = (int(word) for word in out.split())
    assert interrupts > 0
    assert devices > 15


def test_case_055_seccomp(bench):
    script = "grep -w Seccomp: /proc/self/status; unshare -U true; mount -t tmpfs x /tmp; true"
    for _ in range(2):  # the second time crun gets the filter that was kept
        code, out, err = bench.run("sh", "-c", script)
        assert (code, out) == (0, b"Seccomp:\t2\n")
        assert err.count(b"permitted") + err.count(b"denied") == 2
    host = HostConfig(security_opt=("seccomp=unconfined", "no-new-privileges"))
    out = bench.sh("grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status", host=host)
    assert out.split() == ["NoNewPrivs:", "1", "Seccomp:", "0"]


def test_case_121_conmon_killed(bench):
    container = bench.begin("sh", "-c", "sleep 1000 & sleep 1000")
    known = bench.record(container.id)
    os.kill(known.monitor, signal.SIGKILL)
    found = bench.wait(container.id, 5)
    assert found.code == 137
    assert "conmon" in found.error
    assert bench.runtime.cgroups.pids(container.id) == set()


AGENT = """
import sys
sys.path.insert(0, {root!r})
from tests.cases.runtime.conftest import Bench
from agent.engine.model import *
from pathlib import Path
class Late(Bench):
    def _make_lower(self): pass
bench = Late({name!r}, Path({base!r}))
bench.runtime.close()
bench.parent = {parent!r}
from dataclasses import replace
bench.settings = replace(bench.settings, cgroup_parent={parent!r})
bench.runtime = bench.open()
for script in ("sleep 1000", "read x; exit 9"):
    c = bench.begin("sh", "-c", script, open_stdin=True)
    print(c.id, flush=True)
print("ready", flush=True)
import signal
signal.pause()
"""


def test_case_122_survivors_of_a_killed_agent(bench):
    root = str(Path(__file__).parents[3])
    code = AGENT.format(
        root=root, name=bench.runtime.name, base=str(bench.base), parent=bench.parent
    )
    agent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert agent.stdout
    try:
        lines = [agent.stdout.readline().strip() for _ in range(3)]
    finally:
        agent.kill()
        agent.wait()
        agent.stdout.close()
    assert lines[2] == "ready"
    running, ending = lines[:2]
    bench.ids += lines[:2]
    stream = bench.runtime.attach(ending)  # conmon is there; the agent is not
    stream.write(b"word\n")
    while stream.read() != []:
        assert select.select([stream], [], [], 10)[0]
    stream.close()
    bench.runtime.close()
    bench.ends.clear()
    bench.runtime = bench.open()
    found = {survivor.container_id: survivor for survivor in bench.runtime.survivors()}
    assert found[running].pid > 0
    assert bench.wait(ending).code == 9
    made = bench.launch("true").container
    from dataclasses import replace

    again = replace(made, id=running, config=ContainerConfig())
    assert bench.exec(again, "echo", "alive")[1] == b"alive\n"
    known = bench.record(running)
    os.kill(known.monitor, signal.SIGKILL)
    assert bench.wait(running).code == 137


def test_case_123_a_recycled_pid_is_not_believed(crun):
    container = crun.begin("sleep", "1000")
    known = crun.record(container.id)
    from dataclasses import replace

    other = subprocess.Popen(["sleep", "100"])
    try:
        record.save(crun.runtime.paths, container.id, replace(known, pid=other.pid))
        with pytest.raises(EngineError, match="not running"):
            crun.runtime.signal(container.id, 9)
        record.save(crun.runtime.paths, container.id, replace(known, boot_id="another"))
        assert [s.pid for s in crun.runtime.survivors()] == [0]
        record.save(crun.runtime.paths, container.id, known)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_case_116_killed_in_the_middle_of_create(crun):
    """A conmon held at its start pipe, and a bundle without a record: survivors() clears both."""
    code = AGENT.split("for script", maxsplit=1)[0].format(
        root=str(Path(__file__).parents[3]), name="crun", base=str(crun.base), parent=crun.parent
    )
    code += """
import os
def stop(self, *a):
    print("held", flush=True)
    signal.pause()
import signal
from agent.runtime import conmon
conmon.Monitor.create = stop
bench.begin("sleep", "1000")
"""
    agent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert agent.stdout
    try:
        assert agent.stdout.readline().strip() == "held"
    finally:
        agent.kill()
        agent.wait()
        agent.stdout.close()
    assert crun.runtime.survivors() == []
    crun.assert_clean()


def test_case_058_out_of_memory_is_told(crun):
    script = 'x=$(head -c 200000000 /dev/zero | tr "\\0" x); echo ${#x}'
    host = HostConfig(resources=Resources(memory=20 << 20))
    container = crun.begin("sh", "-c", script, host=host)
    found = crun.wait(container.id, 30)
    assert (found.code, found.oom_killed) == (137, True)
