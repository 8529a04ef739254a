"""Faults: the agent, a monitor, the host die; what was acknowledged is there, nothing is left.

--long makes the test of random kills long (a thousand a host; else some seconds), and that of many runs.
"""

import http.client
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest

from tests.lab.waiting import wait_until
from tests.support import traces
from tests.support.installed import PATIENCE, Answer, Installed

_ECHO = ["busybox", "nc", "-ll", "-p", "7", "-e", "cat"]
_AFTER_FAULT = 30.0


class Connection:
    """One TCP connection through a published port to an echo in a container."""

    def __init__(self, box: Installed, port: int) -> None:
        self._number = 0

        def connected() -> bool:
            try:
                self._socket = socket.create_connection((box.host.ip, port), timeout=5)
            except OSError:
                return False
            try:
                self.check()
            except (OSError, AssertionError):
                self._socket.close()
                return False
            return True

        wait_until(connected, PATIENCE, f"an echo at port {port}")

    def check(self) -> None:
        """The echo answers on this very connection."""
        self._number += 1
        word = f"{self._number}\n".encode()
        self._socket.settimeout(10)
        self._socket.sendall(word)
        assert self._socket.recv(100) == word

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


@contextmanager
def survivors(box: Installed) -> Iterator[None]:
    """Containers that must come through with their pid and an open connection (O7)."""
    for number, options in enumerate((["-p", "7007:7"], ["-p", "7008:7", "--restart", "always"])):
        box.docker("run", "-d", "--name", f"keeper{number}", *options, *_ECHO)
    pids = [box.state(f"keeper{n}")["Pid"] for n in range(2)]
    started = [box.state(f"keeper{n}")["StartedAt"] for n in range(2)]
    connections = [Connection(box, 7007), Connection(box, 7008)]
    try:
        yield
        for connection in connections:
            connection.check()
        assert [box.state(f"keeper{n}")["Pid"] for n in range(2)] == pids
        assert [box.state(f"keeper{n}")["StartedAt"] for n in range(2)] == started
        Connection(box, 7007).close()  # new connections are let in, too
        assert box.docker("exec", "keeper1", "echo", "alive").text == "alive"
    finally:
        for connection in connections:
            connection.close()


def kill_agent(box: Installed) -> None:
    """SIGKILL, and wait for the next one."""
    before = box.agent_pid()
    box.host.run("kill", "-9", str(before), check=False)
    box.restart_wait(before, _AFTER_FAULT)


def stop_agent(box: Installed) -> None:
    """End the agent and keep it away."""
    pid = box.agent_pid()
    if box.host.variant == "plain":
        box.host.run("/opt/machine/supervise", "stop")
    else:
        box.host.run("systemctl", "stop", "machine-agent")
    box.wait(lambda: box.host.run("kill", "-0", str(pid), check=False).returncode != 0, "its end")


def start_agent(box: Installed) -> None:
    """Bring it back."""
    if box.host.variant == "plain":
        box.host.run("/opt/machine/supervise", "start")
    else:
        box.host.run("systemctl", "start", "machine-agent")
    box.wait(box.answers, "the agent", _AFTER_FAULT)


def assert_nothing_left(box: Installed, before: traces.Traces) -> None:
    """All containers removed, the host looks as it did."""
    box.sweep()

    def clean() -> bool:
        return not traces.look(box.host).more_than(before)

    with suppress(Exception):
        wait_until(clean, 10, "no traces", interval=0.2)
    assert traces.look(box.host).more_than(before) == {}
    assert box.api("GET", "/containers/json", all="true").json() == []


@dataclass
class Worker:
    """Makes, starts, stops and removes containers of its own; remembers what was acknowledged."""

    box: Installed
    name: str
    choice: random.Random
    stop: threading.Event
    expected: dict[str, str] = field(default_factory=dict)  # id -> created, running, exited, gone
    unsure: set[str] = field(default_factory=set)  # ids whose last request got no answer
    problems: list[str] = field(default_factory=list)
    done: int = 0

    def run(self) -> None:
        """Until told to stop."""
        number = 0
        while not self.stop.is_set():
            number += 1
            self._one(f"{self.name}-{number}")

    def _one(self, name: str) -> None:
        body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"PidsLimit": 50}}
        made = self._ask("", "POST", "/containers/create", body, name=name)
        if made is None:
            return
        identity = str(made.document["Id"])
        self.expected[identity] = "created"
        steps = [("start", "running"), ("kill", "exited"), ("start", "running"), ("rm", "gone")]
        for verb, result in steps[: self.choice.randint(1, 4)]:
            if self.stop.is_set():
                return
            method = "DELETE" if verb == "rm" else "POST"
            path = f"/containers/{identity}" + ("" if verb == "rm" else f"/{verb}")
            more = {"force": "true"} if verb == "rm" else {}
            answer = self._ask(identity, method, path, None, **more)
            if answer is None:
                return
            self.expected[identity] = result

    def _ask(
        self, identity: str, method: str, path: str, body: object, **query: object
    ) -> Answer | None:
        """None: no answer (the agent died): whether it was done is not known."""
        try:
            answer = self.box.api(method, path, body, **query)
        except (OSError, http.client.HTTPException):
            self.unsure.add(identity)
            with suppress(Exception):
                wait_until(lambda: self.stop.is_set() or self.box.answers(), 60, "agent")
            return None
        if answer.status >= 400:
            self.problems.append(f"{method} {path}: {answer.status} {answer.body!r}")
            return None
        self.done += 1
        return answer


