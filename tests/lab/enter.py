"""Becoming a root file system of our own: overlay, devices, cgroups, pivot_root, exec.

Runs as the first process of new mount and PID namespaces, made by `supervise` (hosts) or by
unshare(1) (package installations while the cache is built).
"""

import json
import os
import sys
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.lab import syscalls as sc

_NODES = (
    ("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9),
    ("tty", 5, 0), ("fuse", 10, 229), ("kmsg", 1, 3), ("loop-control", 10, 237),
    ("net/tun", 10, 200),
)  # fmt: skip
_LINKS = (
    ("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"),
    ("stderr", "fd/2"),
)  # fmt: skip


@dataclass(frozen=True)
class CgroupMount:
    """One hierarchy to mount at /sys/fs/cgroup/`place` ("" is that directory itself)."""

    place: str
    kind: str
    data: str


@dataclass(frozen=True)
class Overlay:
    """An overlay mount; `lowers` topmost first; all paths absolute."""

    lowers: tuple[str, ...]
    upper: str
    work: str
    target: str

    def mount(self, target: str) -> None:
        """Mount at `target`. Redirects and metacopy off: the upper must be readable by itself."""
        data = (
            f"lowerdir={':'.join(self.lowers)},upperdir={self.upper},workdir={self.work},"
            "redirect_dir=off,metacopy=off,index=off"
        )
        sc.mount("overlay", target, "overlay", 0, data)


@dataclass(frozen=True)
class Root:
    """A root file system and the program that becomes its process 1."""

    root: Overlay
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    hostname: str = ""
    binds: tuple[tuple[str, str], ...] = ()
    overlays: tuple[Overlay, ...] = ()
    cgroups: tuple[CgroupMount, ...] = ()
    shared: bool = False

    def to_json(self) -> dict[str, object]:
        """Plain JSON, see `from_json`."""
        return asdict(self)


def _overlay(raw: dict[str, object]) -> Overlay:
    lowers = raw["lowers"]
    assert isinstance(lowers, list)
    return Overlay(tuple(lowers), str(raw["upper"]), str(raw["work"]), str(raw["target"]))


def root_from_json(raw: dict) -> Root:  # type: ignore[type-arg]  # our own asdict(), back
    """The inverse of Root.to_json after a trip through a JSON file."""
    return Root(
        root=_overlay(raw["root"]),
        argv=tuple(raw["argv"]),
        environment=dict(raw["environment"]),
        hostname=raw["hostname"],
        binds=tuple((a, b) for a, b in raw["binds"]),
        overlays=tuple(_overlay(o) for o in raw["overlays"]),
        cgroups=tuple(CgroupMount(**c) for c in raw["cgroups"]),
        shared=raw["shared"],
    )


def _make_devices(dev: Path) -> None:
    sc.mount("tmpfs", str(dev), "tmpfs", sc.MS_NOSUID, "mode=755")
    old = os.umask(0)
    for name in ("pts", "shm", "mqueue", "net"):
        (dev / name).mkdir(0o755)
    for name, major, minor in _NODES:
        os.mknod(dev / name, 0o020666, os.makedev(major, minor))
    for minor in range(8):  # loop mounts inside a host need the nodes, and nothing makes them
        os.mknod(dev / f"loop{minor}", 0o060660, os.makedev(7, minor))
    os.umask(old)
    for name, target in _LINKS:
        (dev / name).symlink_to(target)
    sc.mount(
        "devpts", str(dev / "pts"), "devpts", sc.MS_NOSUID | sc.MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=620,gid=5",
    )  # fmt: skip
    sc.mount("tmpfs", str(dev / "shm"), "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, "mode=1777")


def _mount_kernel_views(top: Path, cgroups: tuple[CgroupMount, ...]) -> None:
    quiet = sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC
    sc.mount("proc", str(top / "proc"), "proc", quiet)
    sc.mount("sysfs", str(top / "sys"), "sysfs", quiet | sc.MS_RDONLY)
    _make_devices(top / "dev")
    sc.mount("tmpfs", str(top / "run"), "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, "mode=755")
    sc.mount("tmpfs", str(top / "tmp"), "tmpfs", 0, "mode=1777")
    where = top / "sys/fs/cgroup"
    if cgroups and cgroups[0].place:
        sc.mount("tmpfs", str(where), "tmpfs", quiet, "mode=755")
    for one in cgroups:
        target = where / one.place
        target.mkdir(exist_ok=True)
        sc.mount(one.kind, str(target), one.kind, quiet, one.data)


def _fresh_boot_id(top: Path) -> None:
    """Each boot its own boot_id, as on a real host: that is how a client sees that it rebooted."""
    place = top / "run/.boot_id"
    place.write_text(f"{uuid.uuid4()}\n")
    sc.mount(str(place), str(top / "proc/sys/kernel/random/boot_id"), "", sc.MS_BIND)


def make_root(top: Path) -> None:
    """The mount at `top` becomes the root of this mount namespace, not only of this process.

    In a chroot they differ: what enters a namespace made from ours (an exec in a container) would
    come out at the computer's root. Joining the namespace that we are in leads there first.
    """
    place = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    sc.join_namespace("/proc/self/ns/mnt", sc.CLONE_NEWNS)
    os.chdir(place)
    os.close(place)
    sc.pivot_root(".", ".")
    sc.unmount_lazily(".")
    os.chdir("/")
    os.chroot(".")


def become(spec: Root) -> None:
    """Mount everything, make it the root and exec its first program. Returns only by raising.

    The caller must be alone in a new mount namespace.
    """
    sc.mount("", "/", "", sc.MS_REC | sc.MS_PRIVATE)
    top = Path(spec.root.target)
    spec.root.mount(str(top))
    if spec.hostname:
        sc.set_hostname(spec.hostname)
    _mount_kernel_views(top, spec.cgroups)
    if spec.cgroups:
        _fresh_boot_id(top)
    for extra in spec.overlays:
        inner = top / extra.target.lstrip("/")
        inner.mkdir(parents=True, exist_ok=True)
        extra.mount(str(inner))
    for source, target in spec.binds:
        inner = top / target.lstrip("/")
        if Path(source).is_dir():
            inner.mkdir(parents=True, exist_ok=True)
        sc.mount(source, str(inner), "", sc.MS_BIND)
    make_root(top)
    if spec.shared:  # what systemd does on a real host; in a container it leaves it to the manager
        sc.mount("", "/", "", sc.MS_REC | sc.MS_SHARED)
    os.execve(spec.argv[0], list(spec.argv), dict(spec.environment))


if __name__ == "__main__":
    become(root_from_json(json.loads(Path(sys.argv[1]).read_text())))
