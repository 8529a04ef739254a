"""Everything of a machine at Amazon, by its tag; and its removal until nothing is left (C39)."""

from __future__ import annotations

import dataclasses
from typing import Final

from drivers.api import DriverContext
from drivers.aws import finding, plan
from drivers.aws.documents import TAG, tags, text
from drivers.aws.provider import Cloud
from drivers.errors import ConflictError, DriverError, GoneError, WaitTimeoutError
from drivers.polling import Backoff, NotYet, wait_until

_REMOVE_SECONDS: Final = 400.0
_SETTLE_SECONDS: Final = 15.0  # of an empty list, where a create may have been cut off just before
_ENDED: Final = frozenset({"cancelled", "closed", "failed", "deleted", "deleting"})


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """A kind of resource: how it is listed, named and unmade."""

    word: str
    describe: str
    key: str  # of the list in the answer
    ident: str
    delete: str
    field: str  # of the delete call
    many: bool = False  # the field takes a list
    state: str = "State"
    mine: bool = False  # asked for with OwnerIds: there are public ones


# In the order in which they must go.
KINDS: Final = (
    Kind("spot request", "DescribeSpotInstanceRequests", "SpotInstanceRequests",
         "SpotInstanceRequestId", "CancelSpotInstanceRequests", "SpotInstanceRequestIds",
         many=True),
    Kind("volume", "DescribeVolumes", "Volumes", "VolumeId", "DeleteVolume", "VolumeId"),
    Kind("snapshot", "DescribeSnapshots", "Snapshots", "SnapshotId", "DeleteSnapshot",
         "SnapshotId", mine=True),
    Kind("network interface", "DescribeNetworkInterfaces", "NetworkInterfaces",
         "NetworkInterfaceId", "DeleteNetworkInterface", "NetworkInterfaceId", state="Status"),
    Kind("security group", "DescribeSecurityGroups", "SecurityGroups", "GroupId",
         "DeleteSecurityGroup", "GroupId"),
    Kind("key pair", "DescribeKeyPairs", "KeyPairs", "KeyName", "DeleteKeyPair", "KeyName"),
)  # fmt: skip
_INSTANCE: Final = "instance"


@dataclasses.dataclass(frozen=True, slots=True)
class Thing:
    """One resource. `kind` None: the instance."""

    kind: Kind | None
    id: str
    uuid: str
    state: str = ""

    @property
    def words(self) -> str:
        return f"{self.kind.word if self.kind else _INSTANCE} {self.id}"


def inventory(cloud: Cloud, ctx: DriverContext) -> list[Thing]:
    """All that the machine has: the instance first, then what it used."""
    found = {one.id: one for one in finding.own_instances(cloud, ctx)}
    stored = str(ctx.state.get("instance") or "")
    if stored and stored not in found:
        known = finding.by_id(cloud, stored)
        if known is not None and known.uuid in {ctx.uuid, ""}:
            found[stored] = known
    out = [Thing(None, one.id, ctx.uuid, one.state) for one in found.values() if not one.dead]
    for kind in KINDS:
        if kind.word != "spot request" or ctx.flag("request-spot-instance"):
            # a server that ignores filters must not cost other machines their things
            out += [one for one in _of(cloud, kind, plan.ours(ctx)) if one.uuid == ctx.uuid]
    return out


def everything(cloud: Cloud) -> list[Thing]:
    """All that any machine of ours has in this region."""
    filters: list[dict[str, object]] = [{"Name": "tag-key", "Values": [TAG]}]
    out = [
        Thing(None, one.id, one.uuid, one.state)
        for one in finding.instances(cloud, Filters=filters)
        if not one.dead
    ]
    for kind in KINDS:
        out += _of(cloud, kind, filters)
    return out


def remove(cloud: Cloud, ctx: DriverContext) -> None:
    """Unmake all of it; returns when Amazon lists nothing. A DriverError names what remains."""
    settled = 0.0 if ctx.state.get("instance") else _SETTLE_SECONDS
    remains: list[Thing] = []
    empty_since: list[float] = []

    def attempt() -> bool | NotYet:
        remains[:] = inventory(cloud, ctx)
        if not remains:
            empty_since.append(ctx.clock.monotonic())
            waited = ctx.clock.monotonic() - empty_since[0]
            return waited >= settled or NotYet("what was made last may not be listed yet")
        empty_since.clear()
        why = [_unmake(cloud, thing) for thing in _next(remains)]
        return NotYet("; ".join(one for one in why if one) or _list(remains))

    try:
        wait_until(
            attempt,
            what="the removal",
            seconds=_REMOVE_SECONDS,
            clock=ctx.clock,
            backoff=Backoff(first=0.5, factor=1.5, most=5.0),
        )
    except WaitTimeoutError as err:
        raise DriverError(
            f"Amazon has not let go of everything: {err.last}", hint=_left(remains)
        ) from err
    except DriverError as err:
        if not remains and not ctx.state:
            raise
        raise type(err)(
            err.message, hint=" ".join(part for part in (err.hint, _left(remains, ctx)) if part)
        ) from err


def _next(remains: list[Thing]) -> list[Thing]:
    """What can go now: nothing that an instance uses before the instance has gone."""
    instances = [one for one in remains if one.kind is None]
    spot = [one for one in remains if one.kind is KINDS[0]]
    return [*spot, *instances] if instances else remains


def _unmake(cloud: Cloud, thing: Thing) -> str:
    """Ask for its end; why it must be asked again, "" when it was accepted."""
    if thing.state == "shutting-down":
        return ""
    kind = thing.kind
    call = kind.delete if kind else "TerminateInstances"
    field = kind.field if kind else "InstanceIds"
    many = kind.many if kind else True
    try:
        cloud.ask(call, **{field: [thing.id] if many else thing.id})
    except GoneError:
        return ""
    except ConflictError as err:  # DependencyViolation, VolumeInUse: Amazon is still at it
        return err.message
    return ""


def _of(cloud: Cloud, kind: Kind, filters: list[dict[str, object]]) -> list[Thing]:
    owner: dict[str, object] = {"OwnerIds": ["self"]} if kind.mine else {}
    return [
        Thing(kind, text(one, kind.ident), tags(one)[TAG])
        for one in cloud.listed(kind.describe, kind.key, Filters=filters, **owner)
        if TAG in tags(one) and text(one, kind.state) not in _ENDED
    ]


def _list(things: list[Thing]) -> str:
    return ", ".join(one.words for one in things)


def _left(things: list[Thing], ctx: DriverContext | None = None) -> str:
    """What is still there, as far as is known."""
    if things:
        return f"Still there: {_list(things)}."
    if ctx is None:
        return ""
    stored = [
        f"{word} {ctx.state[word]}" for word in ("instance", "group", "key") if ctx.state.get(word)
    ]
    return f"Perhaps still there: {', '.join(stored)}." if stored else ""
