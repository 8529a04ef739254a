"""A virtual machine of VirtualBox on this computer: the verbs.

The virtual machine's own uuid is the machine's, so it is found again by it, and can't be made twice.
All that belongs to it lies in the machine's folder.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from drivers.api import Address, DriverContext, HostState, Made, SeedRequest, Size, SshLogin
from drivers.errors import DriverError
from drivers.images import Images
from drivers.virtualbox import disks, making, plan, power, texts
from drivers.virtualbox.options import OPTIONS
from drivers.virtualbox.program import VBoxManage

_CONSOLE_LIMIT: Final = 64 * 1024


class VirtualBoxDriver:
    """Virtual machines by VBoxManage; stateless. `images` finds base images."""

    name = "virtualbox"
    summary = "a virtual machine of VirtualBox 7 on this computer"
    options = OPTIONS
    adopts = False

    def __init__(self, images: Images | None = None) -> None:
        self._images = images or Images()
        self._arch = plan.architecture(platform.machine())

    def missing(self, ctx: DriverContext) -> list[str]:
        try:
            found = texts.version(VBoxManage(ctx).raw("--version", timeout=20.0))
        except DriverError:
            return [
                (
                    f"VirtualBox 7 ({ctx.text('program')} can't be run): https://www.virtualbox.org, or "
                    "give its path: --virtualbox-program"
                )
            ]
        if found is None or found[0] < 7:
            told = ".".join(map(str, found)) if found else "unknown"
            return [f"VirtualBox 7 or newer (this is {told}): https://www.virtualbox.org"]
        return []

    def check(self, ctx: DriverContext) -> list[str]:
        problems = plan.problems(ctx) + self._images.problems(ctx.text("image"))
        problems += _userdata_problems(ctx.text("userdata"))
        shared = plan.share(ctx)
        if shared and not Path(shared[0]).is_dir():
            problems.append(f"--virtualbox-share-folder: {shared[0]} is no directory")
        missing = self.missing(ctx)
        if missing or ctx.flag("no-vtx-check"):
            return problems + missing
        return problems + _engine_problems(VBoxManage(ctx))

    def create(self, ctx: DriverContext) -> Iterator[Made]:
        box = VBoxManage(ctx)
        making.seed(ctx)
        if not ctx.state.get("disk") or not disks.path(ctx).exists():
            disks.make(ctx, self._images, self._arch)
            yield Made("disk", disks.DISK, "Disk made from the base image.")
        fresh = not box.registered()
        if fresh or not ctx.state.get("vm"):
            making.register(ctx, box, self._arch)
            yield Made("vm", ctx.uuid, "Virtual machine registered.")
        if fresh or "address" not in ctx.state:
            address, why = making.equip(ctx, box, self._arch)
            yield Made(
                "address", address, f"No host-only network, port forwards: {why}" if why else ""
            )
        if fresh or not ctx.state.get("started"):
            power.start(ctx, box)
            yield Made("started", value=True, note="Virtual machine started.")

    def remove(self, ctx: DriverContext) -> None:
        making.unmake(ctx, VBoxManage(ctx))

    def state(self, ctx: DriverContext) -> HostState:
        info = VBoxManage(ctx).find()
        return info.state if info else HostState.NOT_FOUND

    def address(self, ctx: DriverContext) -> Address:
        """SSH by NAT's forwarded port always; the engine by the host-only address where there is one."""
        forwards = VBoxManage(ctx).info().forwards
        if plan.SSH not in forwards or plan.ENGINE not in forwards:
            raise DriverError("the virtual machine has no forwarded ports yet; start it")
        seed = ctx.seeds.seed(SeedRequest(ctx.text("ssh-user"), limit=making.USERDATA_LIMIT))
        login = SshLogin(
            plan.LOOPBACK, forwards[plan.SSH].port, seed.user, seed.key_path, seed.host_keys
        )
        host = str(ctx.state.get("address") or "")
        if host:
            return Address(host, plan.ENGINE_PORT, ssh=login)
        return Address(plan.LOOPBACK, forwards[plan.ENGINE].port, ssh=login)

    def start(self, ctx: DriverContext) -> None:
        power.start(ctx, VBoxManage(ctx))

    def stop(self, ctx: DriverContext) -> None:
        power.stop(ctx, VBoxManage(ctx))

    def restart(self, ctx: DriverContext) -> None:
        self.stop(ctx)
        self.start(ctx)

    def kill(self, ctx: DriverContext) -> None:
        power.kill(ctx, VBoxManage(ctx))

    def suspend(self, ctx: DriverContext) -> None:
        power.suspend(ctx, VBoxManage(ctx))

    def resume(self, ctx: DriverContext) -> None:
        power.start(ctx, VBoxManage(ctx))

    def snapshot(self, ctx: DriverContext, label: str) -> None:
        power.take(ctx, VBoxManage(ctx), label)

    def snapshots(self, ctx: DriverContext) -> list[str]:
        return [one.label for one in VBoxManage(ctx).info().snapshots]

    def restore(self, ctx: DriverContext, label: str) -> None:
        power.restore(ctx, VBoxManage(ctx), label)

    def drop_snapshot(self, ctx: DriverContext, label: str) -> None:
        power.drop(ctx, VBoxManage(ctx), label)

    def resize(self, ctx: DriverContext, size: Size) -> None:
        power.resize(ctx, VBoxManage(ctx), size)

    def console(self, ctx: DriverContext) -> str:
        """The first serial port's file; VirtualBox begins it anew at each start."""
        try:
            with (ctx.folder / making.CONSOLE).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _CONSOLE_LIMIT))
                return file.read(_CONSOLE_LIMIT).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        except OSError as err:
            raise DriverError(f"the console can't be read: {err.strerror}") from err

    def owned(self, ctx: DriverContext) -> list[tuple[str, str]]:
        return making.owned(VBoxManage(ctx))


def _engine_problems(box: VBoxManage) -> list[str]:
    """What of this computer keeps VirtualBox from running anything."""
    if texts.NO_MODULE in box.raw("--version"):
        return [
            (
                "VirtualBox's kernel module is not loaded (/dev/vboxdrv): install virtualbox-dkms and "
                "the kernel's headers, or run /sbin/vboxconfig"
            )
        ]
    if not texts.hardware_virtualisation(box.again("list", "hostinfo")):
        return [
            (
                "This computer has no VT-x or AMD-V, or it is turned off in the firmware's settings "
                "(--virtualbox-no-vtx-check tries all the same)"
            )
        ]
    return []


def _userdata_problems(given: str) -> list[str]:
    if not given:
        return []
    path = Path(given).expanduser()
    try:
        size = path.stat().st_size
    except OSError as err:
        return [f"--virtualbox-userdata {path}: {err.strerror}"]
    if not path.is_file():
        return [f"--virtualbox-userdata {path} is no file"]
    if size > making.USERDATA_LIMIT:
        return [f"--virtualbox-userdata {path}: {size} bytes are more than a seed may have"]
    return []


DRIVER: Final = VirtualBoxDriver()
