"""GET /containers/{id}/top: processes in ps's columns.

The agent reads /proc itself: no ps of the host's or the image's is run.  `ps_args` are those that
people use: -ef, -e, -f, -A, aux (and a, u, x), -o/-eo with column names.  Others are refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from agent.api.schema.fields import Document
from agent.engine.inside import Process
from agent.errors import invalid
from agent.wire.http import printable

_SECOND: Final = 1_000_000_000
Cell = Callable[[Process, int], str]  # (process, now in ns) -> text


def top_document(processes: Sequence[Process], ps_args: str, now: int) -> Document:
    """Raises EngineError (INVALID) for arguments that are not known."""
    names = _columns(ps_args)
    return {
        "Titles": [_COLUMNS[name][0] for name in names],
        "Processes": [[_COLUMNS[name][1](one, now) for name in names] for one in processes],
    }


def _columns(ps_args: str) -> list[str]:
    words = ps_args.split() or ["-ef"]
    chosen: list[str] = []
    style = ""
    while words:
        word = words.pop(0)
        match = re.fullmatch(r"-?([aefAxuwh]*)(o(.*))?", word)
        if match is None:
            raise invalid(f"ps argument {printable(word)} is not known to this engine")
        letters, option, rest = match.groups()
        if option is not None:
            text = rest or (words.pop(0) if words else "")
            chosen += [one for one in text.lower().split(",") if one]
        elif "u" in letters:
            style = "u"
        elif "f" in letters and not style:
            style = "f"
    for name in chosen:
        if name not in _COLUMNS:
            raise invalid(f"error: unknown user-defined format specifier {printable(name)!r}")
    if chosen:
        if "pid" not in chosen:
            raise invalid("Couldn't find PID field in ps output")
        return chosen
    return list(_STYLES[style])


def _percent(process: Process, now: int) -> float:
    lived = max((now - process.started) / _SECOND, 0.01)
    return min(process.cpu / lived * 100, 99.9 * process.threads)


def _started(process: Process, now: int) -> str:
    begun = datetime.fromtimestamp(process.started // _SECOND, UTC)
    today = datetime.fromtimestamp(now // _SECOND, UTC)
    return begun.strftime("%H:%M" if begun.date() == today.date() else "%b%d")


def _hours(process: Process, _now: int) -> str:
    minutes, seconds = divmod(int(process.cpu), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}"


def _minutes(process: Process, _now: int) -> str:
    return f"{int(process.cpu) // 60}:{int(process.cpu) % 60:02d}"


def _elapsed(process: Process, now: int) -> str:
    seconds = max(now - process.started, 0) // _SECOND
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days}-{clock}" if days else clock.removeprefix("00:")


def _state(process: Process, _now: int) -> str:
    marks = "<" if process.nice < 0 else "N" if process.nice > 0 else ""
    marks += "s" if process.session == process.pid else ""
    marks += "l" if process.threads > 1 else ""
    return process.state + marks


_COLUMNS: Final[Mapping[str, tuple[str, Cell]]] = {
    "user": ("USER", lambda one, _: one.user),
    "euser": ("EUSER", lambda one, _: one.user),
    "uname": ("USER", lambda one, _: one.user),
    "uid": ("UID", lambda one, _: str(one.uid)),
    "uid_name": ("UID", lambda one, _: one.user),
    "gid": ("GID", lambda one, _: str(one.gid)),
    "pid": ("PID", lambda one, _: str(one.pid)),
    "ppid": ("PPID", lambda one, _: str(one.parent)),
    "pgid": ("PGID", lambda one, _: str(one.group)),
    "pgrp": ("PGRP", lambda one, _: str(one.group)),
    "sid": ("SID", lambda one, _: str(one.session)),
    "sess": ("SESS", lambda one, _: str(one.session)),
    "c": ("C", lambda one, now: str(int(_percent(one, now)))),
    "stime": ("STIME", _started),
    "start": ("STARTED", _started),
    "start_time": ("START", _started),
    "etime": ("ELAPSED", _elapsed),
    "tty": ("TTY", lambda one, _: one.terminal),
    "tname": ("TTY", lambda one, _: one.terminal),
    "time": ("TIME", _hours),
    "cputime": ("TIME", _hours),
    "bsdtime": ("TIME", _minutes),
    "cmd": ("CMD", lambda one, _: one.command),
    "args": ("COMMAND", lambda one, _: one.command),
    "command": ("COMMAND", lambda one, _: one.command),
    "comm": ("COMMAND", lambda one, _: one.name),
    "ucmd": ("CMD", lambda one, _: one.name),
    "%cpu": ("%CPU", lambda one, now: f"{_percent(one, now):.1f}"),
    "pcpu": ("%CPU", lambda one, now: f"{_percent(one, now):.1f}"),
    "%mem": ("%MEM", lambda one, _: f"{one.resident / _memory() * 100:.1f}"),
    "pmem": ("%MEM", lambda one, _: f"{one.resident / _memory() * 100:.1f}"),
    "vsz": ("VSZ", lambda one, _: str(one.virtual // 1024)),
    "rss": ("RSS", lambda one, _: str(one.resident // 1024)),
    "stat": ("STAT", _state),
    "s": ("S", lambda one, _: one.state),
    "state": ("S", lambda one, _: one.state),
    "ni": ("NI", lambda one, _: str(one.nice)),
    "pri": ("PRI", lambda one, _: str(39 - one.priority)),
    "nlwp": ("NLWP", lambda one, _: str(one.threads)),
}


def _memory() -> int:
    """The host's memory in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


_STYLES: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("pid", "tty", "time", "ucmd"),
    "f": ("uid_name", "pid", "ppid", "c", "stime", "tty", "time", "cmd"),
    "u": (
        "user",
        "pid",
        "%cpu",
        "%mem",
        "vsz",
        "rss",
        "tty",
        "stat",
        "start_time",
        "bsdtime",
        "command",
    ),
}
