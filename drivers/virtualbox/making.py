"""Making and unmaking: each step looks first, so that it can be made again after anything."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path
from typing import Final

from drivers.api import DriverContext, HostState, SeedRequest
from drivers.errors import ConflictError, DriverError, GoneError, InvalidError, TransientError
from drivers.nocloud import seed_image, write_seed
from drivers.polling import retried
from drivers.virtualbox import disks, hostonly, plan, power, texts
from drivers.virtualbox.program import TAG, VBoxManage

SEED: Final = "seed.iso"
CONSOLE: Final = "console.log"
MACHINES: Final = "vm"  # VirtualBox's base folder of this machine alone
USERDATA_LIMIT: Final = 1 << 20  # a disc has no limit of its own
_CLOSING_SECONDS: Final = 30.0
_FILES: Final = (disks.DISK, *disks.PARTS, SEED, CONSOLE)


def seed(ctx: DriverContext) -> None:
    """The seed disc, once: the host's keys on it never change."""
    shared = plan.share(ctx)
    mounts = ((shared[1], f"/{shared[1]}", "vboxsf"),) if shared else ()
    given = ctx.text("userdata")
    try:
        own = Path(given).expanduser().read_bytes() if given else b""
    except OSError as err:
        raise InvalidError(f"--virtualbox-userdata {given}: {err.strerror}") from err
    made = ctx.seeds.seed(
        SeedRequest(ctx.text("ssh-user"), user_data=own, limit=USERDATA_LIMIT, mounts=mounts)
    )
    path = ctx.folder / SEED
    if not path.exists():
        write_seed(path, seed_image(made.user_data, made.meta_data, made.network_config))


def register(ctx: DriverContext, box: VBoxManage, arch: str) -> None:
    """The virtual machine, without hardware yet."""

    def attempt() -> None:
        name = box.listed()
        if name == texts.INACCESSIBLE:
            box.run("unregistervm", ctx.uuid)
        elif name:
            return
        # a create that was killed half-way leaves a folder that VirtualBox does not know of
        _remove_tree(ctx, ctx.folder / MACHINES)
        box.run("createvm", *plan.created(ctx, arch))

    with box.alone():
        retried(attempt, clock=ctx.clock)


def equip(ctx: DriverContext, box: VBoxManage, arch: str) -> tuple[str, str]:
    """Hardware, disks and networks: (host-only address or "", why there is none)."""
    with box.alone():
        box.again("setextradata", ctx.uuid, TAG, ctx.uuid)
        if box.info().state is not HostState.STOPPED:  # it was started, so this was done before
            return hostonly.known(ctx, box), ""
        console = str(ctx.folder / CONSOLE)
        box.modify(*plan.hardware(ctx, arch, os.cpu_count() or 1, console))
        _attach(ctx, box)
        if ctx.flag("no-hostonly"):
            return "", ""
        try:
            return hostonly.attach(ctx, box), ""
        except TransientError:
            raise
        except DriverError as err:
            hostonly.detach(ctx, box)
            box.modify(f"--nic{hostonly.CARD}", "none")
            return "", err.message.splitlines()[0]


def _attach(ctx: DriverContext, box: VBoxManage) -> None:
    """The controller with disk and seed, and the shared folder.

    The controller is virtio-scsi: cloud kernels without a driver for SATA have one for it.
    """
    info = box.info()
    names = {v for k, v in info.values.items() if k.startswith("storagecontrollername")}
    if plan.CONTROLLER not in names:
        with contextlib.suppress(ConflictError):
            box.again(
                "storagectl", ctx.uuid, "--name", plan.CONTROLLER, "--add", "virtio-scsi",
                "--controller", "VirtIO", "--portcount", "2", "--bootable", "on",
                "--hostiocache", "on",
            )  # fmt: skip
    for port, kind, path in (
        (plan.DISK_PORT, "hdd", disks.path(ctx)),
        (plan.SEED_PORT, "dvddrive", ctx.folder / SEED),
    ):
        if info.values.get(f"{plan.CONTROLLER}-{port}-0") != str(path):
            box.again(
                "storageattach", ctx.uuid, "--storagectl", plan.CONTROLLER, "--port", port,
                "--device", "0", "--type", kind, "--medium", str(path),
            )  # fmt: skip
    shared = plan.share(ctx)
    if shared and shared[1] not in info.shares:
        with contextlib.suppress(ConflictError):
            box.again("sharedfolder", "add", ctx.uuid, "--name", shared[1],
                      "--hostpath", shared[0])  # fmt: skip


def unmake(ctx: DriverContext, box: VBoxManage) -> None:
    """Everything of the machine's away, whatever of it there is; then looked for again."""
    with box.alone():
        if box.find() is not None:
            hostonly.detach(ctx, box)
            power.cut(ctx, box)
        if box.listed():
            _unregister(ctx, box)
        _forget_media(ctx, box)
        if box.listed():
            raise DriverError(f"VirtualBox still lists the virtual machine {ctx.uuid}")
    _remove_tree(ctx, ctx.folder / MACHINES)
    for name in _FILES:
        _remove_file(ctx.folder / name)


def _unregister(ctx: DriverContext, box: VBoxManage) -> None:
    """With its files; when those are not as VirtualBox expects, without: they are ours to delete."""
    try:
        box.again("unregistervm", ctx.uuid, "--delete")
    except GoneError:
        with contextlib.suppress(GoneError):
            box.again("unregistervm", ctx.uuid)


def _forget_media(ctx: DriverContext, box: VBoxManage) -> None:
    """Disks and discs below our folder that VirtualBox's list still has, children first."""
    for listed, kind in (("hdds", "disk"), ("dvds", "dvd")):
        for ident, location in reversed(box.media(listed)):
            if Path(location).is_relative_to(ctx.folder):
                _close(ctx, box, kind, ident)


def _close(ctx: DriverContext, box: VBoxManage, kind: str, ident: str) -> None:
    """A medium of a machine that ended just now may still be held for a moment."""

    def attempt() -> None:
        try:
            box.run("closemedium", kind, ident)
        except GoneError:
            return
        except ConflictError as err:
            raise TransientError(err.message) from err

    retried(attempt, clock=ctx.clock, seconds=_CLOSING_SECONDS)


def _remove_tree(ctx: DriverContext, path: Path) -> None:
    """With patience: a machine that ended just now may still write its log."""

    def attempt() -> None:
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            if path.exists():
                raise TransientError(f"{path} changes") from None
        except OSError as err:
            kind = TransientError if err.errno == errno.ENOTEMPTY else DriverError
            raise kind(f"cannot remove {path}: {err.strerror}") from err

    retried(attempt, clock=ctx.clock, seconds=_CLOSING_SECONDS)


def _remove_file(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as err:
        raise DriverError(f"cannot remove {path}: {err.strerror}") from err


def owned(box: VBoxManage) -> list[tuple[str, str]]:
    """(machine's uuid, what it is) of all virtual machines with our tag."""
    found = []
    for ident, name in texts.machines(box.again("list", "vms")).items():
        with contextlib.suppress(GoneError):
            tag = texts.extra_data(box.again("getextradata", ident, TAG))
            if tag:
                found.append((tag, f'virtual machine "{name}"'))
    return found
