"""What is asked for seldom: filters of prune and list, shared standard input, stalled readers."""

import contextlib
import json
import select
import socket
import time

from tests.support.installed import Installed

_SLEEP = ("busybox", "sleep", "1000")


def attached(box: Installed, container: str, query: str) -> socket.socket:
    """A hijacked connection whose head has been read."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(20)
    client.connect(box.socket)
    client.sendall(
        f"POST /v1.51/containers/{container}/attach?{query} HTTP/1.1\r\nHost: docker\r\n"
        "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(1)
    assert head.startswith(b"HTTP/1.1 101 "), head
    return client


def read_until(client: socket.socket, wanted: bytes) -> bytes:
    seen = b""
    while wanted not in seen:
        data = client.recv(65536)
        assert data, seen
        seen += data
    return seen


def test_a_shared_stdin_stays_for_those_who_come_later(box: Installed) -> None:
    """`docker run -i`: conmon alone would end it when an onlooker goes."""
    with box.begin("docker", "run", "-i", "--name", "in", "busybox", "cat") as first:
        assert first.stdin
        assert first.stdout
        box.wait(lambda: box.api("GET", "/containers/in/json").status == 200, "it is made")
        box.wait_status("in", "running")
        for _ in range(3):
            attached(box, "in", "stream=1&stdout=1").close()
        second = attached(box, "in", "stream=1&stdin=1&stdout=1")
        second.sendall(b"from the second\n")
        assert first.stdout.readline() == b"from the second\n"
        first.stdin.write(b"from the first\n")
        first.stdin.flush()
        assert first.stdout.readline() == b"from the first\n"
        read_until(second, b"from the first\n")
        first.stdin.close()  # StdinOnce: whoever has it first ends it for all
        assert first.wait(20) == 0
        second.close()
    assert box.docker("logs", "in").text == "from the second\nfrom the first"


def test_stdin_without_an_owner_is_kept(box: Installed) -> None:
    box.docker("run", "-di", "--name", "in", "busybox", "cat")
    for word in ("one", "two", "three"):
        client = attached(box, "in", "stream=1&stdin=1&stdout=1")
        client.sendall(f"{word}\n".encode())
        read_until(client, f"{word}\n".encode())
        client.close()
    assert box.state("in")["Running"] is True


def test_case_093_a_stalled_reader_does_not_stop_a_container(box: Installed) -> None:
    """It is let go after ten seconds, and told; the log has everything."""
    script = (
        "sleep 1; dd if=/dev/zero bs=1M count=24 2>/dev/null | tr '\\0' 'x' | fold -w 99; echo end"
    )
    box.docker("create", "--name", "loud", "busybox", "sh", "-c", script)
    stalled = attached(box, "loud", "stream=1&stdout=1")
    box.docker("start", "loud")
    box.wait_status("loud", "exited", seconds=60)
    assert box.docker("logs", "--tail", "1", "loud").text.endswith("end")
    seen = b""
    while data := stalled.recv(1 << 20):
        seen += data
    stalled.close()
    assert len(seen) < 8 << 20
    assert b"detached: no output was taken" in seen[-200:]


def test_network_prune_and_its_filters(box: Installed) -> None:
    for name, label in (("n1", "k=v"), ("n2", "k=w"), ("n3", "k=w")):
        box.docker("network", "create", "--label", label, name)
    box.docker("run", "-d", "--network", "n3", "--name", "user", *_SLEEP)
    prune = ("network", "prune", "-f", "--filter")
    assert box.docker(*prune, "label=k=x").text == ""
    assert box.docker(*prune, "until=1h").text == ""
    assert box.docker(*prune, "label!=k=w").lines == ["Deleted Networks:", "n1"]
    assert box.docker("network", "prune", "-f").lines == ["Deleted Networks:", "n2"]
    box.fails(*prune, "nonsense=1", says="invalid filter")
    box.docker("rm", "-f", "user")
    answer = box.api("POST", "/networks/prune", filters=json.dumps({"label": ["k"]}))
    assert answer.document == {"NetworksDeleted": ["n3"]}


def test_list_filters(box: Installed) -> None:
    box.docker("network", "create", "near")
    box.docker("run", "-d", "--name", "first", "--label", "a=b", "-p", "20180-20182:80-82/udp",
               "-v", "vol:/data", *_SLEEP)  # fmt: skip
    box.docker("run", "-d", "--name", "second", "--network", "near", *_SLEEP)
    box.docker(
        "run", "--name", "third", "--expose", "90", "busybox", "sh", "-c", "exit 3", check=False
    )
    for wanted, names in {
        "label=a": ["first"], "label=a=c": [], "publish=20181/udp": ["first"],
        "publish=20170-20180/udp": ["first"], "publish=20181": [], "expose=90": ["third"],
        "expose=80-90/udp": ["first"], "volume=vol": ["first"], "volume=/data": ["first"],
        "network=near": ["second"], "exited=3": ["third"], "status=exited": ["third"],
        "before=second": ["first"], "since=second": ["third"], "ancestor=busybox:latest":
        ["third", "second", "first"], "name=^/s": ["second"], "name=nosuch": [],
    }.items():  # fmt: skip
        found = box.docker("ps", "-a", "--filter", wanted, "--format", "{{.Names}}").lines
        assert [one for one in found if one] == names, wanted
    for bad in ("status=nonsense", "nonsense=1", "exited=x", "publish=x", "before=nosuch"):
        assert box.docker("ps", "--filter", bad, check=False).status == 1, bad


def test_logs_with_details(box: Installed) -> None:
    """No log option of ours adds attributes: there is their space, as docker writes it."""
    box.docker("run", "--name", "talk", "busybox", "sh", "-c", "echo one; echo two")
    assert box.docker("logs", "--details", "talk").out == b" one\n two\n"
    stamped = box.docker("logs", "--details", "-t", "talk").lines
    assert [line.partition("Z ")[2] for line in stamped] == [" one", " two"]


def test_wait_conditions(box: Installed) -> None:
    box.docker("create", "--name", "job", "--rm", "busybox", "sh", "-c", "sleep 1; exit 6")
    waiting = {}
    with contextlib.ExitStack() as stack:
        for condition in ("next-exit", "removed"):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(20)
            client.connect(box.socket)
            client.sendall(
                f"POST /v1.51/containers/job/wait?condition={condition} HTTP/1.0\r\n\r\n".encode()
            )
            waiting[condition] = client
        assert box.api("POST", "/containers/job/wait", condition="not-running").status == 200
        assert not select.select(list(waiting.values()), [], [], 0.3)[1]
        began = time.monotonic()
        box.docker("start", "job")
        for client in waiting.values():
            assert b'{"StatusCode":6}' in read_until(client, b"}")
        assert time.monotonic() - began > 0.9
    answer = box.api("POST", "/containers/job/wait", condition="nonsense")
    assert (answer.status, answer.message) == (400, 'invalid condition: "nonsense"')


def test_no_plugins_no_swarm_no_checkpoints(box: Installed) -> None:
    assert box.api("GET", "/plugins").json() == []
    assert box.api("GET", "/plugins/x/json").status == 404
    box.docker("run", "-d", "--name", "up", *_SLEEP)
    for method, path in (
        ("POST", "/plugins/pull"), ("POST", "/swarm/init"), ("POST", "/swarm/join"), ("GET", "/nodes"),
        ("GET", "/containers/up/checkpoints"), ("POST", "/containers/up/checkpoints"),
    ):  # fmt: skip
        assert box.api(method, path).status == 503, path
    box.fails("swarm", "init", says="not a swarm manager")


def descriptors(box: Installed, pid: int) -> int:
    return len(box.host.run("ls", f"/proc/{pid}/fd").stdout.split())


def test_case_093_many_sessions_leave_nothing(box: Installed) -> None:
    """The quick form: 120 attach and exec sessions whose clients die, half-close, or say nothing."""
    box.docker("run", "-di", "--name", "in", "busybox", "cat")
    identity = str(box.inspect("in")["Id"])
    monitor = int(
        box.host.run("cat", f"/run/machine/containers/{identity}/conmon.pid").stdout.split()[0]
    )
    agent = box.agent_pid()
    attached(box, "in", "stream=1&stdin=1&stdout=1").close()
    before, before_monitor = descriptors(box, agent), descriptors(box, monitor)
    for number in range(90):
        client = attached(box, "in", "stream=1&stdin=1&stdout=1&stderr=1")
        if number % 3 == 0:
            client.shutdown(socket.SHUT_WR)
        elif number % 3 == 1:
            client.sendall(b"x" * 1000)
        client.close()
    for number in range(30):
        made = box.api("POST", "/containers/in/exec", {"Cmd": ["cat"], "AttachStdin": True,
                                                       "AttachStdout": True})  # fmt: skip
        client = socket.socket(socket.AF_UNIX)
        client.connect(box.socket)
        client.sendall(
            f"POST /v1.51/exec/{made.document['Id']}/start HTTP/1.1\r\nHost: docker\r\n"
            "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n"
            "Content-Length: 2\r\n\r\n{}".encode()
        )
        if number % 2:
            client.recv(12)
        client.close()

    def gone() -> bool:
        """conmon looks for clients that have gone when the container says something."""
        client = attached(box, "in", "stream=1&stdin=1&stdout=1")
        client.sendall(b"word\n")
        read_until(client, b"word\n")
        client.close()
        return descriptors(box, monitor) <= before_monitor + 2

    box.wait(gone, "conmon's clients are gone")
    box.wait(lambda: descriptors(box, agent) <= before + 8, "the agent's descriptors are back")
    assert box.state("in")["Running"] is True
