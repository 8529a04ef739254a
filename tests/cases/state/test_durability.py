"""SIGKILL of a real process that writes records: what it was told is on disk (cases 116, 134)."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from agent.state.lock import LockedError, RootLock
from agent.state.records import SqliteRecords

ROOT = Path(__file__).parents[3]
WRITER = textwrap.dedent(
    """
    import sys
    from agent.engine.model import Container, ContainerConfig, HostConfig
    from agent.state.lock import RootLock
    from agent.state.records import SqliteRecords

    lock = RootLock(sys.argv[1])
    records = SqliteRecords(sys.argv[1])
    print("ready", flush=True)
    number = int(sys.argv[2])
    while True:
        number += 1
        identity = f"{number:064x}"
        row = records.begin(identity, "create", {"volumes": "v" + str(number)})
        records.end(row)
        records.save(Container(identity, f"n{number}", 1, ContainerConfig(), HostConfig(), "", "", "x", ()))
        print("saved", number, flush=True)
        if number % 3 == 0:
            row = records.retire(identity, {"volumes": ""})
            print("gone", number, flush=True)
            records.end(row)
    """
)


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="engine-state-") as path:
        yield path


def start(folder: str, first: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, folder, str(first)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_case_116_acknowledged_survives_sigkill(folder):
    expected: set[int] = set()
    first = 0
    for _ in range(6):
        writer = start(folder, first)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        for _ in range(random.randrange(1, 60)):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        lines = writer.stdout.read().splitlines()
        writer.stdout.close()
        writer.wait()
        records = SqliteRecords(folder)
        found = {one.created and int(one.id, 16) for one in records.all()}
        last = max(found, default=first)
        told = _told(lines)
        # Whole lines only: what was printed was acknowledged before the kill.
        for number, gone in told.items():
            assert (number in found) is not gone
        for number in range(first + 1, last - 2):
            assert (number in found) is (number % 3 != 0), number
        assert expected <= found
        expected = {one for one in found if one % 3}
        for row, identity, intent, _ in records.pending():
            # The end of "create" is in the commit of its record: never both.
            assert intent == "remove" or int(identity, 16) not in found
            records.end(row)
        records.close()
        first = last + 3 - last % 3


def _told(lines: list[str]) -> dict[int, bool]:
    """The last word on each number; the very last line may be followed by an unprinted step."""
    told: dict[int, bool] = {}
    for line in lines:
        words = line.split()
        if len(words) == 2 and words[1].isdigit():
            told[int(words[1])] = words[0] == "gone"
    if told:
        told.pop(max(told))
    return told


def test_case_134_the_lock_goes_with_the_process(folder):
    writer = start(folder, 0)
    assert writer.stdout is not None
    try:
        assert writer.stdout.readline() == "ready\n"
        with pytest.raises(LockedError) as caught:
            RootLock(folder)
        assert caught.value.pid == writer.pid
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.stdout.close()
        writer.wait()
    RootLock(folder).close()
