"""Standard streams through the docker client: logs, attach, exec, half-closes, detach keys."""

import hashlib
import os
import re
import select
import subprocess
import threading

import pytest

from tests.support.installed import Done, Installed

_SLEEP = ["busybox", "sleep", "1000"]
_ODD = b"\x1b[31mred\x1b[0m \xff\xfe\x00\r over\x1b]52;c;aGk=\x07\n\x01\x00\x00\x00\x00\x00\x00\x05forge\nno newline"


def test_logs_keep_both_streams_and_every_byte(box: Installed) -> None:
    done = box.docker(
        "run", "--name", "one", "-i", "busybox", "sh", "-c", "cat; echo problem >&2", data=_ODD
    )
    assert (done.out, done.err) == (_ODD, b"problem\n")
    again = box.docker("logs", "one")
    assert (again.out, again.err) == (_ODD, b"problem\n")


def test_logs_of_long_lines(box: Installed) -> None:
    script = "head -c 300000 /dev/zero | tr '\\0' x; echo; echo end"
    box.docker("run", "--name", "one", "busybox", "sh", "-c", script)
    assert box.docker("logs", "one").out == b"x" * 300000 + b"\nend\n"
    assert box.docker("logs", "--tail", "1", "one").out == b"end\n"
    assert box.docker("logs", "--tail", "2", "one").out == b"x" * 300000 + b"\nend\n"


def test_logs_tail_since_timestamps(box: Installed) -> None:
    box.docker("run", "--name", "one", "busybox", "sh", "-c",
               "for i in 1 2 3; do echo $i; done; sleep 1.2; echo 4 >&2; echo 5")  # fmt: skip
    assert box.docker("logs", "--tail", "2", "one").out == b"5\n"
    assert box.docker("logs", "--tail", "2", "one").err == b"4\n"
    assert box.docker("logs", "-n", "0", "one").out == b""
    stamped = box.docker("logs", "-t", "one").lines
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z [0-9]$", line) for line in stamped)
    last = stamped[-1].split()[0]
    assert box.docker("logs", "--since", last, "one").out == b"5\n"
    assert box.docker("logs", "--until", stamped[2].split()[0], "one").lines[:2] == ["1", "2"]
    assert box.docker("logs", "--since", "1h", "one").lines == ["1", "2", "3", "5"]
    box.fails("logs", "nosuch", says="No such container: nosuch")


def test_logs_follow_to_the_end(box: Installed) -> None:
    box.docker("run", "-d", "--name", "one", "busybox", "sh", "-c",
               "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done; echo last >&2")  # fmt: skip
    done = box.docker("logs", "-f", "one")
    assert (done.lines, done.complaint) == (["1", "2", "3", "4", "5"], "last")


def test_logs_follow_ends_with_the_client(box: Installed) -> None:
    box.docker("run", "-d", "--name", "one", "busybox", "sh", "-c", "echo up; sleep 1000")
    followers = [box.begin("docker", "logs", "-f", "one") for _ in range(3)]
    for follower in followers:
        assert follower.stdout
        assert follower.stdout.readline() == b"up\n"
        follower.kill()
        follower.communicate()
    assert box.docker("exec", "one", "echo", "fine").text == "fine"


@pytest.mark.parametrize("megabytes", [1, 64])
def test_standard_input_half_close(box: Installed, megabytes: int) -> None:
    """The container still speaks after the client's end of file, and all of it arrives (TLS)."""
    data = os.urandom(1 << 20) * megabytes
    done = box.docker(
        "run", "--rm", "-i", "busybox", "sh", "-c", "sha256sum; echo after", data=data
    )
    assert done.lines == [hashlib.sha256(data).hexdigest() + "  -", "after"]
    done = box.docker("run", "--rm", "-i", "busybox", "cat", data=data)
    assert hashlib.sha256(done.out).digest() == hashlib.sha256(data).digest()
    assert box.docker("ps", "-aq").text == ""


def test_output_without_reader_is_not_lost(box: Installed) -> None:
    script = "head -c 20000000 /dev/zero | tr '\\0' y; echo end >&2"
    running = box.begin("docker", "run", "--rm", "busybox", "sh", "-c", script)
    out, err = running.communicate(timeout=60)
    assert (len(out), err, running.returncode) == (20_000_000, b"end\n", 0)


def test_exec(box: Installed) -> None:
    box.docker("run", "-d", "--name", "one", "-e", "OWN=1", "-w", "/tmp", *_SLEEP)
    assert box.docker("exec", "one", "sh", "-c", "pwd; echo $OWN").lines == ["/tmp", "1"]
    done = box.docker("exec", "-e", "A=b c", "-w", "/etc", "-u", "www-data", "one",
                      "sh", "-c", 'echo "$A"; pwd; id -un; echo bad >&2; exit 42', check=False)  # fmt: skip
    assert (done.lines, done.complaint, done.status) == (["b c", "/etc", "www-data"], "bad", 42)
    assert box.docker("exec", "-i", "one", "wc", "-c", data=b"x" * 100000).text == "100000"
    assert box.docker("exec", "one", "sh", "-c", "cat; echo no input").text == "no input"
    assert box.docker("exec", "--privileged", "one", "grep", "CapEff", "/proc/self/status").text > (
        box.docker("exec", "one", "grep", "CapEff", "/proc/self/status").text
    )
    box.docker("exec", "-d", "one", "touch", "/tmp/detached")
    box.wait(lambda: "detached" in box.docker("exec", "one", "ls", "/tmp").text, "a detached exec")
    assert box.docker("exec", "one", "nosuch", check=False).status == 127
    assert box.docker("exec", "one", "/etc/passwd", check=False).status == 126
    box.fails("exec", "nosuch", "true", says="No such container: nosuch")
    box.docker("stop", "-t", "0", "one")
    box.fails("exec", "one", "true", says="is not running")