def _settled(box: Installed, identity: str) -> str:
    answer = box.api("GET", f"/containers/{identity}/json")
    if answer.status == 404:
        return "gone"
    state = answer.document["State"]
    assert isinstance(state, dict)
    return str(state["Status"])


@pytest.mark.timeout(3600)
def test_case_o3_o7_sigkill_under_load(any_box: Installed, long: bool) -> None:
    """The agent is killed at random moments; what it acknowledged is true afterwards."""
    box, seed = any_box, random.randrange(1 << 32)
    kills = 1000 if long else 4
    print(f"seed {seed}, {kills} kills")
    before = traces.look(box.host)
    choice, stop = random.Random(seed), threading.Event()
    workers = [Worker(box, f"w{n}", random.Random(seed + n), stop) for n in range(4)]
    with survivors(box):
        threads = [threading.Thread(target=worker.run) for worker in workers]
        for thread in threads:
            thread.start()
        try:
            for _ in range(kills):
                threading.Event().wait(choice.uniform(0.1, 0.9))
                kill_agent(box)
        finally:
            stop.set()
            for thread in threads:
                thread.join(120)
        _check_acknowledged(box, workers)
        assert sum(w.done for w in workers) > kills, "the load was none"
    assert_nothing_left(box, before)


def _check_acknowledged(box: Installed, workers: list[Worker]) -> None:
    assert [p for w in workers for p in w.problems] == []
    for worker in workers:
        wrong = {
            identity: (wanted, _settled(box, identity))
            for identity, wanted in worker.expected.items()
            if identity not in worker.unsure and _settled(box, identity) != wanted
        }
        assert wrong == {}
    listed = box.api("GET", "/containers/json", all="true").json()
    assert isinstance(listed, list)
    names = [name for one in listed for name in one["Names"]]
    assert len(names) == len(set(names))
    addresses = [one["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
                 for one in listed if one["State"] == "running"]  # fmt: skip
    assert "" not in addresses
    assert len(addresses) == len(set(addresses))


_GATED = "until [ -e /gate/go ]; do usleep 20000; done; "


def test_case_122_exits_while_the_agent_is_down(any_box: Installed) -> None:
    box = any_box
    box.host.run("rm", "-rf", "/srv/gate")
    before = traces.look(box.host)
    ends = {"zero": "exit 0", "three": "exit 3", "killed": "sh -c 'kill -9 $$'; exit $?"}
    policies = {"again": "always", "thrice": "on-failure:2", "unless": "unless-stopped"}
    mount = ["-v", "/srv/gate:/gate"]
    for name, end in ends.items():
        box.docker("run", "-d", "--name", name, *mount, "busybox", "sh", "-c", _GATED + end)
    box.docker("run", "-d", "--rm", "--name", "volatile", *mount, "busybox", "sh", "-c", _GATED)
    for name, policy in policies.items():
        script = f"if [ -e /gate/go ]; then {'exit 4' if name == 'thrice' else 'sleep 1000'}; fi; "
        box.docker("run", "-d", "--restart", policy, "--name", name, *mount, "busybox",
                   "sh", "-c", script + _GATED + "exit 4")  # fmt: skip
    box.docker("run", "-d", "--restart", "unless-stopped", "--name", "stopped", *_ECHO)
    box.docker("stop", "-t", "0", "stopped")

    with survivors(box):
        stop_agent(box)
        box.host.run("touch", "/srv/gate/go")
        gone = "! ps -eo args | grep -v grep | grep -q 'until \\[ -e /gate'"
        box.wait(lambda: box.host.run("sh", "-c", gone, check=False).returncode == 0, "their ends")
        start_agent(box)
        for name, code in (("zero", 0), ("three", 3), ("killed", 137)):
            box.wait_status(name, "exited")
            assert box.state(name)["ExitCode"] == code, name
        box.wait(lambda: _settled(box, "volatile") == "gone", "--rm")
        box.wait_status("again", "running")
        box.wait_status("unless", "running")
        box.wait(lambda: box.inspect("thrice")["RestartCount"] == 2, "two restarts")
        box.wait_status("thrice", "exited")
        assert box.state("thrice")["ExitCode"] == 4
        assert box.state("stopped")["Status"] == "exited"
    assert_nothing_left(box, before)


def test_case_123_power_cycle(any_box: Installed) -> None:
    box = any_box
    options = {"plain": [], "always": ["--restart", "always", "-p", "7009:7"],
               "unless": ["--restart", "unless-stopped"], "failure": ["--restart", "on-failure"],
               "volatile": ["--rm"]}  # fmt: skip
    for name, flags in options.items():
        box.docker("run", "-d", "--name", name, *flags, *_ECHO)
    box.docker("run", "-d", "--name", "halted", "--restart", "unless-stopped", *_ECHO)
    box.docker("stop", "-t", "0", "halted")
    box.docker("create", "--name", "made", *_ECHO)
    box.docker("run", "--rm", "-v", "store:/data", "busybox", "sh", "-c", "echo kept >/data/x")
    box.host.reboot()
    box.wait(box.answers, "the agent after the boot", _AFTER_FAULT)
    for name in ("always", "unless", "failure"):
        box.wait_status(name, "running")
    assert box.state("plain")["Status"] == "exited"
    assert box.state("plain")["ExitCode"] == 255
    assert box.state("halted")["Status"] == "exited"
    assert box.state("made")["Status"] == "created"
    box.wait(lambda: _settled(box, "volatile") == "gone", "--rm")
    Connection(box, 7009).close()
    box.docker("start", "plain", "halted", "made")
    assert (
        box.docker("run", "--rm", "-v", "store:/data", "busybox", "cat", "/data/x").text == "kept"
    )
    addresses = [box.docker("exec", name, "hostname", "-i").text for name in
                 ("plain", "always", "unless", "failure", "halted", "made")]  # fmt: skip
    assert len(set(addresses)) == 6
    box.sweep()
    assert traces.look(box.host).found["processes"] == ()


def test_case_121_monitor_killed(any_box: Installed) -> None:
    box = any_box
    before = traces.look(box.host)
    box.docker("run", "-d", "--name", "once", *_ECHO)
    box.docker("run", "-d", "--name", "again", "--restart", "always", *_ECHO)
    first = box.state("again")["Pid"]
    for name in ("once", "again"):
        identity = box.inspect(name)["Id"]
        box.host.run(
            "sh",
            "-c",
            f"kill -9 $(ps -eo pid,comm,args | awk '$2 == \"conmon\" && /{identity}/ {{print $1}}')",
        )
    box.wait_status("once", "exited", seconds=5)
    state = box.state("once")
    assert state["ExitCode"] == 137
    assert state["Error"]
    box.wait(lambda: box.state("again")["Pid"] not in (0, first), "again")
    assert_nothing_left(box, before)


def test_case_120_provision_keeps_containers(any_box: Installed) -> None:
    box = any_box
    with survivors(box):
        follower = box.begin("docker", "events", "--filter", "container=keeper0")
        box.machine("provision", box.name)
        box.wait(box.answers, "the agent", _AFTER_FAULT)
        follower.kill()
        follower.communicate()
        before = box.agent_pid()
        box.host.run("kill", "-TERM", str(before))
        box.restart_wait(before, _AFTER_FAULT)
        assert box.docker("logs", "keeper0").status == 0


def test_case_130_many_runs_at_once(box: Installed, long: bool) -> None:
    """Forty (500) at the same time: as many addresses and ports, and nothing left."""
    count = 500 if long else 40
    before = traces.look(box.host)
    failed: list[str] = []

    def one(number: int) -> None:
        body = {
            "Image": "busybox", "Cmd": ["sleep", "1000"], "ExposedPorts": {"7/tcp": {}},
            "HostConfig": {"PortBindings": {"7/tcp": [{"HostPort": ""}]}},
        }  # fmt: skip
        made = box.api("POST", "/containers/create", body, name=f"many{number}")
        started = box.api("POST", f"/containers/many{number}/start")
        if (made.status, started.status) != (201, 204):
            failed.append(f"{made.body!r} {started.body!r}")

    threads = [threading.Thread(target=one, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    listed = box.api("GET", "/containers/json").json()
    assert isinstance(listed, list)
    addresses = {one["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] for one in listed}
    ports = {one["Ports"][0]["PublicPort"] for one in listed}
    assert (len(listed), len(addresses), len(ports)) == (count, count, count)
    assert_nothing_left(box, before)


def test_case_131_one_name_many_creates(box: Installed) -> None:
    answers: list[Answer] = []
    body = {"Image": "busybox", "Cmd": ["true"]}

    def one() -> None:
        answers.append(box.api("POST", "/containers/create", body, name="wanted"))

    threads = [threading.Thread(target=one) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [a for a in answers if a.status == 201]
    assert (len(winners), len(answers)) == (1, 30)
    owner = winners[0].document["Id"]
    assert all(a.status == 409 and str(owner) in a.message for a in answers if a.status != 201)


def test_case_134_a_second_agent_is_refused(any_box: Installed) -> None:
    box = any_box
    pid = box.agent_pid()
    second = box.host.run("python3", "-I", "/opt/machine/agent", "serve", check=False, timeout=20)
    assert second.returncode != 0
    assert str(pid) in second.stderr + second.stdout
    assert box.answers()
    assert box.agent_pid() == pid
