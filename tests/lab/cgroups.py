"""Cgroups of a lab: /machine-lab/LAB/UNIT in every hierarchy of this computer, v1, hybrid or v2.

They are also the lab's list of processes: everything that a lab ever started is below its own
cgroup, so it can be found and ended even when the program that started it is long dead.
"""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from tests.lab.enter import CgroupMount
from tests.lab.waiting import wait_until

TOP = "machine-lab"
SUPERVISORS = "supervisors"
_MOUNTINFO = Path("/proc/self/mountinfo")
_BASE = Path("/sys/fs/cgroup")
_V1_FLAGS = {"rw", "ro", "xattr", "clone_children", "noprefix"}


@dataclass(frozen=True)
class Hierarchy:
    """One mounted hierarchy."""

    path: Path
    kind: str
    data: str


def parse_mountinfo(text: str) -> list[Hierarchy]:
    """The cgroup mounts below /sys/fs/cgroup in proc(5) mountinfo, the unified one first."""
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        place = Path(left.split(" ")[4])
        if kind not in ("cgroup", "cgroup2") or not place.is_relative_to(_BASE):
            continue
        words = [w for w in options.split(",") if w not in _V1_FLAGS]
        named = any(w.startswith("name=") for w in words)
        data = ",".join((["none"] if named else []) + words) if kind == "cgroup" else ""
        found.append(Hierarchy(place, kind, data))
    return sorted(found, key=lambda h: (h.kind != "cgroup2", h.path))


def hierarchies() -> list[Hierarchy]:
    """Those of this computer now."""
    return parse_mountinfo(_MOUNTINFO.read_text())


def inner_mounts(found: list[Hierarchy], *, only_v2: bool) -> tuple[CgroupMount, ...]:
    """How a host sees the same hierarchies (through its cgroup namespace, as its roots)."""
    unified = [h for h in found if h.kind == "cgroup2"]
    if only_v2 or not any(h.kind == "cgroup" for h in found):
        return tuple(CgroupMount("", "cgroup2", "") for _ in unified[:1])
    return tuple(CgroupMount(str(h.path.relative_to(_BASE)), h.kind, h.data) for h in found)


def _prepare(hierarchy: Hierarchy, directory: Path, *, hybrid: bool) -> None:
    """Make `directory` able to hold children with every controller that its parent has.

    Not for v2 beside v1: crun refuses to work where the v2 part has controllers.
    """
    if hierarchy.kind == "cgroup2":
        if hybrid:
            return
        have = (directory / "cgroup.controllers").read_text().split()
        for name in have:
            try:
                (directory / "cgroup.subtree_control").write_text(f"+{name}")
            except OSError:
                continue  # held by a v1 hierarchy, or not to be delegated: hosts do without
    elif "cpuset" in hierarchy.data.split(","):
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not (directory / name).read_text().strip():
                (directory / name).write_text((directory.parent / name).read_text())
        (directory / "cgroup.clone_children").write_text("1")


def make(lab: str, unit: str) -> None:
    """Make the cgroup of `unit` in every hierarchy; existing ones are kept."""
    found = hierarchies()
    hybrid = any(h.kind == "cgroup" for h in found)
    for hierarchy in found:
        if hierarchy.kind == "cgroup2":
            _prepare(hierarchy, hierarchy.path, hybrid=hybrid)
        place = hierarchy.path
        for part in (TOP, lab):
            place /= part
            place.mkdir(exist_ok=True)
            _prepare(hierarchy, place, hybrid=hybrid)
        (place / unit).mkdir(exist_ok=True)


def procs_files(lab: str, unit: str) -> list[str]:
    """The cgroup.procs files of `unit`, one a hierarchy."""
    return [str(h.path / TOP / lab / unit / "cgroup.procs") for h in hierarchies()]


def join(files: list[str], pid: int) -> None:
    """Move process `pid` (0: the caller) into each of `files`."""
    for name in files:
        with open(name, "w", encoding="ascii") as file:
            file.write(str(pid))


def _directories(lab: str, unit: str) -> list[Path]:
    places = [h.path / TOP / lab / unit if unit else h.path / TOP / lab for h in hierarchies()]
    return [p for p in places if p.is_dir()]


def members(lab: str, unit: str = "") -> set[int]:
    """Every process in the lab (or in one unit of it), children cgroups included."""
    found: set[int] = set()
    for top in _directories(lab, unit):
        for place, _, _ in os.walk(top):
            try:
                found.update(int(x) for x in Path(place, "cgroup.procs").read_text().split())
            except OSError:
                continue  # removed while we walked
    return found - {0}


def kill(lab: str, unit: str = "") -> None:
    """End every process of the lab (or unit) and wait until none is left (10 s)."""

    def gone() -> bool:
        left = members(lab, unit)
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return not left

    wait_until(gone, 20, f"processes of lab {lab} {unit} to end")


def _remove_tree(top: Path, *, keep_top: bool) -> bool:
    for place, _, _ in os.walk(top, topdown=False):
        if keep_top and Path(place) == top:
            continue
        try:
            os.rmdir(place)
        except FileNotFoundError:
            continue
        except OSError:
            return False  # the kernel is still taking a dead process out of it
    return True


def remove(lab: str, unit: str = "", *, keep_top: bool = False) -> None:
    """Remove the cgroups of the lab (or unit; only its children with `keep_top`)."""

    def removed() -> bool:
        left = [t for t in _directories(lab, unit) if not _remove_tree(t, keep_top=keep_top)]
        return not left

    wait_until(removed, 10, f"cgroups of lab {lab} {unit} to go")
    if not unit and not keep_top:
        for hierarchy in hierarchies():
            try:
                (hierarchy.path / TOP).rmdir()
            except OSError:
                continue  # not there, or another lab lives in it
