"""The docker client's commands about a container's life and looks."""

import json
import re
import select
import time

from tests.support.installed import Installed

_SLEEP = ["busybox", "sleep", "1000"]
_TRAP = "trap 'echo got TERM; exit 7' TERM; echo ready; while :; do sleep 0.05; done"


def test_create_start_stop_restart_rm(box: Installed) -> None:
    identity = box.docker("create", "--name", "one", "busybox", "sh", "-c", _TRAP).text
    assert box.state("one")["Status"] == "created"
    assert box.docker("start", "one").text == "one"
    box.wait(lambda: "ready" in box.docker("logs", "one").text, "ready")
    assert box.docker("stop", identity[:12]).text == identity[:12]
    state = box.state("one")
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", 7, 0)
    assert "got TERM" in box.docker("logs", "one").text
    box.docker("stop", "one")  # a second time is no error
    box.docker("restart", "-t", "1", "one")
    first = box.state("one")["Pid"]
    box.docker("restart", "-t", "1", "one")
    assert box.state("one")["Pid"] not in (first, 0)
    box.fails("rm", "one", says="container is running")
    assert box.docker("rm", "-f", "one").text == "one"
    box.fails("rm", "one", says="No such container: one")
    box.fails("start", "one", says="No such container: one")
    box.fails("stop", "one", says="No such container: one")


def test_stop_kills_after_its_time(box: Installed) -> None:
    box.docker("run", "-d", "--name", "deaf", *_SLEEP)  # process 1 has no handler of TERM
    begin = time.monotonic()
    box.docker("stop", "-t", "1", "deaf")
    assert 0.9 <= time.monotonic() - begin < 6
    assert box.state("deaf")["ExitCode"] == 137


def test_stop_signal_of_the_container(box: Installed) -> None:
    script = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done"
    box.docker("run", "-d", "--name", "own", "--stop-signal", "USR1", "busybox", "sh", "-c", script)
    box.wait(lambda: "ready" in box.docker("logs", "own").text, "ready")
    box.docker("stop", "own")
    assert box.state("own")["ExitCode"] == 9


def test_kill(box: Installed) -> None:
    box.docker("run", "-d", "--name", "one", "busybox", "sh", "-c", _TRAP)
    box.wait(lambda: "ready" in box.docker("logs", "one").text, "ready")
    box.docker("kill", "-s", "TERM", "one")
    box.wait_status("one", "exited")
    assert box.state("one")["ExitCode"] == 7
    box.fails("kill", "one", says="is not running")
    box.docker("start", "one")
    box.docker("kill", "one")
    assert box.state("one")["ExitCode"] == 137
    box.docker("start", "one")
    box.fails("kill", "-s", "NOSUCH", "one", says="NOSUCH")


def test_wait(box: Installed) -> None:
    box.docker("run", "-d", "--name", "one", "busybox", "sh", "-c", "sleep 0.3; exit 5")
    box.docker("run", "-d", "--name", "two", "busybox", "true")
    assert box.docker("wait", "one", "two").lines == ["5", "0"]
    box.fails("wait", "nosuch", says="No such container: nosuch")


def test_pause(box: Installed) -> None:
    box.docker("run", "-d", "--name", "one", *_SLEEP)
    box.docker("pause", "one")
    assert box.state("one")["Status"] == "paused"
    assert "(Paused)" in box.docker("ps", "--format", "{{.Status}}").text
    box.fails("exec", "one", "true", says="is paused")
    box.fails("pause", "one", says="already paused")
    box.docker("unpause", "one")
    assert box.docker("exec", "one", "echo", "awake").text == "awake"
    box.fails("unpause", "one", says="is not paused")
    box.docker("pause", "one")
    box.docker("rm", "-f", "one")


def test_rename(box: Installed) -> None:
    box.docker("create", "--name", "one", *_SLEEP)
    box.docker("create", "--name", "other", *_SLEEP)
    box.docker("rename", "one", "two")
    assert set(box.docker("ps", "-a", "--format", "{{.Names}}").lines) == {"two", "other"}
    box.fails("rename", "two", "other", says="already in use")
    box.fails("inspect", "one", says="No such object: one")


