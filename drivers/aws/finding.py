"""What the account and the region have: image, type, subnet, groups; the machine's own instance."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from drivers.api import DriverContext
from drivers.aws import documents, images, plan
from drivers.aws.documents import TAG, Document, Image, Instance, Subnet, rows, text, texts
from drivers.aws.plan import Choice
from drivers.aws.provider import Cloud
from drivers.errors import DriverError, GoneError, InvalidError, WaitTimeoutError
from drivers.polling import NotYet, wait_until

T = TypeVar("T")
LATE_SECONDS: Final = (
    60.0  # until what was made is known everywhere: Amazon is consistent in the end
)
_DEFAULT_TYPES: Final = {"x86_64": "t3.micro", "arm64": "t4g.micro"}
_SSM_PREFIX: Final = "resolve:ssm:"


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where the instance goes."""

    vpc: str
    subnet: str
    zone: str


def patiently(ctx: DriverContext, call: Callable[[], T], seconds: float = LATE_SECONDS) -> T:
    """`call`, again while it says that something does not exist: it was made a moment ago."""

    def attempt() -> T | NotYet:
        try:
            return call()
        except GoneError as err:
            return NotYet(err.message)

    try:
        return wait_until(attempt, what="that", seconds=seconds, clock=ctx.clock)
    except WaitTimeoutError as err:
        raise GoneError(err.last) from err


# -- the machine's own


def instances(cloud: Cloud, **fields: object) -> list[Instance]:
    """What DescribeInstances lists, terminated ones too."""
    found = cloud.listed("DescribeInstances", "Reservations", **fields)
    return [documents.instance(one) for group in found for one in rows(group, "Instances")]


def own_instances(cloud: Cloud, ctx: DriverContext) -> list[Instance]:
    """All instances with the machine's tag, terminated ones too."""
    return [one for one in instances(cloud, Filters=plan.ours(ctx)) if one.uuid == ctx.uuid]


def own(
    cloud: Cloud, ctx: DriverContext, operation: str, key: str, **fields: object
) -> list[Document]:
    """What a Describe call lists of the machine, by its tag; a server may ignore filters."""
    found = cloud.listed(operation, key, Filters=plan.ours(ctx), **fields)
    return [one for one in found if documents.tags(one).get(TAG) == ctx.uuid]


def by_id(cloud: Cloud, ident: str) -> Instance | None:
    """The instance; None when Amazon does not know it (any more, or yet)."""
    try:
        return next(iter(instances(cloud, InstanceIds=[ident])), None)
    except GoneError:
        return None


def own_instance(cloud: Cloud, ctx: DriverContext) -> Instance | None:
    """The machine's instance, by the stored id, else by tag; a terminated one is none."""
    stored = ctx.state.get("instance")
    found = by_id(cloud, str(stored)) if stored else None
    if found is not None and not found.dead:
        return found
    return next((one for one in own_instances(cloud, ctx) if not one.dead), None)


# -- the choice


def choose(cloud: Cloud, ctx: DriverContext) -> Choice:
    """Everything that the options leave open. Raises DriverError for what can't be had."""
    found, kind = image_and_type(cloud, ctx)
    place = place_of(cloud, ctx, kind)
    return Choice(
        image=found.id,
        root_device=ctx.text("device-name") or found.root_device,
        architecture=found.architecture,
        instance_type=kind,
        vpc=place.vpc,
        subnet=place.subnet,
        zone=place.zone,
        groups=tuple(
            text(one, "GroupId") for one in groups(cloud, ctx.listed("security-group"), place.vpc)
        ),
        asked=plan.asked_for(ctx),
    )


