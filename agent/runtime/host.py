"""Facts of this host that specifications depend on.  Read once at the agent's start."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterator, Sequence

from agent.engine.model import DeviceMapping
from agent.errors import invalid
from agent.runtime import capabilities
from agent.runtime.cgroups import Hierarchies
from agent.runtime.spec import HostFacts
from agent.runtime.spec_linux import DeviceNode

_NOT_GIVEN = ("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev")


def read(path: str) -> str:
    """A small kernel file's text, stripped."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read().strip()


def boot_id() -> str:
    return read("/proc/sys/kernel/random/boot_id")


def facts(hierarchies: Hierarchies, init_paths: Sequence[str]) -> HostFacts:
    """Look at this host.  `host_devices` is left empty: see `all_devices`."""
    return HostFacts(
        machine=os.uname().machine,
        capabilities=_own_capabilities(),
        unified=hierarchies.unified,
        swap_limit=_swap_limit(hierarchies),
        thermal=tuple(sorted(glob.glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle"))),
        init=init_program(init_paths),
        recursive_read_only=kernel_at_least(os.uname().release, 5, 12),
    )


def kernel_at_least(release: str, major: int, minor: int) -> bool:
    """Of `uname -r`, "6.1.0-18-amd64".  What can't be read is taken for new."""
    found = re.match(r"([0-9]+)\.([0-9]+)", release)
    return found is None or (int(found[1]), int(found[2])) >= (major, minor)


def init_program(paths: Sequence[str]) -> str:
    """The first that is there, or ""."""
    return next((path for path in paths if os.access(path, os.X_OK)), "")


def _own_capabilities() -> tuple[str, ...]:
    for line in read("/proc/self/status").splitlines():
        if line.startswith("CapPrm:"):
            return capabilities.from_mask(int(line.split()[1], 16))
    return capabilities.DEFAULT


def _swap_limit(hierarchies: Hierarchies) -> bool:
    if hierarchies.unified:
        return unified_swap(hierarchies.v2)
    names = (f"{folder}/memory.memsw.limit_in_bytes" for folder in hierarchies.v1)
    return any(os.path.exists(name) for name in names)


def weighs_block_io(hierarchies: Hierarchies) -> bool:
    """Without io.weight (version 2) or blkio.weight (version 1) there are no weights.

    With BFQ alone a version 1 hierarchy has blkio.bfq.weight, which crun does not write and which
    moby does not count.
    """
    if hierarchies.unified:
        return bool(glob.glob(f"{hierarchies.v2}/*/io.*weight"))
    groups = (one for one in hierarchies.v1 if "blkio" in os.path.basename(one).split(","))
    return any(os.path.exists(f"{group}/blkio.weight") for group in groups)


def unified_swap(top: str) -> bool:
    """Whether groups below `top` have memory.swap.max: a kernel without swap, or one told
    swapaccount=0, has none, and the runtime fails on a limit that it can't write.

    The root group never has it; a host whose groups have no memory files yet gets the benefit of
    the doubt.
    """
    groups = [os.path.dirname(path) for path in glob.glob(f"{glob.escape(top)}/*/memory.max")]
    return not groups or any(os.path.exists(f"{group}/memory.swap.max") for group in groups)


def all_devices() -> tuple[DeviceNode, ...]:
    """Every device node of the host's /dev, as --privileged gives them."""
    return tuple(_walk("/dev"))


def _walk(folder: str) -> Iterator[DeviceNode]:
    for entry in os.scandir(folder):
        if entry.name in _NOT_GIVEN or entry.path in ("/dev/console", "/dev/ptmx"):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)
            continue
        found = _node(entry.stat(follow_symlinks=False), entry.path, "rwm")
        if found:
            yield found


def _node(info: os.stat_result, path: str, access: str) -> DeviceNode | None:
    kind = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}.get(stat.S_IFMT(info.st_mode))
    if kind is None:
        return None
    major, minor = os.major(info.st_rdev), os.minor(info.st_rdev)
    mode = stat.S_IMODE(info.st_mode)
    return DeviceNode(path, kind, major, minor, mode, info.st_uid, info.st_gid, access)


def given_devices(mappings: Sequence[DeviceMapping]) -> tuple[DeviceNode, ...]:
    """--device: the nodes (or every node below a folder).  INVALID when there is none."""
    found: list[DeviceNode] = []
    for mapping in mappings:
        source, target = mapping.path_on_host, mapping.path_in_container or mapping.path_on_host
        access = mapping.cgroup_permissions or "rwm"
        problem = f'error gathering device information while adding custom device "{source}": '
        try:
            real = os.path.realpath(source, strict=True)
            info = os.stat(real)
        except OSError as error:
            raise invalid(problem + "no such file or directory") from error
        if stat.S_ISDIR(info.st_mode):
            below = [(os.path.join(target, os.path.relpath(n.path, real)), n) for n in _walk(real)]
            found += [
                DeviceNode(path, n.type, n.major, n.minor, n.mode, n.uid, n.gid, access)
                for path, n in below
            ]
            continue
        node = _node(info, target, access)
        if node is None:
            raise invalid(problem + "not a device node")
        found.append(node)
    return tuple(found)
