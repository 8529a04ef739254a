"""A container's processes by the host's /proc: for `docker top`, and to end an exec with its children."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
from collections.abc import Callable, Iterable
from functools import lru_cache

from agent.engine.inside import Process

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_ROUNDS = 20  # a family that forks while it is being killed


def processes(pids: Iterable[int]) -> list[Process]:
    """Those that still are there, by pid."""
    booted = _boot_time()
    found = [_process(pid, booted) for pid in sorted(pids)]
    return [one for one in found if one is not None]


def parse_stat(text: str) -> tuple[str, list[str]]:
    """/proc/PID/stat -> (name, the fields from the state on); the name may hold anything."""
    opening, closing = text.index("("), text.rindex(")")
    return text[opening + 1 : closing], text[closing + 2 :].split()


def terminal(number: int) -> str:
    """tty_nr as ps shows it."""
    major = (number >> 8) & 0xFFF
    minor = (number & 0xFF) | ((number >> 12) & 0xFFF00)
    if not number:
        return "?"
    if 136 <= major <= 143:
        return f"pts/{minor + (major - 136) * 256}"
    return f"tty{minor}" if major == 4 else "?"


def _process(pid: int, booted: int) -> Process | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            name, fields = parse_stat(file.read())
        with open(f"/proc/{pid}/cmdline", "rb") as raw:
            words = raw.read(1 << 16).rstrip(b"\0").split(b"\0")
        info = os.stat(f"/proc/{pid}")
    except (OSError, ValueError):
        return None
    command = b" ".join(words).decode("utf-8", "backslashreplace")
    command = "".join(one if one.isprintable() else "?" for one in command)
    return Process(
        pid=pid,
        parent=int(fields[1]),
        uid=info.st_uid,
        gid=info.st_gid,
        user=_user(info.st_uid),
        command=command or f"[{name}]",
        name=name,
        state=fields[0],
        group=int(fields[2]),
        session=int(fields[3]),
        terminal=terminal(int(fields[4])),
        cpu=(int(fields[11]) + int(fields[12])) / _TICKS,
        priority=int(fields[15]),
        nice=int(fields[16]),
        threads=int(fields[17]),
        started=booted + int(fields[19]) * 1_000_000_000 // _TICKS,
        virtual=int(fields[20]),
        resident=int(fields[21]) * _PAGE,
    )


@lru_cache(maxsize=1024)
def _user(uid: int) -> str:
    """The host's name for it, as ps outside the container shows it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _boot_time() -> int:
    """ns since the epoch."""
    with open("/proc/stat", encoding="ascii") as file:
        for line in file:
            if line.startswith("btime "):
                return int(line.split()[1]) * 1_000_000_000
    return 0


def family(members: Iterable[Process], pid: int) -> set[int]:
    """`pid`, what descends from it, and what is in its session."""
    everyone = list(members)
    found = {pid} | {one.pid for one in everyone if one.session == pid}
    grown = True
    while grown:
        more = {one.pid for one in everyone if one.parent in found} - found
        found |= more
        grown = bool(more)
    return found


def end_family(pids: Callable[[], Iterable[int]], pid: int) -> None:
    """SIGKILL a process and its family; `pids` gives all of the container's.

    The family is found before its head is killed: after that its children are init's.
    """
    doomed: set[int] = {pid}
    for _ in range(_ROUNDS):
        members = processes(pids())
        present = {one.pid for one in members if one.state != "Z"}
        for one in list(doomed):
            doomed |= family(members, one)
        alive = doomed & present
        if not alive:
            return
        for one in sorted(alive):
            with contextlib.suppress(OSError):
                os.kill(one, signal.SIGSTOP)  # what is stopped does not fork on
        for one in sorted(doomed & {member.pid for member in processes(pids())}):
            with contextlib.suppress(OSError):
                os.kill(one, signal.SIGKILL)
