"""A virtual machine that exists: on, off, asleep, put back, made larger."""

from __future__ import annotations

import contextlib
import socket
from typing import Final

from drivers.api import DriverContext, HostState, Size
from drivers.errors import (
    CannotError,
    ConflictError,
    GoneError,
    InvalidError,
    TransientError,
    WaitTimeoutError,
)
from drivers.polling import Backoff, NotYet, retried, wait_until
from drivers.virtualbox import disks, plan, texts
from drivers.virtualbox.program import VBoxManage

PRESSES: Final = 2  # of the power button: a guest that boots may miss the first
_PRESS_SECONDS: Final = 45.0
_TURN_SECONDS: Final = 120.0
_LONG: Final = 900.0  # seconds: a memory of many gigabytes goes to the disk
_OFTEN: Final = Backoff(first=0.1, factor=2.0, most=4.0)
_OFF: Final = frozenset({HostState.STOPPED, HostState.SAVED})


def start(ctx: DriverContext, box: VBoxManage) -> None:
    """On, from whatever state; its forwarded ports are made free ones first."""

    def attempt() -> None:
        info = box.info()
        if info.state is HostState.RUNNING:
            return
        if info.state is HostState.PAUSED:
            box.run("controlvm", ctx.uuid, "resume")
            return
        if info.locked or info.state not in _OFF:
            raise TransientError(f"the virtual machine is {info.values.get('VMState', 'locked')}")
        if info.state is HostState.STOPPED:
            _forward(ctx, box, info)
        box.run("startvm", ctx.uuid, "--type", ctx.text("ui-type"), timeout=_TURN_SECONDS)

    with box.alone():
        retried(attempt, clock=ctx.clock)
    _reached(ctx, box, frozenset({HostState.RUNNING}), "the start")


def stop(ctx: DriverContext, box: VBoxManage) -> None:
    """In order by its power button; when it does not heed that, its power is cut."""
    state = box.info().state
    if state is HostState.STOPPED:
        return
    if state in {HostState.SAVED, HostState.PAUSED}:
        start(ctx, box)
    for _ in range(PRESSES):
        with contextlib.suppress(ConflictError):
            box.again("controlvm", ctx.uuid, "acpipowerbutton")
        with contextlib.suppress(WaitTimeoutError):
            _reached(ctx, box, frozenset({HostState.STOPPED}), "the shutdown", _PRESS_SECONDS)
            return
    kill(ctx, box)


def kill(ctx: DriverContext, box: VBoxManage) -> None:
    if box.info().state is HostState.SAVED:
        box.again("discardstate", ctx.uuid)
    else:
        cut(ctx, box)
    _reached(ctx, box, frozenset({HostState.STOPPED}), "the power cut")


def cut(ctx: DriverContext, box: VBoxManage) -> None:
    """Off, as it is; one that is off stays as it is."""
    if box.info().state not in _OFF:
        with contextlib.suppress(ConflictError):
            box.again("controlvm", ctx.uuid, "poweroff", timeout=_TURN_SECONDS)
    _reached(ctx, box, _OFF, "the power cut")


def suspend(ctx: DriverContext, box: VBoxManage) -> None:
    state = box.info().state
    if state is HostState.SAVED:
        return
    if state is HostState.STOPPED:
        raise ConflictError("the virtual machine is off: there is nothing to suspend")
    with contextlib.suppress(ConflictError):
        box.again("controlvm", ctx.uuid, "savestate", timeout=_LONG)
    _reached(ctx, box, frozenset({HostState.SAVED}), "the suspend")


def take(ctx: DriverContext, box: VBoxManage, label: str) -> None:
    """A snapshot, with the memory when it runs; its time is kept, since VirtualBox tells none."""
    plan.check_label(label)
    if _taken(box, label):
        raise ConflictError(f"there is a snapshot {label} already")
    mark = f"machine {ctx.clock.now():.3f}"

    def attempt() -> None:
        if not _taken(box, label):
            box.run("snapshot", ctx.uuid, "take", label, "--description", mark, timeout=_LONG)

    retried(attempt, clock=ctx.clock)


def restore(ctx: DriverContext, box: VBoxManage, label: str) -> None:
    wanted = _taken(box, label)
    if wanted is None:
        raise GoneError(f"there is no snapshot {label}")
    was_on = box.info().state not in _OFF
    cut(ctx, box)
    box.again("snapshot", ctx.uuid, "restore", wanted.ident, timeout=_LONG)
    if was_on:
        start(ctx, box)


def drop(ctx: DriverContext, box: VBoxManage, label: str) -> None:
    wanted = _taken(box, label)
    if wanted is None:
        return
    with contextlib.suppress(GoneError):
        box.again("snapshot", ctx.uuid, "delete", wanted.ident, timeout=_LONG)


def _taken(box: VBoxManage, label: str) -> texts.Taken | None:
    return next((one for one in box.info().snapshots if one.label == label), None)


def resize(ctx: DriverContext, box: VBoxManage, size: Size) -> None:
    """The host is off for it. Everything is checked before anything is changed."""
    info = box.info()
    if size.plan:
        raise CannotError("VirtualBox has no named sizes; give processors, memory or disk")
    if info.state is HostState.SAVED:
        raise ConflictError("the virtual machine is suspended: start it, or kill it, before")
    if size.cpus < 0 or size.memory < 0 or size.disk < 0:
        raise InvalidError("sizes can't be below nothing")
    if size.disk:
        _check_disk(ctx, box, info, size.disk * 1024)
    was_on = info.state is not HostState.STOPPED
    if was_on:
        stop(ctx, box)
    argv = ["--cpus", str(size.cpus)] if size.cpus else []
    argv += ["--memory", str(size.memory)] if size.memory else []
    try:
        if argv:
            box.modify(*argv)
        if size.disk:
            disks.resize(box, disks.path(ctx), size.disk * 1024)
    finally:
        if was_on:
            start(ctx, box)


def _check_disk(ctx: DriverContext, box: VBoxManage, info: texts.Vm, wanted: int) -> None:
    if info.snapshots:
        raise ConflictError(
            "a disk with snapshots can't be made larger", hint="Drop the snapshots first."
        )
    have = disks.capacity(box, disks.path(ctx))
    if wanted < have:
        raise InvalidError(f"the disk has {have} MiB; it can't be made smaller than it is")


def _forward(ctx: DriverContext, box: VBoxManage, info: texts.Vm) -> None:
    """While it was off, its ports may have become someone else's."""
    dropped, added = plan.missing_forwards(ctx.uuid, info.forwards, _free)
    argv = [part for name in dropped for part in ("--natpf1", "delete", name)]
    argv += [part for rule in added for part in ("--natpf1", rule)]
    if argv:
        box.run("modifyvm", ctx.uuid, *argv)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((plan.LOOPBACK, port))
        except OSError:
            return False
    return True


def _reached(
    ctx: DriverContext,
    box: VBoxManage,
    states: frozenset[HostState],
    what: str,
    seconds: float = _TURN_SECONDS,
) -> None:
    """Wait for a state; off means that its session has ended, too."""

    def attempt() -> NotYet | None:
        info = box.info()
        if info.state in states and not (info.state in _OFF and info.locked):
            return None
        return NotYet(f"it is {info.values.get('VMState', 'unknown')}")

    wait_until(attempt, what=what, seconds=seconds, clock=ctx.clock, backoff=_OFTEN)
