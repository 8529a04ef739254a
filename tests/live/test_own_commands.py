"""Our own container commands against a created machine, where there is no docker."""

import hashlib
import json
import os
import re

import pytest

from tests.support.installed import Installed

_SLEEP = ["busybox", "sleep", "1000"]


def test_the_machine_is_named_or_of_the_environment(box: Installed) -> None:
    assert box.machine("run", "--rm", "busybox", "echo", "by environment").text == "by environment"
    assert box.machine("-m", box.name, "run", "--rm", "busybox", "echo", "named").text == "named"
    inside = box.machine("run", "-m", box.name, "--rm", "busybox", "echo", "x", check=False)
    assert inside.status != 0, "run's own -m is memory, as docker's"
    plain = dict(box.environment)
    box.environment = dict(box.plain_environment)
    try:
        assert box.machine("-m", box.name, "ps", "-q").status == 0
        nobody = box.machine("-m", "nosuch", "ps", check=False)
        assert nobody.status != 0
        assert "nosuch" in nobody.complaint
    finally:
        box.environment = plain


def test_exit_statuses(box: Installed) -> None:
    assert box.machine("run", "--rm", "busybox", "sh", "-c", "exit 42", check=False).status == 42
    missing = box.machine("run", "--rm", "busybox", "nosuch", check=False)
    assert missing.status == 127
    assert "executable file not found" in missing.complaint
    assert box.machine("run", "--rm", "busybox", "/etc/passwd", check=False).status == 126
    assert box.machine("run", "--nosuch", "busybox", check=False).status == 125
    assert box.machine("run", "-u", "nosuch", "busybox", check=False).status == 125
    box.machine("run", "-d", "--name", "one", *_SLEEP)
    assert box.machine("exec", "one", "sh", "-c", "exit 7", check=False).status == 7
    assert box.machine("exec", "one", "nosuch", check=False).status == 127
    assert box.machine("exec", "nosuch", "true", check=False).status == 1


def test_streams_are_kept_apart(box: Installed) -> None:
    done = box.machine("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (done.out, done.err) == (b"out\n", b"err\n")


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_half_close(box: Installed, verb: str) -> None:
    data = os.urandom(8 << 20)
    if verb == "exec":
        box.machine("run", "-d", "--name", "one", *_SLEEP)
        done = box.machine("exec", "-i", "one", "sh", "-c", "cat; echo end >&2", data=data)
    else:
        done = box.machine(
            "run", "-i", "--rm", "busybox", "sh", "-c", "cat; echo end >&2", data=data
        )
    assert hashlib.sha256(done.out).digest() == hashlib.sha256(data).digest()
    assert done.err == b"end\n"


def test_images(box: Installed) -> None:
    pulled = box.machine("pull", "alpine").lines
    assert pulled[-1].endswith("alpine:latest")
    assert any(line.startswith("Digest: sha256:") for line in pulled)
    rows = box.machine("images", "--format", "{{.Repository}}:{{.Tag}}").lines
    assert "alpine:latest" in rows
    assert "Untagged: alpine:latest" in box.machine("rmi", "alpine").lines
    gone = box.machine("rmi", "alpine", check=False)
    assert gone.status == 1
    assert "No such image" in gone.complaint


def test_run_pulls_what_is_missing(box: Installed) -> None:
    box.machine("rmi", "-f", "hello-world", check=False)
    done = box.machine("run", "--rm", "hello-world")
    assert "Hello from Docker!" in done.text
    assert "Unable to find image 'hello-world:latest' locally" in done.complaint
    never = box.machine("run", "--pull", "never", "nosuchimage", check=False)
    assert never.status == 125


def test_ps_logs_events(box: Installed) -> None:
    box.machine(
        "run",
        "-d",
        "--name",
        "one",
        "-p",
        "8080:80",
        "busybox",
        "sh",
        "-c",
        "echo hi; exec sleep 1000",
    )
    header, row = box.machine("ps").lines
    assert header.split()[:2] == ["CONTAINER", "ID"]
    assert "0.0.0.0:8080->80/tcp" in row
    assert box.machine("ps", "--format", "{{.Names}}").text == "one"
    box.wait(lambda: box.machine("logs", "one").text == "hi", "a line in the log")
    stamped = box.machine("logs", "-t", "--tail", "1", "one").text
    assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z hi$", stamped)
    box.machine("docker", "rm", "-f", "one")
    events = box.machine("events", "--since", "10m", "--until", "0s", "--filter", "event=start",
                         "--format", "{{.Action}} {{.Actor.Attributes.name}}", check=False)  # fmt: skip
    assert "start one" in events.lines, events


def test_follow(box: Installed) -> None:
    box.machine(
        "run",
        "-d",
        "--name",
        "one",
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3; do echo $i; sleep 0.1; done",
    )
    assert box.machine("logs", "-f", "one").lines == ["1", "2", "3"]


def test_attach(box: Installed) -> None:
    box.machine(
        "run", "-d", "-i", "--name", "one", "busybox", "sh", "-c", "read a; echo got $a; exit 5"
    )
    done = box.machine("attach", "one", data=b"word\n", check=False)
    assert (done.text, done.status) == ("got word", 5)


def test_docker_grammar(box: Installed) -> None:
    docker = "docker"
    box.machine(docker, "run", "-d", "--name", "one", *_SLEEP)
    assert (
        box.machine(docker, "container", "ls", "-q", "--no-trunc").text == box.inspect("one")["Id"]
    )
    box.machine(docker, "stop", "-t", "0", "one")
    assert box.state("one")["Status"] == "exited"
    box.machine(docker, "start", "one")
    box.machine(docker, "kill", "one")
    assert box.machine(docker, "wait", "one").text == "137"
    box.machine(docker, "rename", "one", "two")
    (document,) = json.loads(box.machine(docker, "inspect", "two").text)
    assert document["Name"] == "/two"
    assert box.machine(docker, "inspect", "-f", "{{.State.ExitCode}}", "two").text == "137"
    assert box.machine(docker, "volume", "create", "store").text == "store"
    assert box.machine(docker, "volume", "ls", "-q").lines == ["store"]
    box.machine(docker, "volume", "rm", "store")
    assert "bridge" in box.machine(docker, "network", "ls").text
    box.machine(docker, "rm", "two")
    refused = box.machine(docker, "stack", "ls", check=False)
    assert refused.status != 0
    assert "docker stack is not served yet" in refused.complaint
    unknown = box.machine(docker, "nosuchverb", check=False)
    assert unknown.status != 0


def test_a_terminal(box: Installed) -> None:
    with box.terminal("machine", "run", "-ti", "--name", "one", "busybox", "sh") as terminal:
        terminal.expect("# ")
        terminal.type("\x10\x11")
        assert terminal.finish() == 0
    assert box.state("one")["Running"] is True
    with box.terminal("machine", "attach", "one") as terminal:
        terminal.type("exit 5\n")
        assert terminal.finish() == 5
    refused = box.machine("run", "-ti", "busybox", "sh", check=False)
    assert "the input device is not a TTY" in refused.complaint


def test_signals_are_passed_on(box: Installed) -> None:
    script = "trap 'echo caught; exit 4' INT; echo ready; while :; do sleep 0.05; done"
    client = box.begin("machine", "run", "--rm", "busybox", "sh", "-c", script)
    assert client.stdout
    assert client.stdout.readline() == b"ready\n"
    client.send_signal(2)
    out, _ = client.communicate(timeout=30)
    assert (out, client.returncode) == (b"caught\n", 4)
