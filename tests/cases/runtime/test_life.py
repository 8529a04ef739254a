"""Containers from create to delete, with real crun, runc and conmon."""

import hashlib
import os
import select
import threading
import time
from pathlib import Path

import pytest

from agent.engine.model import HostConfig, LogQuery, MountPoint, Resources
from agent.errors import EngineError, Kind
from tests.cases.runtime.conftest import read_all, read_until

pytestmark = pytest.mark.live


def drain(stream) -> bytes:
    found = b""
    while True:
        data = stream.read()
        if data is None:
            assert select.select([stream], [], [], 20)[0]
        elif not data:
            stream.close()
            return found
        else:
            found += data


def test_output_code_and_log(bench):
    made = bench.launch("sh", "-c", "echo out; echo err >&2; printf 'no end'; exit 3")
    container_id = made.container.id
    pid = bench.runtime.create(made)
    assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
    stream = bench.runtime.attach(container_id)
    bench.runtime.start(container_id)
    assert read_all(stream) == (b"out\nno end", b"err\n")
    stream.close()
    found = bench.wait(container_id)
    assert (found.code, found.error, found.oom_killed) == (3, "", False)
    assert abs(found.finished_at / 1e9 - time.time()) < 60
    bench.runtime.delete(container_id)
    logs = bench.runtime.logs(made.container, LogQuery(framed=False, stderr=False))
    assert drain(logs) == b"out\nno end"
    logs = bench.runtime.logs(made.container, LogQuery(stdout=False))
    assert drain(logs) == b"\2\0\0\0\0\0\0\4err\n"
    bench.runtime.delete(container_id)  # idempotent
    bench.runtime.remove_logs(container_id)
    assert not Path(bench.runtime.paths.log_dir(container_id)).exists()


def test_stdin_half_close_20_mb(bench):
    data = os.urandom(20 << 20)
    made = bench.launch(
        "sh", "-c", "cat; echo after >&2", open_stdin=True, stdin_once=True, attach_stdin=True
    )
    container_id = made.container.id
    bench.runtime.create(made)
    stream = bench.runtime.attach(container_id)
    bench.runtime.start(container_id)

    def feed() -> None:
        view = memoryview(data)
        while view:
            taken = stream.write(bytes(view[:65536]))
            view = view[taken:]
            if not taken:
                select.select([], [stream.write_fileno()], [], 10)
        stream.close_write()

    writer = threading.Thread(target=feed)
    writer.start()
    out, err = read_all(stream, 60)
    writer.join()
    stream.close()
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()
    assert err == b"after\n"
    assert bench.wait(container_id).code == 0


def test_tty_and_resize(bench):
    made = bench.launch("sh", tty=True, open_stdin=True)
    container_id = made.container.id
    bench.runtime.create(made)
    stream = bench.runtime.attach(container_id)
    bench.runtime.start(container_id)
    assert stream.tty
    bench.runtime.resize(container_id, 37, 101)
    stream.write(b"until stty size | grep '37 101'; do :; done\n")
    read_until(stream, b"\n37 101")
    stream.write(b"exit 4\n")
    read_all(stream)
    stream.close()
    assert bench.wait(container_id).code == 4


def test_two_attached_clients_and_detach(bench):
    container = bench.begin("sh", "-c", "read x; echo got $x", open_stdin=True)
    first, second = bench.runtime.attach(container.id), bench.runtime.attach(container.id)
    third = bench.runtime.attach(container.id)
    third.close()
    first.write(b"word\n")
    assert read_all(first)[0] == read_all(second)[0] == b"got word\n"
    first.close()
    second.close()
    assert bench.wait(container.id).code == 0


def test_only_clients_with_stdin_end_a_shared_stdin(bench):
    """conmon alone would end it for anyone who leaves (StdinOnce)."""
    script = "read x; echo one $x; read x; echo two $x; cat; echo end"
    container = bench.begin("sh", "-c", script, open_stdin=True, stdin_once=True)
    attach = bench.runtime.attach
    gone = [attach(container.id) for _ in range(3)]
    for one in gone:
        one.close()
    first, second = attach(container.id), attach(container.id)
    first.write(b"a\n")
    assert b"one a" in read_until(second, b"one a\n")
    assert b"one a" in read_until(first, b"one a\n")
    second.close()
    late = attach(container.id)
    late.write(b"b\nrest")
    assert read_until(late, b"two b\nrest") == b"two b\nrest"  # nothing of before
    first.close_write()
    assert read_all(late)[0] == b"end\n"
    for one in (first, late):
        one.close()
    assert bench.wait(container.id).code == 0


def test_connections_kept_for_stdin_are_used_again(bench):
    container = bench.begin("sh", "-c", "cat; sleep 100", open_stdin=True, stdin_once=True)
    for _ in range(50):
        bench.runtime.attach(container.id).close()
    conmon = bench.record(container.id).monitor
    found = [os.readlink(link) for link in Path(f"/proc/{conmon}/fd").iterdir()]
    assert sum(name.startswith("socket:") for name in found) < 6, found
    bench.runtime.signal(container.id, 9)
    bench.wait(container.id)


