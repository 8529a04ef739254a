"""The filter's program, run by a small classic BPF machine of the test's own, and by the kernel."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from agent.images import syscallfilter

REPO = Path(__file__).parents[4]
ALLOW, KILL = 0x7FFF0000, 0x80000000
ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def refused(number: int) -> int:
    return 0x00050000 | number


def answer(machine: str, number: int, argument: int = 0, arch: int | None = None) -> int:
    """What the filter returns for a call."""
    raw = syscallfilter.program(machine)
    lines = [struct.unpack_from("=HBBI", raw, place) for place in range(0, len(raw), 8)]
    data = struct.pack("=IIQQ", number, ARCHES[machine] if arch is None else arch, 0, argument)
    position = value = 0
    while True:
        code, then, otherwise, k = lines[position]
        position += 1
        if code == 0x20:
            value = struct.unpack_from("=I", data, k)[0]
        elif code == 0x06:
            return int(k)
        else:
            hit = {0x15: value == k, 0x35: value >= k, 0x45: bool(value & k)}[code]
            position += then if hit else otherwise


@pytest.mark.parametrize(
    ("machine", "allowed", "denied"),
    [
        (
            "x86_64",
            [0, 1, 9, 202, 257, 316, 437],
            [41, 42, 56, 57, 58, 59, 101, 165, 272, 321, 425],
        ),
        ("aarch64", [7, 56, 63, 64, 98, 222, 293, 437], [29, 40, 97, 117, 198, 203, 220, 221, 425]),
    ],
)
def test_decisions(machine: str, allowed: list[int], denied: list[int]) -> None:
    assert {answer(machine, number) for number in allowed} == {ALLOW}
    assert {answer(machine, number) for number in denied} == {refused(errno.EPERM)}
    clone = {"x86_64": 56, "aarch64": 220}[machine]
    assert answer(machine, clone, 0x10000 | 0x100) == ALLOW  # a thread
    assert answer(machine, clone, 0x20000000) == refused(errno.EPERM)
    assert answer(machine, 435) == refused(errno.ENOSYS)
    assert answer(machine, 0x40000000) == KILL
    assert answer(machine, 0, arch=0x40000003) == KILL


def test_the_whole_table_is_reachable() -> None:
    for machine in ARCHES:
        found = [number for number in range(600) if answer(machine, number) == ALLOW]
        assert len(found) > 60
        assert len(syscallfilter.program(machine)) // 8 < 255
    assert syscallfilter.program("sparc") == b""


PROGRAM = """
import ctypes, errno, os, socket, sys, threading
sys.path.insert(0, sys.argv[1])
from agent.images import syscallfilter
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
syscallfilter.install(libc)
def outcome(call):
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"
thread = threading.Thread(target=lambda: None)
thread.start()
thread.join()
print(outcome(lambda: socket.socket(socket.AF_UNIX)), outcome(os.fork), outcome(os.getcwd),
      outcome(lambda: os.execv("/bin/true", ["true"])), outcome(lambda: os.stat("/")))
"""


def test_the_kernel_takes_it() -> None:
    if os.uname().machine not in ARCHES:
        assert syscallfilter.program(os.uname().machine) == b""
        return
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PROGRAM, str(REPO)], capture_output=True, text=True
    )
    assert done.stdout == "EPERM EPERM EPERM EPERM done\n", done.stderr
