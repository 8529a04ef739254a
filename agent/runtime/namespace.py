"""Private mount namespaces, one a thread: how containers are mounted without the host seeing it.

unshare(CLONE_NEWNS) acts on the calling thread only, and a program that this thread starts
inherits its namespace.  So an overlay mounted in a short-lived thread lives exactly as long as the
conmon started from there: nothing can be left behind, whoever is killed when.
Every mount is made a slave, so that the host's unmounts still reach us and ours never reach it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from agent.engine.ports import Rootfs
from agent.host import syscalls

T = TypeVar("T")


def enter(hidden: str | None) -> None:
    """Give the calling thread a mount namespace of its own.

    `hidden`: the cgroup2 mount point of a hybrid host.  crun refuses hybrid hosts when cgroup2 has
    controllers (hugetlb, ...), and is content with the v1 ones when it does not see it.
    """
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_SLAVE)
    if hidden:
        syscalls.umount(hidden, syscalls.MNT_DETACH)
        # crun makes the container's folder there all the same, and systemd's /sys/fs/cgroup is
        # read-only; this tmpfs takes it, and goes with the namespace.
        syscalls.mount("tmpfs", hidden, "tmpfs", 0, "mode=700,size=1m")
    os.chdir("/")


def run_private(work: Callable[[], T], hidden: str | None) -> T:
    """Run `work` in a new thread with its own mount namespace; returns or raises what it does."""

    def body() -> T:
        enter(hidden)
        return work()

    with ThreadPoolExecutor(1, thread_name_prefix="mounts") as fresh:
        return fresh.submit(body).result()


class Launcher:
    """Runs short calls (starting a program) where a hybrid host's cgroup2 is hidden.

    On other hosts the calls run in place.  One thread, made when first needed.
    """

    def __init__(self, hidden: str | None) -> None:
        self._hidden = hidden
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="launcher", initializer=self._hide)

    def call(self, work: Callable[[], T]) -> T:
        return work() if self._hidden is None else self._thread.submit(work).result()

    def close(self) -> None:
        self._thread.shutdown(wait=False)

    def _hide(self) -> None:
        with contextlib.suppress(OSError):  # then crun says itself what is wrong
            enter(self._hidden)


def mount_overlay(rootfs: Rootfs, folder: str) -> None:
    """Mount the container's root on `folder`/rootfs; call in a private namespace."""
    upper = (("u", rootfs.upper), ("w", rootfs.work))
    _mount_linked(rootfs.lower, upper, folder, ",upperdir=l/u,workdir=l/w")


def mount_layers(layers: Sequence[str], folder: str) -> None:
    """Mount directories (the top one first, two at least) on `folder`/rootfs, read-only."""
    _mount_linked(layers, (), folder, "")


def _mount_linked(
    layers: Sequence[str], others: Sequence[tuple[str, str]], folder: str, options: str
) -> None:
    """Mount options must fit in a page, which 127 layer paths do not, and a ":" or "," in a path
    needs escapes: so the kernel is given short symlinks (`folder`/l/0, ...), relative to the
    thread's own working directory.  Works on every kernel; fsconfig("lowerdir+") needs 6.7.
    It also keeps the host's paths out of the container's /proc/mounts.
    """
    links = os.path.join(folder, "l")
    os.makedirs(links, mode=0o700, exist_ok=True)
    targets = [*((str(number), path) for number, path in enumerate(layers)), *others]
    for name, path in targets:
        os.symlink(path, os.path.join(links, name))
    os.chdir(folder)
    try:
        lower = ":".join(f"l/{number}" for number in range(len(layers)))
        syscalls.mount(
            "overlay",
            "rootfs",
            "overlay",
            0,
            f"lowerdir={lower}{options},index=off,metacopy=off,redirect_dir=off",
        )
    finally:
        os.chdir("/")
        for name, _ in targets:
            os.unlink(os.path.join(links, name))
        os.rmdir(links)