def test_exec(bench):
    container = bench.begin("sleep", "1000", env=("MARK=1",))
    assert bench.exec(container, "sh", "-c", "echo $MARK$B; echo e >&2; exit 7", env=("B=2",)) == (
        7, b"12\n", b"e\n",
    )  # fmt: skip
    assert bench.exec(container, "id", "-un", user="bob")[1] == b"bob\n"
    assert bench.exec(container, "pwd", working_dir="/tmp")[1] == b"/tmp\n"
    code, out, _ = bench.exec(container, "sh", "-c", "tty; kill -9 $$", tty=True)
    assert (code, out.startswith(b"/dev/pts/")) == (137, True)
    for program, text in (
        ("nosuch", 'exec: "nosuch": executable file not found in $PATH: unknown'),
        ("/nosuch", "no such file or directory: unknown"),
        ("/etc/passwd", "permission denied: unknown"),
    ):
        with pytest.raises(EngineError) as caught:
            bench.exec(container, program)
        assert caught.value.message.startswith("OCI runtime exec failed: exec failed: ")
        assert text in caught.value.message
    with pytest.raises(EngineError, match="unable to find user nosuch"):
        bench.exec(container, "true", user="nosuch")


def test_exec_stdin_and_tty_resize(bench):
    container = bench.begin("sleep", "1000")
    ended = threading.Event()
    config = bench_exec(("sh",), tty=True, attach_stdin=True, attach_stdout=True)
    process = bench.runtime.exec(
        container, config, "e1", detach=False, on_exit=lambda _code: ended.set()
    )
    stream = process.stream()
    process.resize(33, 99)
    stream.write(b"until stty size | grep '33 99'; do :; done\nexit\n")
    read_until(stream, b"\n33 99")
    read_all(stream)
    stream.close()
    assert ended.wait(10)
    config = bench_exec(("cat",), attach_stdin=True, attach_stdout=True)
    process = bench.runtime.exec(container, config, "e2", detach=False, on_exit=lambda _code: None)
    stream = process.stream()
    assert stream.write(b"hello") == 5
    stream.close_write()
    assert read_all(stream)[0] == b"hello"
    stream.close()


def bench_exec(cmd, **options):
    from agent.engine.model import ExecConfig

    return ExecConfig(cmd=cmd, **options)


def test_exec_goes_on_when_its_client_goes(bench):
    container = bench.begin("sleep", "1000")
    ended = threading.Event()
    config = bench_exec(("sh", "-c", "head -c 3000000 /dev/zero; touch /done"), attach_stdout=True)
    process = bench.runtime.exec(
        container, config, "e1", detach=False, on_exit=lambda _code: ended.set()
    )
    process.stream().close()
    assert ended.wait(20)
    assert bench.exec(container, "ls", "/done")[0] == 0


def test_execs_leave_nothing(crun):
    container = crun.begin("sleep", "1000")
    crun.exec(container, "true")
    before = len(os.listdir("/proc/self/fd"))
    for number in range(40):
        crun.exec(container, "true", tty=bool(number % 2))
    assert len(os.listdir("/proc/self/fd")) == before
    assert os.listdir(crun.runtime.paths.execs) == []


def test_pause_signal_and_limits(bench):
    host = HostConfig(resources=Resources(memory=64 << 20, pids_limit=33, nano_cpus=500_000_000))
    container = bench.begin("sleep", "1000", host=host)
    group = bench.runtime.cgroups
    limits = {}
    for folder in group.directories(container.id):
        for name in ("memory.limit_in_bytes", "memory.max", "pids.max", "cpu.cfs_quota_us"):
            path = Path(folder) / name
            if path.exists():
                limits[name] = path.read_text().strip()
    assert str(64 << 20) in limits.values()
    assert limits["pids.max"] == "33"
    bench.runtime.pause(container.id)
    assert group.is_frozen(container.id)
    bench.runtime.resume(container.id)
    assert not group.is_frozen(container.id)
    bench.runtime.signal(container.id, 9)
    assert bench.wait(container.id).code == 137
    with pytest.raises(EngineError) as caught:
        bench.runtime.signal(container.id, 9)
    assert caught.value.kind is Kind.NOT_FOUND


def test_real_time_is_handed_down(crun):
    """Where the kernel has it (cgroup v1): else the API refuses it."""
    top = next((one for one in crun.runtime.cgroups.hierarchies.v1 if one.endswith(",cpuacct")), "")
    top = top or next(one for one in crun.runtime.cgroups.hierarchies.v1 if one.endswith("/cpu"))
    if not os.path.exists(f"{top}/cpu.rt_runtime_us"):
        assert not crun.runtime.real_time
        return
    assert crun.runtime.real_time
    wanted = Resources(cpu_realtime_runtime=20_000, cpu_realtime_period=1_000_000)
    for _ in range(2):  # the second needs room beside the first
        container = crun.begin("sleep", "1000", host=HostConfig(resources=wanted))
        group = f"{top}{crun.runtime.cgroups.path(container.id)}"
        assert Path(f"{group}/cpu.rt_runtime_us").read_text() == "20000\n"
    for identity in list(crun.ids):
        crun.runtime.signal(identity, 9)
        crun.wait(identity)


