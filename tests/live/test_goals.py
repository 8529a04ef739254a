"""The reliability goals R1 to R7 of the security notes, in a quick form and, with --long, in the long one.

python -m pytest tests/live/test_goals.py tests/live/test_reliability.py --long     # hours
"""

import http.client
import os
import random
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.waiting import wait_until
from tests.live.test_reliability import assert_nothing_left, kill_agent, survivors
from tests.support import traces
from tests.support.installed import Answer, Installed

_BUSY = {"Image": "busybox", "Cmd": ["sleep", "1000"]}
_GONE = (OSError, http.client.HTTPException)


def outer_pid(box: Installed) -> int:
    """The agent's process id as this computer sees it."""
    inner = str(box.agent_pid())
    space = os.readlink(f"/proc/{box.host.init_pid}/ns/pid")
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            if os.readlink(status.parent / "ns/pid") != space:
                continue
            found = re.search(r"^NSpid:.*\s(\d+)$", status.read_text(), re.MULTILINE)
            if found and found[1] == inner:
                return int(status.parent.name)
    raise AssertionError("the agent is not running")


@contextmanager
def injected(box: Installed, what: str) -> Iterator[None]:
    """strace on all threads of the agent with that `-e inject`, from the first request on."""
    pid = outer_pid(box)
    argv = ["strace", "-qqq", "-f", "-o", "/dev/null", "-p", str(pid)]
    call = what.partition(":")[0]
    tracer = subprocess.Popen([*argv, "-e", f"trace={call}", "-e", f"inject={what}"])

    def attached() -> bool:
        tasks = list(Path(f"/proc/{pid}/task").glob("*/status"))
        return all("TracerPid:\t0" not in task.read_text() for task in tasks)

    try:
        wait_until(attached, 10, "strace is attached", interval=0.01)
        yield
    finally:
        tracer.send_signal(signal.SIGTERM)
        try:
            tracer.wait(5)
        except (
            subprocess.TimeoutExpired
        ):  # it waits for threads that never stop: the kernel detaches
            tracer.kill()
            tracer.wait()


def asked(box: Installed, method: str, path: str, body: object = None, **more: object) -> int:
    """The status of an answer; 0 when there was none."""
    try:
        return box.api(method, path, body, **more).status
    except _GONE:
        return 0


@dataclass(frozen=True)
class Operation:
    """Something that is fully there or fully gone after a kill, and certain when acknowledged."""

    name: str
    prepare: tuple[tuple[str, str, object], ...]
    call: tuple[str, str, object]
    look: str
    after: Callable[[Answer], bool]  # what an acknowledged one must look like


def _status(*wanted: str) -> Callable[[Answer], bool]:
    def check(answer: Answer) -> bool:
        state = answer.document.get("State") if answer.status == 200 else None
        return isinstance(state, dict) and state["Status"] in wanted

    return check


def _there(answer: Answer) -> bool:
    return answer.status == 200


def _gone(answer: Answer) -> bool:
    return answer.status == 404


_MAKE = ("POST", "/containers/create?name=victim", _BUSY)
_START = ("POST", "/containers/victim/start", None)
_SEE = "/containers/victim/json"
OPERATIONS = (
    Operation("create", (), _MAKE, _SEE, _status("created")),
    Operation("start", (_MAKE,), _START, _SEE, _status("running")),
    Operation("kill", (_MAKE, _START), ("POST", "/containers/victim/kill", None), _SEE,
              _status("exited", "running")),  # acknowledged when the signal was sent
    Operation("stop", (_MAKE, _START), ("POST", "/containers/victim/stop?t=0", None), _SEE,
              _status("exited")),
    Operation("rm", (_MAKE, _START), ("DELETE", "/containers/victim?force=1", None), _SEE, _gone),
    Operation("rename", (_MAKE,), ("POST", "/containers/victim/rename?name=other", None),
              "/containers/other/json", _there),
    Operation("volume create", (), ("POST", "/volumes/create", {"Name": "kept"}),
              "/volumes/kept", _there),
    Operation("volume rm", (("POST", "/volumes/create", {"Name": "kept"}),),
              ("DELETE", "/volumes/kept", None), "/volumes/kept", _gone),
    Operation("network create", (), ("POST", "/networks/create", {"Name": "netted"}),
              "/networks/netted", _there),
    Operation("network rm", (("POST", "/networks/create", {"Name": "netted"}),),
              ("DELETE", "/networks/netted", None), "/networks/netted", _gone),
    Operation("tag", (), ("POST", "/images/busybox/tag?repo=tagged&tag=1", None),
              "/images/tagged:1/json", _there),
)  # fmt: skip
CALLS = ("fdatasync", "pwrite64", "mkdir", "mkdirat", "mount", "umount2", "rename", "renameat",
         "unlink", "unlinkat", "rmdir", "vfork", "clone3", "sendto", "sendmsg", "openat")  # fmt: skip
