"""What a container uses: control groups of version 1 and 2, its network interfaces, the host's CPU time.

Parsers are pure; `Gauge` reads the files.  A file that is not there (a controller that the kernel
lacks) counts as zeros.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping

from agent.engine.inside import BlockAmount, Sample, Traffic
from agent.runtime.cgroups import Cgroups
from agent.values import frozen

_TICK = 10_000_000  # ns in a USER_HZ tick, 100 a second on every Linux that Python runs on
_UNLIMITED = 1 << 62
_BLOCK = re.compile(r"(\d+):(\d+) (\w+) (\d+)")
_V2_OPERATIONS = {"rbytes": "read", "wbytes": "write", "rios": "read", "wios": "write"}


def key_values(text: str) -> dict[str, int]:
    """ "name number" lines."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.strip().isdigit():
            found[name] = int(value)
    return found


def number(text: str, default: int = 0) -> int:
    """A file's one number; "max", and nothing, are the default."""
    word = text.strip()
    return int(word) if word.isdigit() else default


def interfaces(text: str) -> dict[str, Traffic]:
    """/proc/PID/net/dev without the loopback."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        words = [int(word) for word in rest.split()]
        if name.strip() == "lo" or len(words) < 12:
            continue
        found[name.strip()] = Traffic(*words[:4], *words[8:12])
    return found


def host_cpu(text: str) -> tuple[int, int]:
    """(/proc/stat's CPU time of all processors in ns, number of processors)."""
    total = cpus = 0
    for line in text.splitlines():
        if line.startswith("cpu "):
            total = sum(int(word) for word in line.split()[1:8]) * _TICK
        elif line.startswith("cpu"):
            cpus += 1
    return total, cpus


def block_v1(text: str) -> tuple[BlockAmount, ...]:
    """blkio.throttle.io_service_bytes and its like."""
    return tuple(
        BlockAmount(int(match[1]), int(match[2]), match[3].lower(), int(match[4]))
        for match in _BLOCK.finditer(text)
    )


def block_v2(text: str, names: tuple[str, str]) -> tuple[BlockAmount, ...]:
    """io.stat: the two given counters of each device."""
    found = []
    for line in text.splitlines():
        device, _, rest = line.partition(" ")
        major, colon, minor = device.partition(":")
        if not colon:
            continue
        values = dict(word.split("=", 1) for word in rest.split() if "=" in word)
        found += [
            BlockAmount(int(major), int(minor), _V2_OPERATIONS[name], int(values[name]))
            for name in names
            if name in values
        ]
    return tuple(found)


@frozen
class _Cpu:
    total: int
    user: int
    kernel: int
    each: tuple[int, ...]
    detail: Mapping[str, int]


class Gauge:
    """Reads samples of the containers of one runtime."""

    def __init__(self, cgroups: Cgroups) -> None:
        self._cgroups = cgroups

    def sample(self, container_id: str, pid: int) -> Sample:
        """`pid`: of the container's init, for its network interfaces."""
        system, cpus = host_cpu(_read("/proc/stat"))
        total = _meminfo(_read("/proc/meminfo")) or _UNLIMITED
        networks = interfaces(_read(f"/proc/{pid}/net/dev"))
        if self._cgroups.hierarchies.unified:
            folder = self._cgroups.hierarchies.v2 + self._cgroups.path(container_id)
            return self._unified(folder, (system, cpus, total), networks)
        return self._legacy(container_id, (system, cpus, total), networks)

    def _unified(
        self, folder: str, host: tuple[int, int, int], networks: Mapping[str, Traffic]
    ) -> Sample:
        cpu = key_values(_read(f"{folder}/cpu.stat"))
        io = _read(f"{folder}/io.stat")
        return Sample(
            taken=time.time_ns(),
            unified=True,
            cpu_total=cpu.get("usage_usec", 0) * 1000,
            cpu_user=cpu.get("user_usec", 0) * 1000,
            cpu_kernel=cpu.get("system_usec", 0) * 1000,
            cpu_each=(),
            periods=cpu.get("nr_periods", 0),
            throttled_periods=cpu.get("nr_throttled", 0),
            throttled_time=cpu.get("throttled_usec", 0) * 1000,
            system=host[0],
            cpus=host[1],
            memory=number(_read(f"{folder}/memory.current")),
            memory_peak=0,
            memory_limit=min(number(_read(f"{folder}/memory.max"), _UNLIMITED), host[2]),
            memory_failures=key_values(_read(f"{folder}/memory.events")).get("max", 0),
            memory_detail=key_values(_read(f"{folder}/memory.stat")),
            pids=number(_read(f"{folder}/pids.current")),
            pids_limit=number(_read(f"{folder}/pids.max")),
            block_bytes=block_v2(io, ("rbytes", "wbytes")),
            block_operations=block_v2(io, ("rios", "wios")),
            networks=networks,
        )

    def _legacy(
        self, container_id: str, host: tuple[int, int, int], networks: Mapping[str, Traffic]
    ) -> Sample:
        path = self._cgroups.path(container_id)
        memory, pids, block = (self._v1(name) + path for name in ("memory", "pids", "blkio"))
        cpu = self._cpu_v1(path)
        limit = number(_read(f"{memory}/memory.limit_in_bytes"), _UNLIMITED)
        return Sample(
            taken=time.time_ns(),
            unified=False,
            cpu_total=cpu.total,
            cpu_user=cpu.user,
            cpu_kernel=cpu.kernel,
            cpu_each=cpu.each,
            periods=cpu.detail.get("nr_periods", 0),
            throttled_periods=cpu.detail.get("nr_throttled", 0),
            throttled_time=cpu.detail.get("throttled_time", 0),
            system=host[0],
            cpus=host[1],
            memory=number(_read(f"{memory}/memory.usage_in_bytes")),
            memory_peak=number(_read(f"{memory}/memory.max_usage_in_bytes")),
            memory_limit=min(limit, host[2]),
            memory_failures=number(_read(f"{memory}/memory.failcnt")),
            memory_detail=key_values(_read(f"{memory}/memory.stat")),
            pids=number(_read(f"{pids}/pids.current")),
            pids_limit=number(_read(f"{pids}/pids.max")),
            block_bytes=block_v1(_first(block, "io_service_bytes")),
            block_operations=block_v1(_first(block, "io_serviced")),
            networks=networks,
        )

    def _cpu_v1(self, path: str) -> _Cpu:
        folder = self._v1("cpuacct") + path
        ticks = key_values(_read(f"{folder}/cpuacct.stat"))
        each = _read(f"{folder}/cpuacct.usage_percpu").split()
        return _Cpu(
            total=number(_read(f"{folder}/cpuacct.usage")),
            user=ticks.get("user", 0) * _TICK,
            kernel=ticks.get("system", 0) * _TICK,
            each=tuple(int(word) for word in each),
            detail=key_values(_read(f"{self._v1('cpu') + path}/cpu.stat")),
        )

    def _v1(self, controller: str) -> str:
        for point in self._cgroups.hierarchies.v1:
            if controller in os.path.basename(point).split(","):
                return point
        return "/nowhere"


def _first(folder: str, name: str) -> str:
    """CFQ's counters where there are any, else the throttling layer's."""
    for kind in (f"blkio.{name}_recursive", f"blkio.throttle.{name}_recursive"):
        text = _read(f"{folder}/{kind}")
        if _BLOCK.search(text):
            return text
    return ""


def _meminfo(text: str) -> int:
    """MemTotal in bytes."""
    match = re.search(r"MemTotal:\s+(\d+) kB", text)
    return int(match[1]) * 1024 if match else 0


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
