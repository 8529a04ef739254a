"""What the runtime remembers of a running container, in $RUN: enough to find it again.

A pid alone means nothing: it is believed only with the same boot id and process start time.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict

from agent.runtime.settings import Paths
from agent.values import frozen


@frozen
class Record:
    """`pid` is the container's init, `monitor` its conmon; start times in clock ticks since boot.

    `program` is the OCI runtime that made it ("" = unknown, from before it was recorded): crun and
    runc do not know each other's containers, and an agent may come back to find the other one.
    """

    pid: int
    started: int
    monitor: int
    monitor_started: int
    boot_id: str
    tty: bool
    stdin: bool
    hostname: str
    program: str = ""
    stdin_once: bool = False


def start_time(pid: int) -> int:
    """Field 22 of /proc/<pid>/stat; 0 when there is no such process or it is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name (field 2) may hold anything, ")" and spaces too: count from the last one.
            fields = file.read().rpartition(b") ")[2].split()
    except OSError:
        return 0
    if not fields or fields[0] in (b"Z", b"X"):
        return 0
    return int(fields[19])


def alive(pid: int, started: int, boot: str, boot_now: str) -> bool:
    """Whether this very process still runs."""
    return pid > 0 and boot == boot_now and started > 0 and start_time(pid) == started


def save(paths: Paths, container_id: str, record: Record) -> None:
    path = paths.record(container_id)
    aside = f"{path}.new"
    with open(aside, "w", encoding="utf-8") as file:  # $RUN is a tmpfs: no fsync
        json.dump(asdict(record), file)
    os.rename(aside, path)


def load(paths: Paths, container_id: str) -> Record | None:
    """None when there is none, or when it can't be read."""
    try:
        with open(paths.record(container_id), encoding="utf-8") as file:
            return Record(**json.load(file))
    except (OSError, ValueError, TypeError):
        return None