def image_and_type(cloud: Cloud, ctx: DriverContext) -> tuple[Image, str]:
    """The image and an instance type of the same architecture. Raises DriverError."""
    given_image, kind = ctx.text("ami"), ctx.text("instance-type")
    able = architectures(cloud, kind) if kind else list(_DEFAULT_TYPES)
    if given_image or ctx.text("image-name"):
        found = _given_image(cloud, ctx)
    else:
        wanted = next((one for one in _DEFAULT_TYPES if one in able), "x86_64")
        found = newest_image(cloud, ctx, wanted)
    if found.architecture not in able:
        raise InvalidError(
            f"image {found.id} is for {found.architecture}, and {kind} is {' and '.join(able)}",
            hint="Give an image and an --amazonec2-instance-type that fit.",
        )
    return found, kind or _DEFAULT_TYPES[found.architecture]


def architectures(cloud: Cloud, kind: str) -> list[str]:
    """What an instance type runs. Raises InvalidError when there is no such type here."""
    found = cloud.ask("DescribeInstanceTypes", InstanceTypes=[kind])
    known = rows(found, "InstanceTypes")
    if not known:
        raise InvalidError(f"there is no instance type {kind} in {cloud.region}")
    about = known[0].get("ProcessorInfo")
    return texts(about, "SupportedArchitectures") if isinstance(about, dict) else []


def _given_image(cloud: Cloud, ctx: DriverContext) -> Image:
    ident = ctx.text("ami")
    if ident.startswith(_SSM_PREFIX):
        name = ident.removeprefix(_SSM_PREFIX)
        ident = images.first_parameter([name], _parameters(cloud, [name]))
        if not ident:
            raise InvalidError(f"the parameter {name} names no image in {cloud.region}")
    if ident:
        return _by_image_id(cloud, ident)
    pattern = ctx.text("image-name")
    found = _by_name(cloud, ctx.text("image-owner") or "self", [pattern])
    best = images.newest([pattern], found)
    if best is None:
        raise InvalidError(
            f"{ctx.text('image-owner') or 'this account'} has no image named {pattern} "
            f"in {cloud.region}"
        )
    return best


def newest_image(cloud: Cloud, ctx: DriverContext, architecture: str) -> Image:
    """The newest of the kind that --amazonec2-image says. Raises DriverError."""
    year = dt.datetime.fromtimestamp(ctx.clock.now(), dt.UTC).year
    wanted = images.search(ctx.text("image"), architecture, cloud.region, year)
    try:
        ident = images.first_parameter(
            wanted.parameters, _parameters(cloud, list(wanted.parameters))
        )
        if ident:
            return _by_image_id(cloud, ident)
    except DriverError:  # no permission, or a server that knows EC2 only: the images tell as well
        if not wanted.owner:
            raise
    best = (
        images.newest(wanted.names, _by_name(cloud, wanted.owner, list(wanted.names)))
        if wanted.owner
        else None
    )
    if best is None:
        raise InvalidError(
            f"no {ctx.text('image')} image for {architecture} was found in {cloud.region}",
            hint="Give one with --amazonec2-ami.",
        )
    return best


def _parameters(cloud: Cloud, names: list[str]) -> dict[str, str]:
    """The values of those SSM parameters that exist."""
    found = cloud.parameters(names)
    return {text(one, "Name"): text(one, "Value") for one in rows(found, "Parameters")}


def _by_image_id(cloud: Cloud, ident: str) -> Image:
    found = rows(cloud.ask("DescribeImages", ImageIds=[ident]), "Images")
    if not found:
        raise InvalidError(f"there is no image {ident} in {cloud.region}")
    return documents.image(found[0])


def _by_name(cloud: Cloud, owner: str, patterns: list[str]) -> list[Image]:
    filters = [
        {"Name": "name", "Values": patterns},
        {"Name": "state", "Values": ["available"]},
        {"Name": "root-device-type", "Values": ["ebs"]},
    ]
    found = cloud.listed("DescribeImages", "Images", Owners=[owner], Filters=filters)
    return [documents.image(one) for one in found]


# -- the network