_UNDO = (
    ("DELETE", "/containers/victim?force=1"),
    ("DELETE", "/containers/other?force=1"),
    ("DELETE", "/volumes/kept?force=1"),
    ("DELETE", "/networks/netted"),
    ("DELETE", "/images/tagged:1"),
)


def _points(long: bool) -> Generator[tuple[Operation, str, int], bool | None, None]:
    """(operation, system call, which one of them): all of them in the long form, else a sample."""
    if not long:
        dice = random.Random(random.randrange(1 << 32))
        for _ in range(16):
            yield dice.choice(OPERATIONS), dice.choice(CALLS), dice.randint(1, 3)
        return
    for operation in OPERATIONS:
        for call in CALLS:
            for number in range(1, 400):
                reached = yield operation, call, number
                if not reached:
                    break


@pytest.mark.timeout(4 * 3600)
def test_case_116_killed_at_system_calls(box: Installed, long: bool) -> None:
    """R2: SIGKILL at the nth of a system call, in each operation."""
    before, hits = traces.look(box.host), 0
    points = _points(long)
    reached: bool | None = None
    while True:
        try:
            operation, call, number = points.send(reached)
        except StopIteration:
            break
        reached = _killed_at(box, operation, call, number)
        hits += reached
    print(f"{hits} kills")
    assert hits > 0
    assert_nothing_left(box, before)


def _killed_at(box: Installed, operation: Operation, call: str, number: int) -> bool:
    where = f"{operation.name}: {call} number {number}"
    for step in operation.prepare:
        assert asked(box, *step) in {201, 204}, where
    agent = box.agent_pid()
    with injected(box, f"{call}:signal=KILL:when={number}"):
        answer = asked(box, *operation.call, timeout=90)
    box.wait(box.answers, "the agent", 30)
    died = box.agent_pid() != agent
    seen = box.api("GET", operation.look)
    assert seen.status in {200, 404}, (where, seen)
    if 200 <= answer < 300:
        assert operation.after(seen), (where, answer, seen.body[:300])
    else:  # it was the agent, or a child of it (conmon, the runtime), whose end is told
        assert died or answer >= 400, (where, answer)
    for method, path in _UNDO:
        assert asked(box, method, path) in {200, 204, 404}, (where, path)
    return died or answer >= 400


_ERRORS = ("ENOSPC", "EIO", "EMFILE", "ENOMEM")


@pytest.mark.timeout(4 * 3600)
def test_case_128_errors_of_system_calls(box: Installed, long: bool) -> None:
    """R5: an error at each call is told to the client; the agent goes on, and cleaning up works."""
    before = traces.look(box.host)
    dice = random.Random(random.randrange(1 << 32))
    calls = [c for c in CALLS if c not in {"sendto", "sendmsg"}]  # those carry the answer itself
    table = [(o, c, e, n) for o in OPERATIONS for c in calls for e in _ERRORS for n in (1, 2, 3)]
    for operation, call, error, number in table if long else dice.sample(table, 16):
        where = f"{operation.name}: {call} number {number} fails with {error}"
        for step in operation.prepare:
            assert asked(box, *step) in {201, 204}, where
        with injected(box, f"{call}:error={error}:when={number}"):
            answer = asked(box, *operation.call, timeout=90)
        box.wait(box.answers, "the agent", 30)
        seen = box.api("GET", operation.look)
        assert seen.status in {200, 404}, (where, seen)
        if 200 <= answer < 300:
            assert operation.after(seen), (where, answer, seen.body[:300])
        for method, path in _UNDO:
            assert asked(box, method, path) in {200, 204, 404}, (where, path)
    assert_nothing_left(box, before)


def test_case_129_no_descriptors_left(box: Installed) -> None:
    """With no descriptor to be had, requests fail with an answer; later ones work."""
    pid = outer_pid(box)
    open_now = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    limit = Path(f"/proc/{pid}/limits").read_text()
    soft, hard = re.findall(r"Max open files\s+(\d+)\s+(\d+)", limit)[0]
    agent = box.agent_pid()
    subprocess.run(["prlimit", "-p", str(pid), f"--nofile={open_now + 3}:{hard}"], check=True)
    try:
        answers = [asked(box, "POST", "/containers/create", _BUSY) for _ in range(3)]
        answers += [asked(box, "POST", "/volumes/create", {"Name": "kept"})]
    finally:
        subprocess.run(["prlimit", "-p", str(pid), f"--nofile={soft}:{hard}"], check=True)
    assert all(status in {0, 201, 500, 503} for status in answers), answers
    box.wait(box.answers, "the agent")
    assert box.agent_pid() == agent
    assert box.docker("run", "--rm", "busybox", "echo", "well").text == "well"