def test_prefixes(box: Installed) -> None:
    identity = box.docker("create", *_SLEEP).text
    assert box.docker("inspect", identity[:6], "--format", "{{.Id}}").text == identity
    for _ in range(17):  # two ids out of 18 begin alike
        box.docker("create", *_SLEEP)
    everyone = [i[0] for i in box.docker("ps", "-aq").lines]
    shared = next(c for c in everyone if everyone.count(c) > 1)
    if all(name != shared for name in box.docker("ps", "-a", "--format", "{{.Names}}").lines):
        answer = box.api("GET", f"/containers/{shared}/json")
        assert answer.status in (400, 404, 500)
        assert answer.message


def test_ps(box: Installed) -> None:
    box.docker("run", "-d", "--name", "up", "--label", "tier=front", "-p", "8080:80", *_SLEEP)
    box.docker("run", "-d", "--name", "over", "-v", "store:/data", "busybox", "sh", "-c", "exit 3")
    box.docker("create", "--name", "made", "--label", "tier=back", *_SLEEP)
    box.wait_status("over", "exited")
    header, line = box.docker("ps").lines
    assert header.split() == [
        "CONTAINER",
        "ID",
        "IMAGE",
        "COMMAND",
        "CREATED",
        "STATUS",
        "PORTS",
        "NAMES",
    ]
    assert '"sleep 1000"' in line
    assert "0.0.0.0:8080->80/tcp" in line
    assert re.search(r"Up (Less than a|\d+) second", line)

    def names(*filters: str) -> set[str]:
        flags = [flag for one in filters for flag in ("--filter", one)]
        return set(box.docker("ps", "-a", "--format", "{{.Names}}", *flags).lines)

    assert names() == {"up", "over", "made"}
    assert names("status=running") == {"up"}
    assert names("status=exited", "status=created") == {"over", "made"}
    assert names("exited=3") == {"over"}
    assert names("exited=0") == set()
    assert names("label=tier") == {"up", "made"}
    assert names("label=tier=back") == {"made"}
    assert names("name=o") == {"over"}
    assert names("name=^/?up$") == {"up"}
    assert names("volume=store") == {"over"}
    assert names("publish=8080") == {"up"}
    assert names("network=bridge") == {"up", "over", "made"}
    assert names("before=made") == {"up", "over"}
    assert names("since=up") == {"over", "made"}
    assert names("ancestor=busybox") == {"up", "over", "made"}
    assert names("ancestor=debian") == set()
    identity = box.docker("ps", "-q", "--no-trunc").text
    assert names(f"id={identity[:8]}") == {"up"}
    box.fails("ps", "--filter", "nosuch=1", says="nosuch")
    assert box.docker("ps", "-l", "--format", "{{.Names}}").text == "made"
    assert len(box.docker("ps", "-n", "2", "-q").lines) == 2
    row = json.loads(box.docker("ps", "--format", "{{json .}}").text)
    assert (row["Names"], row["State"], row["Labels"]) == ("up", "running", "tier=front")
    assert (
        "Exited (3)"
        in box.docker("ps", "-a", "--filter", "name=over", "--format", "{{.Status}}").text
    )
    assert re.search(r"\dB \(virtual ", box.docker("ps", "-s", "--format", "{{.Size}}").text)


