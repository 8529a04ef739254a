"""Real-time CPU time of cgroup v1 (cpu.rt_runtime_us): there or not, and handed down to our groups.

A group can be given no more than its parent has, and what the children have together must fit; a new
group has none.  systemd and moby leave that to the administrator; here the way down to a container's
group is widened as far as the groups above allow.
"""

from __future__ import annotations

import contextlib
import os

from agent.runtime.cgroups import Hierarchies

_RUNTIME = "cpu.rt_runtime_us"
_PERIOD = "cpu.rt_period_us"
DEFAULT_PERIOD = 1_000_000  # microseconds, the kernel's


def hierarchy(hierarchies: Hierarchies) -> str:
    """The mount point of the v1 cpu controller if the kernel schedules real time by group, else ""."""
    for one in hierarchies.v1:
        if "cpu" in os.path.basename(one).split(",") and os.path.exists(f"{one}/{_RUNTIME}"):
            return one
    return ""


def make_room(top: str, parent: str, runtime: int, period: int) -> None:
    """Let the group `parent` (an absolute cgroup path) give `runtime` of each `period` (in
    microseconds) to one more child.  Best effort: the OCI runtime says it when there is not enough."""
    wanted = -(-runtime * DEFAULT_PERIOD // (period or DEFAULT_PERIOD))
    folder = top
    for name in (part for part in parent.split("/") if part):
        folder = f"{folder}/{name}"
        with contextlib.suppress(OSError, ValueError):
            os.makedirs(folder, exist_ok=True)
            needed = wanted + sum(_share(one.path) for one in os.scandir(folder) if one.is_dir())
            if _share(folder) < needed:
                with open(f"{folder}/{_RUNTIME}", "w", encoding="ascii") as file:
                    file.write(str(needed))


def _share(folder: str) -> int:
    """Microseconds of a second that a group may run; -1 (no limit) counts as all."""
    runtime, period = _number(folder, _RUNTIME), _number(folder, _PERIOD)
    return DEFAULT_PERIOD if runtime < 0 else -(-runtime * DEFAULT_PERIOD // period)


def _number(folder: str, name: str) -> int:
    with open(f"{folder}/{name}", encoding="ascii") as file:
        return int(file.read())
