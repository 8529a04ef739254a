"""What the engine needs of the runtime beside a container's life: looks inside, and limits.

Part of the runtime's port (see `agent.engine.ports` for the rules that hold for all of them).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Protocol

from agent.engine.model import Container, Resources
from agent.engine.ports import Rootfs
from agent.values import frozen


@frozen
class PathStat:
    """What something in a container is: name as asked for, size, st_mode, mtime in ns."""

    name: str
    size: int
    mode: int
    mtime: int
    link_target: str = ""  # absolute in the container; of a symlink


class RootView(Protocol):
    """A container's root, opened.  `root_fd` (O_PATH) is only to be used with
    `agent.host.openat.open_in_root`: the container may be changing what is below it."""

    @property
    def root_fd(self) -> int: ...

    def close(self) -> None:
        """Once; what was mounted for it goes."""
        ...


@frozen
class Process:
    """One process of a container, as the host's /proc shows it."""

    pid: int
    parent: int
    uid: int
    user: str  # name on the host, else the number
    command: str  # with arguments
    name: str
    state: str  # R, S, D, Z, T ...
    terminal: str  # "?", "pts/0"
    started: int  # ns since the epoch
    cpu: float  # seconds of user and system time
    virtual: int  # bytes
    resident: int  # bytes
    nice: int = 0
    priority: int = 20
    session: int = 0
    group: int = 0
    threads: int = 1
    gid: int = 0


@frozen
class Traffic:
    """Counters of one network interface since it was made."""

    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


@frozen
class BlockAmount:
    """One row of a block device's statistics."""

    major: int
    minor: int
    operation: str  # "read", "write", ...
    value: int


@frozen
class Sample:
    """A container's use of the host at one moment.  CPU times in ns, the host's included."""

    taken: int  # ns since the epoch
    unified: bool  # cgroup v2: which fields the API shows
    cpu_total: int
    cpu_user: int
    cpu_kernel: int
    cpu_each: tuple[int, ...]  # v1 only
    periods: int
    throttled_periods: int
    throttled_time: int
    system: int  # the host's CPU time in all
    cpus: int
    memory: int
    memory_peak: int  # v1 only
    memory_limit: int
    memory_failures: int
    memory_detail: Mapping[str, int] = field(default_factory=dict)
    pids: int = 0
    pids_limit: int = 0  # 0: none
    block_bytes: tuple[BlockAmount, ...] = ()
    block_operations: tuple[BlockAmount, ...] = ()
    networks: Mapping[str, Traffic] = field(default_factory=dict)


class Inside(Protocol):
    """Looking into containers; satisfied by `agent.runtime`."""

    @property
    def block_weight(self) -> bool:
        """Whether this host's kernel weighs block I/O."""
        ...

    @property
    def runtimes(self) -> Mapping[str, str]:
        """The OCI runtimes of this host, name -> path."""
        ...

    @property
    def real_time(self) -> bool:
        """Whether this host's kernel gives real-time CPU time to groups."""
        ...

    def view(
        self, container: Container, rootfs: Rootfs, *, writable: bool, mounts: bool = True
    ) -> RootView:
        """The root as the container's processes see it, also when it does not run.

        `mounts` False: the layers alone, never through a process.  A writable view of a container
        that does not run may only be held together with the container's lock.
        """
        ...

    def owner(self, root_fd: int, user: str) -> tuple[int, int]:
        """(uid, gid) of a user as the container's /etc/passwd has it.  INVALID when unknown."""
        ...

    def processes(self, container_id: str) -> list[Process]:
        """Every process in the container's cgroup, by pid."""
        ...

    def sample(self, container_id: str) -> Sample:
        """NOT_FOUND when it does not run.  Reads a few dozen files: about a millisecond."""
        ...

    def update(self, container: Container, resources: Resources) -> None:
        """New limits for a running container.  All of them, not only what has changed."""
        ...

    def end_exec(self, container_id: str, pid: int) -> None:
        """SIGKILL an exec's process and everything that descends from it or is in its session."""
        ...