def test_inspect(box: Installed) -> None:
    box.docker(
        "run",
        "-d",
        "--name",
        "one",
        "--memory",
        "32m",
        "-v",
        "store:/data",
        "-p",
        "8080:80",
        *_SLEEP,
    )

    def shown(template: str) -> str:
        return box.docker("inspect", "--format", template, "one").text

    assert (
        shown("{{.State.Status}} {{.State.Running}} {{.HostConfig.Memory}}")
        == "running true 33554432"
    )
    assert shown("{{.Path}} {{json .Args}}") == 'sleep ["1000"]'
    assert (
        shown("{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}}{{end}}")
        == "volume store /data true"
    )
    assert shown('{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}') == "8080"
    address = shown("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
    assert re.fullmatch(r"\d+\.\d+\.\d+\.\d+", address)
    (document,) = json.loads(box.docker("inspect", "--size", "one").text)
    assert document["Created"].endswith("Z")
    assert document["SizeRootFs"] > 500_000
    assert document["Image"] == box.docker("inspect", "busybox", "--format", "{{.Id}}").text
    box.fails("inspect", "nosuch", says="No such object: nosuch")
    assert (
        box.docker("inspect", "--type", "volume", "store", "--format", "{{.Driver}}").text
        == "local"
    )


def test_port(box: Installed) -> None:
    box.docker("run", "-d", "--name", "one", "-p", "8080:80", *_SLEEP)
    assert box.docker("port", "one").lines == ["80/tcp -> 0.0.0.0:8080"]
    assert box.docker("port", "one", "80").lines == ["0.0.0.0:8080"]
    box.fails("port", "one", "81", says="No public port")
    box.docker("stop", "-t", "0", "one")
    assert box.docker("port", "one").text == ""


def test_events(box: Installed) -> None:
    begin = box.host.run("date", "+%s.%N").stdout.strip()
    box.docker(
        "run", "--name", "one", "--label", "a=b", "busybox", "sh", "-c", "exit 4", check=False
    )
    box.docker("run", "-d", "--name", "two", *_SLEEP)
    box.docker("exec", "two", "true")
    box.docker("rm", "-f", "one", "two")
    window = ["--since", begin, "--until", box.host.run("date", "+%s.%N").stdout.strip()]

    def actions(*filters: str) -> list[str]:
        flags = [flag for one in filters for flag in ("--filter", one)]
        lines = box.docker("events", *window, *flags, "--format", "{{json .}}").lines
        return [json.loads(line)["Action"] for line in lines]

    mine = actions("container=one")
    assert [a for a in mine if a in ("create", "start", "die", "destroy")] == [
        "create", "start", "die", "destroy",
    ]  # fmt: skip
    others = actions("container=two", "type=container")
    wanted = [
        "create",
        "start",
        "exec_create: true",
        "exec_start: true",
        "exec_die",
        "kill",
        "die",
        "destroy",
    ]
    assert [a for a in others if a in wanted] == wanted
    assert actions("event=die", "label=a=b") == ["die"]
    assert set(actions("type=network")) == {"connect", "disconnect"}
    document = json.loads(box.docker("events", *window, "--filter", "event=die", "--filter",
                                     "container=one", "--format", "{{json .}}").text)  # fmt: skip
    attributes = document["Actor"]["Attributes"]
    assert (attributes["exitCode"], attributes["image"], attributes["name"]) == (
        "4",
        "busybox",
        "one",
    )
    plain = box.docker("events", *window, "--filter", "event=start").lines[0]
    assert re.search(r"container start [0-9a-f]{64} \(.*name=one\)", plain)


def test_events_arrive_while_they_happen(box: Installed) -> None:
    watch = box.begin(
        "docker",
        "events",
        "--filter",
        "type=container",
        "--format",
        "{{.Action}} {{.Actor.Attributes.name}}",
    )
    try:
        assert watch.stdout
        # until the first line has come, the client may not be connected yet
        box.docker("create", "--name", "before", *_SLEEP)
        n = 0
        while not select.select([watch.stdout], [], [], 0.2)[0]:
            n += 1
            assert n < 50, "no event"
            box.docker("create", "--name", f"probe{n}", *_SLEEP)
        box.docker("create", "--name", "last", *_SLEEP)
        for line in watch.stdout:
            if line == b"create last\n":
                break
    finally:
        watch.kill()
        watch.communicate()


def test_volumes(box: Installed) -> None:
    assert box.docker("volume", "create", "store", "--label", "a=b").text == "store"
    assert re.fullmatch("[0-9a-f]{64}", box.docker("volume", "create").text)
    assert "store" in box.docker("volume", "ls", "-q").lines
    assert box.docker("volume", "ls", "--filter", "label=a=b", "-q").lines == ["store"]
    assert box.docker("volume", "ls", "--filter", "dangling=true", "-q").lines
    (document,) = json.loads(box.docker("volume", "inspect", "store").text)
    assert (document["Driver"], document["Scope"], document["Labels"]) == (
        "local",
        "local",
        {"a": "b"},
    )
    assert document["Mountpoint"].endswith("/store/_data")
    box.docker("volume", "rm", "store")
    box.fails("volume", "inspect", "store", says="no such volume")
    box.fails("volume", "rm", "store", says="no such volume")
    box.fails("volume", "create", "a/b", says="invalid")


def test_networks(box: Installed) -> None:
    rows = box.docker("network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}").lines
    assert sorted(rows) == ["bridge bridge local", "host host local", "none null local"]
    box.docker("run", "-d", "--name", "one", *_SLEEP)
    (document,) = json.loads(box.docker("network", "inspect", "bridge").text)
    (inside,) = document["Containers"].values()
    assert inside["Name"] == "one"
    address = box.docker("inspect", "one", "--format", "{{.NetworkSettings.IPAddress}}").text
    assert inside["IPv4Address"].split("/")[0] == address
    box.fails("network", "inspect", "nosuch", says="nosuch")