def test_exec_half_close(box: Installed) -> None:
    box.docker("run", "-d", "--name", "one", *_SLEEP)
    data = os.urandom(1 << 20) * 16
    done = box.docker("exec", "-i", "one", "cat", data=data)
    assert hashlib.sha256(done.out).digest() == hashlib.sha256(data).digest()


def test_exec_on_a_terminal(box: Installed) -> None:
    box.docker("run", "-d", "--name", "one", *_SLEEP)
    with box.terminal("docker", "exec", "-ti", "one", "sh") as terminal:
        terminal.expect("# ")
        terminal.type("tty; exit 6\n")
        terminal.expect("/dev/pts/")
        assert terminal.finish() == 6


def test_attach_gets_output_and_gives_input(box: Installed) -> None:
    box.docker(
        "run",
        "-d",
        "-i",
        "--name",
        "one",
        "busybox",
        "sh",
        "-c",
        "read a; echo got $a; echo bad >&2; exit 8",
    )
    done = box.docker("attach", "one", data=b"words\n", check=False)
    assert (done.text, done.complaint, done.status) == ("got words", "bad", 8)
    box.fails("attach", "one", says="You cannot attach to a stopped container")


def test_start_attached(box: Installed) -> None:
    box.docker("create", "-i", "--name", "one", "busybox", "sh", "-c", "cat; exit 9")
    done = box.docker("start", "-ai", "one", data=b"through", check=False)
    assert (done.out, done.status) == (b"through", 9)


def test_two_clients_attached_at_once(box: Installed) -> None:
    box.docker(
        "run",
        "-d",
        "-i",
        "--name",
        "one",
        "busybox",
        "sh",
        "-c",
        "while read x; do echo got $x; done",
    )
    clients = [box.begin("docker", "attach", "one") for _ in range(2)]
    try:
        for number, client in enumerate(clients):
            _speak_until_both_hear(clients, client, f"word{number}")
    finally:
        for client in clients:
            client.kill()
            client.communicate()
    assert box.state("one")["Running"] is True


def _speak_until_both_hear(
    clients: list[subprocess.Popen[bytes]], speaker: subprocess.Popen[bytes], word: str
) -> None:
    assert speaker.stdin
    missing = set(range(len(clients)))
    heard = [b""] * len(clients)
    for _ in range(100):  # a word said before the other was attached is not heard by it
        speaker.stdin.write(f"{word}\n".encode())
        speaker.stdin.flush()
        outs = [client.stdout for client in clients if client.stdout]
        for ready in select.select(outs, [], [], 0.2)[0]:
            index = outs.index(ready)
            heard[index] += os.read(ready.fileno(), 65536)
            if f"got {word}".encode() in heard[index]:
                missing.discard(index)
        if not missing:
            return
    raise AssertionError(f"clients {missing} heard nothing")


def test_detach_keys(box: Installed) -> None:
    with box.terminal("docker", "run", "-ti", "--name", "one", "busybox", "sh") as terminal:
        terminal.expect("# ")
        terminal.type("\x10\x11")
        assert terminal.finish() == 0
    assert box.state("one")["Running"] is True
    with box.terminal("docker", "attach", "--detach-keys", "ctrl-x,x", "one") as terminal:
        terminal.type("echo a$((1+1))b\n")
        terminal.expect("a2b")
        terminal.type("\x18x")
        terminal.finish()
    assert box.state("one")["Running"] is True
    with box.terminal("docker", "attach", "one") as terminal:
        terminal.type("exit 5\n")
        assert terminal.finish() == 5
    with box.terminal("docker", "exec", "-ti", "one", "sh") as terminal:
        assert terminal.finish() == 1  # it has ended


def test_signals_are_passed_on(box: Installed) -> None:
    script = "trap 'echo caught; exit 4' INT; echo ready; while :; do sleep 0.05; done"
    client = box.begin("docker", "run", "--rm", "busybox", "sh", "-c", script)
    assert client.stdout
    assert client.stdout.readline() == b"ready\n"
    client.send_signal(2)
    out, _ = client.communicate(timeout=30)
    assert (out, client.returncode) == (b"caught\n", 4)


def test_many_at_once(box: Installed) -> None:
    """Sixteen interactive runs over TLS at the same time mix nothing up."""
    results: dict[int, Done] = {}

    def one(number: int) -> None:
        data = bytes([number]) * 1_000_000
        results[number] = box.docker("run", "--rm", "-i", "busybox", "cat", data=data, check=False)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wrong = [n for n, done in results.items() if done.out != bytes([n]) * 1_000_000]
    assert (len(results), wrong) == (16, []), [results[n].complaint for n in wrong]