def place_of(cloud: Cloud, ctx: DriverContext, kind: str) -> Place:
    """The subnet: the given one, else the VPC's best in a zone that has the instance type."""
    vpc, subnet = ctx.text("vpc-id"), ctx.text("subnet-id")
    zone = zone_name(ctx.text("zone"), cloud.region)
    if subnet:
        found = _subnets(cloud, SubnetIds=[subnet])
        if not found:
            raise InvalidError(f"there is no subnet {subnet} in {cloud.region}")
        one = found[0]
        if (vpc and one.vpc != vpc) or (zone and one.zone != zone):
            raise InvalidError(f"subnet {subnet} is in {one.vpc}, {one.zone}: not what was asked")
        return Place(one.vpc, one.id, one.zone)
    vpc = vpc or default_vpc(cloud)
    offered = [zone] if zone else zones_with(cloud, kind)
    filters = [{"Name": "vpc-id", "Values": [vpc]}]
    best = best_subnet(_subnets(cloud, Filters=filters), offered, ipv6=_wants_ipv6(ctx))
    if best is None:
        raise InvalidError(
            f"{vpc} has no subnet for {kind} in {zone or cloud.region}",
            hint="Give one with --amazonec2-subnet-id, or another --amazonec2-zone.",
        )
    return Place(best.vpc, best.id, best.zone)


def best_subnet(found: Sequence[Subnet], zones: Sequence[str], *, ipv6: bool) -> Subnet | None:
    """The first by zone among those that fit best: default ones, then public ones."""
    fitting = [one for one in found if (not zones or one.zone in zones) and (one.ipv6 or not ipv6)]
    return min(
        fitting, key=lambda one: (not one.default, not one.public, one.zone, one.id), default=None
    )


def zone_name(given: str, region: str) -> str:
    """docker-machine's one letter, or the whole name."""
    return f"{region}{given}" if len(given) == 1 else given


def _wants_ipv6(ctx: DriverContext) -> bool:
    return ctx.number("ipv6-address-count") > 0 or ctx.flag("ipv6-address-only")


def _subnets(cloud: Cloud, **fields: object) -> list[Subnet]:
    return [documents.subnet(one) for one in cloud.listed("DescribeSubnets", "Subnets", **fields)]


def default_vpc(cloud: Cloud) -> str:
    """The region's default VPC. Raises InvalidError when it was deleted."""
    filters = [{"Name": "is-default", "Values": ["true"]}]
    found = cloud.listed("DescribeVpcs", "Vpcs", Filters=filters)
    if not found:
        raise InvalidError(
            f"{cloud.region} has no default VPC",
            hint="Give --amazonec2-vpc-id or --amazonec2-subnet-id, or another region.",
        )
    return text(found[0], "VpcId")


def vpc_networks(cloud: Cloud, vpc: str) -> list[str]:
    """The VPC's own CIDRs."""
    found = cloud.listed("DescribeVpcs", "Vpcs", VpcIds=[vpc])
    both = [
        *((r, "CidrBlock") for one in found for r in rows(one, "CidrBlockAssociationSet")),
        *((r, "Ipv6CidrBlock") for one in found for r in rows(one, "Ipv6CidrBlockAssociationSet")),
    ]
    return [text(row, key) for row, key in both if text(row, key)]


def zones_with(cloud: Cloud, kind: str) -> list[str]:
    """The zones that have the instance type."""
    found = cloud.listed(
        "DescribeInstanceTypeOfferings",
        "InstanceTypeOfferings",
        LocationType="availability-zone",
        Filters=[{"Name": "instance-type", "Values": [kind]}],
    )
    return sorted(text(one, "Location") for one in found)


def groups(cloud: Cloud, given: Sequence[str], vpc: str) -> list[Document]:
    """Given security groups by id or name. Raises InvalidError naming those that are not there."""
    if not given:
        return []
    found = cloud.listed(
        "DescribeSecurityGroups",
        "SecurityGroups",
        Filters=[{"Name": "vpc-id", "Values": [vpc]}],
    )
    known = {text(one, key): one for one in found for key in ("GroupName", "GroupId")}
    lost = [name for name in given if name not in known]
    if lost:
        raise InvalidError(
            f"{vpc} has no security group {', '.join(lost)}",
            hint="Leave --amazonec2-security-group out, and the machine gets one of its own.",
        )
    return [known[name] for name in given]
