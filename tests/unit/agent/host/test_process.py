import fcntl
import os

import pytest

from agent.host import process


def test_output_and_exit_code():
    done = process.run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")


def test_stdin_is_fed_and_large_output_does_not_deadlock():
    data = os.urandom(300_000)
    assert process.run(["cat"], stdin=data).stdout == data


def test_no_stdin_is_inherited():
    assert process.run(["cat"]).stdout == b""


def test_a_program_that_does_not_read_its_input():
    assert process.run(["true"], stdin=b"x" * 1_000_000).returncode == 0


def test_output_is_bounded():
    done = process.run(["sh", "-c", "head -c 100000 /dev/zero"], limit=1000)
    assert len(done.stdout) == 1000


def test_failure_prints_a_command_that_can_be_pasted():
    with pytest.raises(process.ProcessError) as caught:
        process.run(["sh", "-c", "echo it broke >&2; exit 2"])
    text = str(caught.value)
    assert text.startswith("sh -c 'echo it broke >&2; exit 2'")
    assert "exit code 2" in text
    assert "it broke" in text


def test_deadline_kills():
    with pytest.raises(process.ProcessTimeoutError):
        process.run(["sleep", "60"], timeout=0.05)


def test_a_daemonising_child_does_not_hold_us():
    done = process.run(["sh", "-c", "sleep 0.7 & echo started"], timeout=20)
    assert done.stdout == b"started\n"


def test_missing_program():
    with pytest.raises(process.ProcessError, match="cannot be started"):
        process.run(["no-such-program-at-all"])
    with pytest.raises(process.ProcessError, match="cannot be started"):
        process.run(["/no/such/program"])


def test_environment_is_fixed():
    lines = set(process.run(["env"], env={"EXTRA": "1"}).stdout.decode().splitlines())
    wanted = {f"{key}={value}" for key, value in process.ENVIRONMENT.items()} | {"EXTRA=1"}
    assert lines == wanted


def test_only_given_descriptors_arrive_and_swaps_are_right():
    first, second = os.memfd_create("a"), os.memfd_create("b")
    try:
        os.write(first, b"A")
        os.write(second, b"B")
        for fd in (first, second):
            os.lseek(fd, 0, os.SEEK_SET)
        read, write = os.pipe()
        other = fcntl.fcntl(first, fcntl.F_DUPFD_CLOEXEC, 60)
        child = process.spawn(
            ["sh", "-c", f"cat /proc/self/fd/{second} /proc/self/fd/{first}; ls /proc/self/fd"],
            fds={1: write, first: second, second: first},
        )
        os.close(write)
        assert child.wait(10) == 0
        child.close()
        words = os.read(read, 1000)
        os.close(read)
        assert words.startswith(b"AB")
        numbers = {int(word) for word in words[2:].split()}
        assert {first, second} <= numbers
        assert {other, read}.isdisjoint(numbers)
    finally:
        os.close(first)
        os.close(second)


def test_kill_and_signal_codes():
    child = process.spawn(["sleep", "60"])
    assert child.poll() is None
    child.kill()
    assert child.wait(10) == -9
    child.kill()  # harmless
    child.close()


def test_ignored_sigpipe_is_not_passed_on():
    done = process.run(["sh", "-c", "grep SigIgn /proc/self/status"])
    assert int(done.stdout.split()[1], 16) & (1 << 12) == 0
