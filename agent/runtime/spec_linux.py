"""Limits and devices of the OCI configuration.  Pure but for looking up block devices' numbers."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from agent.engine.model import Resources
from agent.errors import invalid
from agent.values import frozen

Document = dict[str, object]
_PERIOD = 100_000  # microseconds, the kernel's default CFS period


@frozen
class DeviceNode:
    """A device given to a container."""

    path: str  # in the container
    type: str  # "c" | "b"
    major: int
    minor: int
    mode: int  # permission bits
    uid: int = 0
    gid: int = 0
    access: str = "rwm"


def resources(limits: Resources, *, swap_limit: bool, unified: bool) -> Document:
    """linux.resources without devices; a limit that was not asked for is left out."""
    found: Document = {}
    memory = _memory(limits, swap_limit=swap_limit, unified=unified)
    if memory:
        found["memory"] = memory
    cpu = _cpu(limits)
    if cpu:
        found["cpu"] = cpu
    if limits.pids_limit is not None and limits.pids_limit > 0:
        found["pids"] = {"limit": limits.pids_limit}
    block = _block(limits)
    if block:
        found["blockIO"] = block
    return found


def _block(limits: Resources) -> Document:
    block: Document = {}
    if limits.blkio_weight:
        block["weight"] = limits.blkio_weight
    rows = (
        ("weightDevice", "weight", limits.blkio_weight_device),
        ("throttleReadBpsDevice", "rate", limits.blkio_read_bps),
        ("throttleWriteBpsDevice", "rate", limits.blkio_write_bps),
        ("throttleReadIOPSDevice", "rate", limits.blkio_read_iops),
        ("throttleWriteIOPSDevice", "rate", limits.blkio_write_iops),
    )
    for name, field, given in rows:
        if given:
            block[name] = [{**_numbers(one.path), field: one.value} for one in given]
    return block


def _numbers(path: str) -> Document:
    """A device node's numbers.  INVALID when there is no such device."""
    try:
        info = os.stat(path)
    except OSError as error:
        raise invalid(f"no such block device: {path}") from error
    if not stat.S_ISBLK(info.st_mode):
        raise invalid(f"{path} is not a block device")
    return {"major": os.major(info.st_rdev), "minor": os.minor(info.st_rdev)}


def _memory(limits: Resources, *, swap_limit: bool, unified: bool) -> Document:
    memory: Document = {}
    if limits.memory > 0:
        memory["limit"] = limits.memory
    if limits.memory_reservation > 0:
        memory["reservation"] = limits.memory_reservation
    # Docker: no --memory-swap means as much swap again as memory; -1 means unlimited.
    swap = limits.memory_swap or (limits.memory * 2 if limits.memory > 0 else 0)
    if swap and swap_limit:
        memory["swap"] = swap
    if not unified:
        if limits.memory_swappiness is not None and limits.memory_swappiness >= 0:
            memory["swappiness"] = limits.memory_swappiness
        if limits.oom_kill_disable:
            memory["disableOOMKiller"] = True
    return memory


def _cpu(limits: Resources) -> Document:
    cpu: Document = {}
    if limits.cpu_shares > 0:
        cpu["shares"] = limits.cpu_shares
    if limits.nano_cpus > 0:
        cpu["period"] = _PERIOD
        cpu["quota"] = limits.nano_cpus * _PERIOD // 1_000_000_000
    if limits.cpu_period > 0:
        cpu["period"] = limits.cpu_period
    if limits.cpu_quota > 0:
        cpu["quota"] = limits.cpu_quota
    if limits.cpu_realtime_period > 0:
        cpu["realtimePeriod"] = limits.cpu_realtime_period
    if limits.cpu_realtime_runtime > 0:
        cpu["realtimeRuntime"] = limits.cpu_realtime_runtime
    if limits.cpuset_cpus:
        cpu["cpus"] = limits.cpuset_cpus
    if limits.cpuset_mems:
        cpu["mems"] = limits.cpuset_mems
    return cpu


def _allow(kind: str, major: int, minor: int | None, access: str = "rwm") -> Document:
    rule: Document = {"allow": True, "type": kind, "major": major, "access": access}
    if minor is not None:
        rule["minor"] = minor
    return rule


def device_rules(
    given: Sequence[DeviceNode], rules: Sequence[str] = (), *, privileged: bool
) -> list[Document]:
    """linux.resources.devices: everything denied but Docker's handful and those given."""
    if privileged:
        return [{"allow": True, "access": "rwm"}]
    return [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "access": "m"},  # mknod is harmless without access
        {"allow": True, "type": "b", "access": "m"},
        _allow("c", 1, 3),  # null
        _allow("c", 1, 5),  # zero
        _allow("c", 1, 7),  # full
        _allow("c", 1, 8),  # random
        _allow("c", 1, 9),  # urandom
        _allow("c", 5, 0),  # tty
        _allow("c", 5, 1),  # console
        _allow("c", 5, 2),  # ptmx
        _allow("c", 136, None),  # pts
        *(_allow(node.type, node.major, node.minor, node.access) for node in given),
        *(_rule(rule) for rule in rules),
    ]


def _rule(text: str) -> Document:
    """ "c 42:* rmw", checked before; "*" is every number."""
    kind, numbers, access = text.split(" ")
    major, _, minor = numbers.partition(":")
    rule: Document = {"allow": True, "type": kind, "access": access}
    if major != "*":
        rule["major"] = int(major)
    if minor != "*":
        rule["minor"] = int(minor)
    return rule


def devices(nodes: Sequence[DeviceNode]) -> list[Document]:
    """linux.devices: nodes to make beside the runtime's default ones."""
    return [
        {
            "path": node.path,
            "type": node.type,
            "major": node.major,
            "minor": node.minor,
            "fileMode": node.mode,
            "uid": node.uid,
            "gid": node.gid,
        }
        for node in nodes
    ]
