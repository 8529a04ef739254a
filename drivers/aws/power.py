"""On, off, again; another type or a larger disk."""

from __future__ import annotations

import contextlib
from typing import Final

from drivers.api import DriverContext, HostState, Size
from drivers.aws import finding
from drivers.aws.documents import Instance, rows, text
from drivers.aws.provider import Cloud
from drivers.errors import DriverError, GoneError, InvalidError
from drivers.polling import NotYet, wait_until

_POWER_SECONDS: Final = 600.0
_REBOOT_SECONDS: Final = 300.0
_MODIFY_SECONDS: Final = 600.0
_GROW_SECONDS: Final = 60.0
STATES: Final = {
    "pending": HostState.STARTING,
    "running": HostState.RUNNING,
    "stopping": HostState.STOPPING,
    "stopped": HostState.STOPPED,
    "shutting-down": HostState.STOPPING,
    "terminated": HostState.NOT_FOUND,
}
_BOOT_ID: Final = (
    "cat /proc/sys/kernel/random/boot_id; stat -c %Y /proc/1; cut -d' ' -f22 /proc/1/stat"
)
# cloud-init grows the root file system at each boot anyway; this is for those that stay on
_GROW: Final = (
    'if [ "$(id -u)" = 0 ]; then s=; else s="sudo -n"; fi; for m in growpart resizefs; do '
    "$s cloud-init single --name $m --frequency always; done"
)


def must(cloud: Cloud, ctx: DriverContext) -> Instance:
    """The machine's instance. Raises GoneError when there is none."""
    found = finding.own_instance(cloud, ctx)
    if found is None:
        raise GoneError("Amazon has no instance of this machine (any more)")
    return found


def reach(cloud: Cloud, ctx: DriverContext, ident: str, wanted: str) -> Instance:
    """Return when the instance's state is `wanted`."""

    def attempt() -> Instance | NotYet:
        found = finding.by_id(cloud, ident)
        if found is None or found.dead:
            raise GoneError(f"instance {ident} has gone")
        return found if found.state == wanted else NotYet(f"{ident} is {found.state}")

    return wait_until(
        attempt, what=f"{ident} being {wanted}", seconds=_POWER_SECONDS, clock=ctx.clock
    )


def start(cloud: Cloud, ctx: DriverContext) -> None:
    """Turn on; what is just stopping is waited for."""
    found = must(cloud, ctx)
    if found.state == "stopping":
        reach(cloud, ctx, found.id, "stopped")
    if found.state in {"stopping", "stopped"}:
        cloud.ask("StartInstances", InstanceIds=[found.id])
    reach(cloud, ctx, found.id, "running")


def stop(cloud: Cloud, ctx: DriverContext, *, force: bool) -> None:
    """Turn off; `force` does not wait for the system's own shutdown."""
    found = must(cloud, ctx)
    if found.state == "pending":
        found = reach(cloud, ctx, found.id, "running")
    if found.state == "running" or (found.state == "stopping" and force):
        cloud.ask("StopInstances", InstanceIds=[found.id], Force=force)
    reach(cloud, ctx, found.id, "stopped")


def restart(cloud: Cloud, ctx: DriverContext) -> None:
    """Reboot in order; Amazon says "running" all the time, so the host itself is asked."""
    found = must(cloud, ctx)
    before = _boot(ctx)
    cloud.ask("RebootInstances", InstanceIds=[found.id])

    def rebooted() -> bool | NotYet:
        now = _boot(ctx)
        return now != before or not now or NotYet("the old boot still answers")

    wait_until(rebooted, what="the reboot", seconds=_REBOOT_SECONDS, clock=ctx.clock)


def resize(cloud: Cloud, ctx: DriverContext, size: Size) -> None:
    """Another instance type (stopped for it), and a larger root volume."""
    if size.cpus or size.memory:
        raise InvalidError(
            "Amazon has fixed sizes: say which one", hint="machine resize NAME --size t3.small"
        )
    found = must(cloud, ctx)
    was_on = found.state == "running"
    if size.plan and size.plan != found.type:
        able = finding.architectures(cloud, size.plan)
        mine = finding.architectures(cloud, found.type)
        if not set(able) & set(mine):
            raise InvalidError(f"{size.plan} is {' and '.join(able)}: the machine's disk is not")
        stop(cloud, ctx, force=False)
        try:
            cloud.ask(
                "ModifyInstanceAttribute",
                InstanceId=found.id,
                InstanceType={"Value": size.plan},
            )
        finally:
            if was_on:
                start(cloud, ctx)
    if size.disk:
        _grow(cloud, ctx, found, size.disk)
        if was_on:
            with contextlib.suppress(DriverError):  # else at the next boot
                ctx.host.run(_GROW, timeout=_GROW_SECONDS)


def _grow(cloud: Cloud, ctx: DriverContext, found: Instance, wanted: int) -> None:
    volume = found.root_volume
    known = cloud.listed("DescribeVolumes", "Volumes", VolumeIds=[volume])
    now = int(text(known[0], "Size")) if known else 0
    if wanted < now:
        raise InvalidError(f"the disk has {now} GB: it can't be made smaller")
    if wanted == now:
        return
    cloud.ask("ModifyVolume", VolumeId=volume, Size=wanted)

    def grown() -> bool | NotYet:
        answer = cloud.ask("DescribeVolumesModifications", VolumeIds=[volume])
        states = {text(one, "ModificationState") for one in rows(answer, "VolumesModifications")}
        if "failed" in states:
            raise InvalidError(f"Amazon could not grow {volume} to {wanted} GB")
        return bool(states & {"optimizing", "completed"}) or NotYet(f"{volume}: {states}")

    wait_until(grown, what="the larger disk", seconds=_MODIFY_SECONDS, clock=ctx.clock)


def _boot(ctx: DriverContext) -> str:
    """What changes with each boot; "" when the host does not answer."""
    try:
        done = ctx.host.run(_BOOT_ID, timeout=15.0)
    except DriverError:
        return ""
    return done.stdout if done.status == 0 else ""
