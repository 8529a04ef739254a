"""Snapshots of the root volume. Restoring puts a new volume, made of one, in the old one's place.

Every step is found again by the machine's tag, so a restore that was cut off is run again.
"""

from __future__ import annotations

from typing import Final

from drivers.api import DriverContext
from drivers.aws import plan, power
from drivers.aws.documents import LABEL_TAG, Document, Instance, tags, text
from drivers.aws.finding import own
from drivers.aws.provider import Cloud
from drivers.errors import ConflictError, GoneError, InvalidError
from drivers.polling import NotYet, retried, wait_until

_COPY_SECONDS: Final = 3600.0
_VOLUME_SECONDS: Final = 600.0
_RESTORE_TAG: Final = "machine-restore"


def take(cloud: Cloud, ctx: DriverContext, label: str) -> None:
    """The root volume as it is now."""
    if any(tags(one).get(LABEL_TAG) == label for one in _all(cloud, ctx)):
        raise ConflictError(f"there is a snapshot {label} already")
    found = power.must(cloud, ctx)
    if not found.root_volume:
        raise ConflictError(f"{found.id} has no root volume: was a restore cut off? Run it again")

    def ensure() -> str:
        for one in _all(cloud, ctx):
            if tags(one).get(LABEL_TAG) == label:
                return text(one, "SnapshotId")
        made = cloud.once(
            "CreateSnapshot",
            VolumeId=found.root_volume,
            Description=f"machine {ctx.name}: {label}",
            TagSpecifications=plan.tagged(ctx, "snapshot", more={LABEL_TAG: label}),
        )
        return text(made, "SnapshotId")

    _completed(cloud, ctx, retried(ensure, clock=ctx.clock))


def labels(cloud: Cloud, ctx: DriverContext) -> list[str]:
    """Oldest first."""
    found = sorted(_all(cloud, ctx), key=lambda one: text(one, "StartTime"))
    return [tags(one)[LABEL_TAG] for one in found]


def restore(cloud: Cloud, ctx: DriverContext, label: str) -> None:
    """Swap the root volume for one made from the snapshot."""
    found = power.must(cloud, ctx)
    snapshot = _find(cloud, ctx, label)
    _completed(cloud, ctx, snapshot)
    new = _volume_of(cloud, ctx, found, snapshot)
    if found.root_volume != new:
        _reach(cloud, ctx, new, "available")
    was_on = found.state in {"running", "pending"}
    power.stop(cloud, ctx, force=False)
    if found.root_volume and found.root_volume != new:
        cloud.ask("DetachVolume", VolumeId=found.root_volume, InstanceId=found.id)
        _reach(cloud, ctx, found.root_volume, "available")
    if found.root_volume != new:
        cloud.ask("AttachVolume", VolumeId=new, InstanceId=found.id, Device=found.root_device)
    _reach(cloud, ctx, new, "in-use")
    cloud.ask(
        "ModifyInstanceAttribute",
        InstanceId=found.id,
        BlockDeviceMappings=[
            {
                "DeviceName": found.root_device,
                "Ebs": {"VolumeId": new, "DeleteOnTermination": True},
            }
        ],
    )
    for one in _volumes(cloud, ctx):
        if text(one, "VolumeId") != new and text(one, "State") == "available":
            cloud.ask("DeleteVolume", VolumeId=text(one, "VolumeId"))
    if was_on:
        power.start(cloud, ctx)


def drop(cloud: Cloud, ctx: DriverContext, label: str) -> None:
    """Forget it; what is gone is no error."""
    for one in _all(cloud, ctx):
        if tags(one).get(LABEL_TAG) == label:
            try:
                cloud.ask("DeleteSnapshot", SnapshotId=text(one, "SnapshotId"))
            except GoneError:
                continue


def _all(cloud: Cloud, ctx: DriverContext) -> list[Document]:
    found = own(cloud, ctx, "DescribeSnapshots", "Snapshots", OwnerIds=["self"])
    return [one for one in found if LABEL_TAG in tags(one)]


def _find(cloud: Cloud, ctx: DriverContext, label: str) -> str:
    for one in _all(cloud, ctx):
        if tags(one).get(LABEL_TAG) == label:
            return text(one, "SnapshotId")
    raise GoneError(f"there is no snapshot {label}")


def _completed(cloud: Cloud, ctx: DriverContext, ident: str) -> None:
    def attempt() -> bool | NotYet:
        found = _known(cloud, "DescribeSnapshots", "Snapshots", SnapshotIds=[ident])
        state = text(found[0], "State") if found else "not listed yet"
        if state == "error":
            raise InvalidError(
                f"Amazon could not make the snapshot: {text(found[0], 'StateMessage')}"
            )
        return state == "completed" or NotYet(
            f"{ident} is {state}, {text(found[0], 'Progress') if found else ''}"
        )

    wait_until(attempt, what="the snapshot", seconds=_COPY_SECONDS, clock=ctx.clock)


def _volumes(cloud: Cloud, ctx: DriverContext) -> list[Document]:
    return own(cloud, ctx, "DescribeVolumes", "Volumes")


def _volume_of(cloud: Cloud, ctx: DriverContext, found: Instance, snapshot: str) -> str:
    """The volume that this restore has made, or makes now.

    It is marked with the snapshot and the volume that it replaces. While that one exists, the
    restore was cut off and goes on; that one's end is the last step before the start.
    """
    volumes = {text(one, "VolumeId"): tags(one) for one in _volumes(cloud, ctx)}
    for ident, marks in volumes.items():
        made_of, _, replaced = marks.get(_RESTORE_TAG, "").partition(" ")
        if made_of == snapshot and replaced in volumes:
            return ident
    made = cloud.ask(
        "CreateVolume",
        SnapshotId=snapshot,
        AvailabilityZone=found.zone,
        VolumeType=ctx.text("volume-type"),
        ClientToken=plan.token(ctx, "restore", snapshot, found.root_volume),
        TagSpecifications=plan.tagged(
            ctx, "volume", more={_RESTORE_TAG: f"{snapshot} {found.root_volume}"}
        ),
    )
    return text(made, "VolumeId")


def _reach(cloud: Cloud, ctx: DriverContext, volume: str, wanted: str) -> None:
    def attempt() -> bool | NotYet:
        found = _known(cloud, "DescribeVolumes", "Volumes", VolumeIds=[volume])
        state = text(found[0], "State") if found else "not listed yet"
        return state == wanted or NotYet(f"{volume} is {state}")

    wait_until(attempt, what=f"{volume} being {wanted}", seconds=_VOLUME_SECONDS, clock=ctx.clock)


def _known(cloud: Cloud, operation: str, key: str, **fields: object) -> list[Document]:
    """What is listed by id; [] while Amazon does not know it yet."""
    try:
        return cloud.listed(operation, key, **fields)
    except GoneError:
        return []