def test_volumes_are_filled_once(bench):
    (bench.lower / "data").mkdir(mode=0o750)
    (bench.lower / "data/file").write_text("from the image")
    os.chown(bench.lower / "data/file", 5, 6)
    (bench.lower / "data/link").symlink_to("/etc/shadow")
    os.link(bench.lower / "data/file", bench.lower / "data/hard")
    volume = bench.base / "volume/_data"
    volume.mkdir(parents=True)
    mounts = (MountPoint("volume", "/data", str(volume), copy_up=True),)
    assert bench.sh("cat /data/file; echo new > /data/file", mounts=mounts) == "from the image"
    assert bench.sh("cat /data/file", mounts=mounts) == "new\n"
    assert (volume / "file").stat().st_uid == 5
    assert (volume / "file").stat().st_ino == (volume / "hard").stat().st_ino
    assert os.readlink(volume / "link") == "/etc/shadow"
    assert volume.stat().st_mode & 0o777 == 0o750
    assert os.listdir(volume.parent) == ["_data"]


def test_engine_files_binds_and_workdir(bench):
    shared = bench.base / "shared"
    shared.mkdir()
    mounts = (MountPoint("bind", "/mnt/x", str(shared), read_write=False),)
    out = bench.sh(
        "cat /etc/hosts; pwd; hostname; touch /mnt/x/f 2>&1 | grep -o 'Read-only.*'",
        mounts=mounts,
        working_dir="/made/for/me",
        host=HostConfig(tmpfs={"/scratch": "size=1m"}),
    )
    assert out == "hosts of the engine\n/made/for/me\nboxname\nRead-only file system\n"
    missing = (MountPoint("bind", "/mnt/x", str(bench.base / "missing")),)
    with pytest.raises(EngineError, match="bind source path does not exist"):
        bench.runtime.create(bench.launch("true", mounts=missing))


def test_127_layers(crun):
    lower = []
    for number in range(127):
        folder = crun.base / "layers" / f"{number:064d}" / "diff"
        folder.mkdir(parents=True)
        (folder / f"f{number}").touch()
        lower.append(str(folder))
    made = crun.launch("sh", "-c", "ls -d /f* | wc -l")
    from dataclasses import replace

    rootfs = replace(made.rootfs, lower=(*lower, *made.rootfs.lower))
    crun.runtime.create(replace(made, rootfs=rootfs))
    stream = crun.runtime.attach(made.container.id)
    crun.runtime.start(made.container.id)
    assert read_all(stream)[0] == b"127\n"
    stream.close()


def test_logs_follow_within_milliseconds(crun):
    container = crun.begin("sh", "-c", "while read x; do echo $x; done", open_stdin=True)
    follower = crun.runtime.logs(container, LogQuery(follow=True, framed=False))
    assert follower.read() is None
    stream = crun.runtime.attach(container.id)
    delays = []
    for word in (b"one\n", b"two\n", b"three\n"):
        began = time.monotonic()
        stream.write(word)
        got = b""
        while got != word:
            assert select.select([follower], [], [], 10)[0]
            got += follower.read() or b""
        delays.append(time.monotonic() - began)
    assert min(delays) < 0.02
    crun.runtime.signal(container.id, 9)
    assert drain(follower) == b""
    stream.close()


def test_the_same_container_again_and_again(crun):
    """As a restart policy does it: deleted and made again from the exit callback's news."""
    made = crun.launch("sh", "-c", "echo again; sleep 0.02; exit 5")
    container_id = made.container.id
    for _ in range(10):
        crun.runtime.create(made)
        crun.runtime.start(container_id)
        found = crun.wait(container_id)
        assert (found.code, found.error) == (5, "")
        del crun.ends[container_id]
        crun.runtime.delete(container_id)
    logs = crun.runtime.logs(made.container, LogQuery(framed=False, tail=3))
    assert drain(logs) == b"again\n" * 3


def test_log_driver_none_and_size_limit(crun):
    host = HostConfig(log_driver="none")
    made = crun.launch("echo", "x", host=host)
    crun.runtime.create(made)
    stream = crun.runtime.attach(made.container.id)
    crun.runtime.start(made.container.id)
    assert read_all(stream)[0] == b"x\n"
    stream.close()
    with pytest.raises(EngineError, match="does not support reading"):
        crun.runtime.logs(made.container, LogQuery())
    host = HostConfig(log_options={"max-size": "20k"})
    container = crun.begin("sh", "-c", "seq 20000; sleep 0.1; echo last", host=host)
    follower = crun.runtime.logs(container, LogQuery(follow=True, framed=False))
    assert drain(follower).endswith(b"last\n")
    log = Path(crun.runtime.paths.log(container.id))
    assert log.stat().st_size <= 20 << 10