@pytest.mark.timeout(4 * 3600)
def test_case_138_recovery_with_many_containers(box: Installed, long: bool) -> None:
    """R3: after a kill all are found again with their pids; with 1,000 in the long form."""
    count = 1000 if long else 20
    for number in range(count):
        assert asked(box, "POST", f"/containers/create?name=many{number}", _BUSY) == 201
        assert asked(box, "POST", f"/containers/many{number}/start") == 204
    pids = [box.state(f"many{n}")["Pid"] for n in range(count)]
    with survivors(box):
        kill_agent(box)
        assert [box.state(f"many{n}")["Pid"] for n in range(count)] == pids


@pytest.mark.timeout(4 * 3600)
def test_case_137_soak(box: Installed, long: bool) -> None:
    """R7: run --rm over and over: descriptors, threads and memory do not grow."""
    before = traces.look(box.host)

    def usage() -> tuple[int, int, int]:
        pid = outer_pid(box)
        rss = re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
        return len(descriptors), len(list(Path(f"/proc/{pid}/task").iterdir())), int(rss)

    def rounds(count: int) -> None:
        for _ in range(count):
            made = box.api("POST", "/containers/create", {**_BUSY, "Cmd": ["true"]}).document["Id"]
            assert asked(box, "POST", f"/containers/{made}/start") == 204
            assert asked(box, "POST", f"/containers/{made}/wait") == 200
            assert asked(box, "DELETE", f"/containers/{made}") == 204

    rounds(30)  # what is made once and kept: threads, pools, caches
    first = usage()
    rounds(10_000 if long else 60)
    last = usage()
    print(f"descriptors, threads, KiB: {first} -> {last}")
    assert last[0] <= first[0] + 2
    assert last[1] <= first[1] + 2
    assert last[2] <= first[2] * 1.05 + (0 if long else 2048)
    assert_nothing_left(box, before)


@pytest.mark.timeout(4 * 3600)
def test_case_171_two_thousand_containers(box: Installed, long: bool) -> None:
    """All are listed, each once, and each had its events."""
    count = 2000 if long else 300
    since = box.api("GET", "/info").document["SystemTime"]
    failed: list[int] = []

    def some(part: int) -> None:
        failed.extend(
            number
            for number in range(part, count, 4)
            if asked(box, "POST", f"/containers/create?name=c{number}", _BUSY) != 201
        )

    threads = [threading.Thread(target=some, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    listed = box.api("GET", "/containers/json", all="true").json()
    assert isinstance(listed, list)
    assert len({one["Id"] for one in listed}) == count
    until = box.api("GET", "/info").document["SystemTime"]
    said = box.docker("events", "--since", str(since), "--until", str(until),
                      "--filter", "event=create", "--format", "{{.ID}}").lines  # fmt: skip
    assert {one["Id"] for one in listed} == set(said)
    kill_agent(box)
    again = box.api("GET", "/containers/json", all="true").json()
    assert isinstance(again, list)
    assert {one["Id"] for one in again} == {one["Id"] for one in listed}


def test_case_136_agent_out_of_memory(box: Installed) -> None:
    """The kernel ends the agent for its memory: it is started again, and containers go on."""
    before = traces.look(box.host)
    with survivors(box):
        agent = box.agent_pid()
        group = box.host.run("sed", "-n", "s/.*:memory://p", f"/proc/{agent}/cgroup").stdout.strip()
        place = f"/sys/fs/cgroup/memory{group}"
        box.host.run(
            "sh", "-c", f"cat {place}/memory.usage_in_bytes > {place}/memory.limit_in_bytes"
        )
        large = {"Image": "busybox", "Labels": {f"l{n}": "x" * 500 for n in range(4000)}}
        try:
            for _ in range(100):
                asked(box, "POST", "/containers/create", large)
                if not box.answers() or box.agent_pid() != agent:
                    break
        finally:
            box.host.run("sh", "-c", f"echo -1 > {place}/memory.limit_in_bytes", check=False)
        box.wait(box.answers, "the agent", 30)
        assert box.agent_pid() != agent
    assert_nothing_left(box, before)
