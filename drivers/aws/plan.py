"""What is asked of Amazon, computed from the options (pure)."""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import json
import re
import uuid as uuids
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from drivers.api import DriverContext
from drivers.aws.documents import TAG, Document, rows, text
from drivers.errors import DriverError

ENGINE_PORT: Final = 2376
EVERYBODY: Final = ("0.0.0.0/0", "::/0")
_NAME_TAG: Final = "machine-name"
_PORT: Final = re.compile(r"([0-9]{1,5})(/(tcp|udp))?")
_ANY_V4: Final = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """What was found for the options: kept, so that a resumed create asks for the same again."""

    image: str
    root_device: str
    architecture: str
    instance_type: str
    vpc: str
    subnet: str
    zone: str
    groups: tuple[str, ...]  # ids of groups that were given; () the machine has its own
    asked: str  # digest of the options that led here

    def stored(self) -> dict[str, object]:
        """As JSON has it."""
        return dataclasses.asdict(self) | {"groups": list(self.groups)}


def choice_of(stored: object, asked: str) -> Choice | None:
    """The stored choice, unless other options were asked for since."""
    if not isinstance(stored, dict) or stored.get("asked") != asked:
        return None
    return Choice(**{**stored, "groups": tuple(stored.get("groups", ()))})


_CHOOSING: Final = (
    "region", "zone", "instance-type", "ami", "image", "image-owner", "image-name", "device-name",
    "vpc-id", "subnet-id", "security-group",
)  # fmt: skip


def asked_for(ctx: DriverContext) -> str:
    """A digest of the options that `Choice` depends on."""
    return _digest({name: ctx.options[name] for name in _CHOOSING})


def own_name(ctx: DriverContext) -> str:
    """The name of the machine's key pair and security group: no other machine has it."""
    return f"machine-{ctx.name}-{ctx.uuid[:8]}"


def user_tags(given: str) -> dict[str, str]:
    """docker-machine's "key1,value1,key2,value2". Raises DriverError."""
    words = given.split(",") if given else []
    if len(words) % 2:
        raise DriverError(f"--amazonec2-tags {given}: it takes key1,value1,key2,value2")
    out = dict(zip(words[::2], words[1::2], strict=True))
    for key, value in out.items():
        if not key or len(key) > 128 or len(value) > 256 or key.lower().startswith("aws:"):
            raise DriverError(f"--amazonec2-tags: {key!r} is no key, or its value is too long")
        if key in {TAG, _NAME_TAG}:
            raise DriverError(f"--amazonec2-tags: the tag {key} is the machine's own")
    return out


def tags(ctx: DriverContext, more: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    """The tags of everything that the machine has."""
    whole = {
        "Name": ctx.name,
        **user_tags(ctx.text("tags")),
        TAG: ctx.uuid,
        _NAME_TAG: ctx.name,
        **(more or {}),
    }
    return [{"Key": key, "Value": value} for key, value in whole.items()]


def tagged(
    ctx: DriverContext, *kinds: str, more: Mapping[str, str] | None = None
) -> list[dict[str, object]]:
    """TagSpecifications."""
    return [{"ResourceType": kind, "Tags": tags(ctx, more)} for kind in kinds]


def ours(ctx: DriverContext) -> list[dict[str, object]]:
    """Filters that only the machine's own things pass."""
    return [{"Name": f"tag:{TAG}", "Values": [ctx.uuid]}]


def token(ctx: DriverContext, *what: str) -> str:
    """A client token: the same for the same machine and words."""
    return str(uuids.uuid5(uuids.UUID(ctx.uuid), " ".join(what)))


# -- firewall


def networks(given: Iterable[str]) -> tuple[str, ...]:
    """CIDRs in their canonical form; an address alone is a network of one. Raises DriverError."""
    out = []
    for one in given:
        try:
            out.append(str(ipaddress.ip_network(one.strip())))
        except ValueError as err:
            raise DriverError(
                f"--amazonec2-open-to {one}: {err}", hint="As 203.0.113.0/24 or 203.0.113.7/32."
            ) from None
    return tuple(out)


def own_ports(ctx: DriverContext) -> tuple[tuple[str, int], ...]:
    """(protocol, port) that the machine itself is reached by: SSH and the engine."""
    return ("tcp", ctx.number("ssh-port")), ("tcp", ENGINE_PORT)


def public_ports(ctx: DriverContext) -> tuple[tuple[str, int], ...]:
    """(protocol, port) of --amazonec2-open-port, for everybody. Raises DriverError."""
    out: dict[tuple[str, int], None] = {}
    for one in ctx.listed("open-port"):
        found = _PORT.fullmatch(one.strip())
        if found is None or not 0 < int(found[1]) < 65536:
            raise DriverError(f"--amazonec2-open-port {one}: it takes 80, 443/tcp or 53/udp")
        pair = (found[3] or "tcp", int(found[1]))
        if pair in own_ports(ctx):
            raise DriverError(
                f"--amazonec2-open-port {one} would open the machine itself to everybody",
                hint="If that is meant: --amazonec2-open-to 0.0.0.0/0",
            )
        out[pair] = None
    return tuple(out)


def rules(ctx: DriverContext, sources: Sequence[str]) -> list[dict[str, object]]:
    """IpPermissions of the machine's own group; `sources` may reach SSH and the engine."""
    return permissions(own_ports(ctx), sources) + permissions(public_ports(ctx), EVERYBODY)


def permissions(
    opened: Iterable[tuple[str, int]], sources: Sequence[str]
) -> list[dict[str, object]]:
    """IpPermissions: each port to each of these networks."""
    four = [one for one in sources if ipaddress.ip_network(one).version == _ANY_V4]
    six = [one for one in sources if one not in four]
    out: list[dict[str, object]] = []
    for protocol, port in opened:
        rule: dict[str, object] = {"IpProtocol": protocol, "FromPort": port, "ToPort": port}
        if four:
            rule["IpRanges"] = [{"CidrIp": one, "Description": "machine"} for one in four]
        if six:
            rule["Ipv6Ranges"] = [{"CidrIpv6": one, "Description": "machine"} for one in six]
        out.append(rule)
    return out


def lacking(group: Document, wanted: list[dict[str, object]]) -> list[dict[str, object]]:
    """The wanted rules that the group does not have yet, source by source."""
    have = {one for rule in rows(group, "IpPermissions") for one in _sources(rule)}
    out: list[dict[str, object]] = []
    for rule in wanted:
        for ranges, key in (("IpRanges", "CidrIp"), ("Ipv6Ranges", "CidrIpv6")):
            left = [one for one in rows(rule, ranges) if _source(rule, one, key) not in have]
            if left:
                bare = {k: rule[k] for k in ("IpProtocol", "FromPort", "ToPort")}
                out.append({**bare, ranges: left})
    return out


def surplus(group: Document, wanted: list[dict[str, object]]) -> list[dict[str, object]]:
    """The rules of the group that are not wanted, as a request to take them away."""
    bare = [
        {**rule, "IpRanges": _bare(rule, "IpRanges"), "Ipv6Ranges": _bare(rule, "Ipv6Ranges")}
        for rule in rows(group, "IpPermissions")
    ]
    return lacking({"IpPermissions": wanted}, bare)


def _bare(rule: Document, ranges: str) -> list[dict[str, object]]:
    return [{k: v for k, v in one.items() if k != "Description"} for one in rows(rule, ranges)]


def lets_in(groups: Iterable[Document], port: int) -> bool:
    """Whether a rule of one of the groups opens that TCP port to anybody."""
    for group in groups:
        for rule in rows(group, "IpPermissions"):
            if text(rule, "IpProtocol") == "-1":
                return True
            low, high = text(rule, "FromPort"), text(rule, "ToPort")
            if text(rule, "IpProtocol") == "tcp" and low and int(low) <= port <= int(high or low):
                return True
    return False


def _sources(rule: Document) -> Iterable[tuple[str, str, str, str]]:
    for ranges, key in (("IpRanges", "CidrIp"), ("Ipv6Ranges", "CidrIpv6")):
        for one in rows(rule, ranges):
            yield _source(rule, one, key)


def _source(rule: Document, one: Document, key: str) -> tuple[str, str, str, str]:
    return text(rule, "IpProtocol"), text(rule, "FromPort"), text(rule, "ToPort"), text(one, key)


# -- launch


def launch(
    ctx: DriverContext, choice: Choice, groups: Sequence[str], key_name: str, user_data: bytes
) -> dict[str, object]:
    """The fields of RunInstances, without the client token."""
    kinds = ["instance", "volume", "network-interface"]
    fields: dict[str, object] = {
        "ImageId": choice.image,
        "InstanceType": choice.instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        "KeyName": key_name,
        "UserData": user_data,
        "NetworkInterfaces": [_card(ctx, choice, groups)],
        "BlockDeviceMappings": [
            {"DeviceName": choice.root_device, "Ebs": _disk(ctx)},
        ],
        "Monitoring": {"Enabled": ctx.flag("monitoring")},
        "MetadataOptions": {
            "HttpEndpoint": ctx.text("http-endpoint"),
            "HttpTokens": ctx.text("http-tokens"),
            "HttpPutResponseHopLimit": 1,  # containers behind a bridge never get an answer (C36)
            "HttpProtocolIpv6": ctx.text("http-protocol-ipv6"),
        },
    }
    if ctx.flag("use-ebs-optimized-instance"):
        fields["EbsOptimized"] = True
    profile = ctx.text("iam-instance-profile")
    if profile:
        fields["IamInstanceProfile"] = {"Arn" if profile.startswith("arn:") else "Name": profile}
    if ctx.flag("request-spot-instance"):
        fields["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": _spot(ctx)}
        kinds.append("spot-instances-request")
    fields["TagSpecifications"] = tagged(ctx, *kinds)
    return fields


def launch_token(ctx: DriverContext, fields: Mapping[str, object], dead: Iterable[str]) -> str:
    """The client token of this launch. A terminated instance's is never used again."""
    return token(ctx, "instance", _digest(fields), *sorted(dead))


def _card(ctx: DriverContext, choice: Choice, groups: Sequence[str]) -> dict[str, object]:
    card: dict[str, object] = {
        "DeviceIndex": 0,
        "SubnetId": choice.subnet,
        "Groups": list(groups),
        "DeleteOnTermination": True,
        "AssociatePublicIpAddress": not (
            ctx.flag("private-address-only") or ctx.flag("ipv6-address-only")
        ),
    }
    if ctx.number("ipv6-address-count"):
        card["Ipv6AddressCount"] = ctx.number("ipv6-address-count")
    if ctx.flag("enable-primary-ipv6"):
        card["PrimaryIpv6"] = True
    return card


def _disk(ctx: DriverContext) -> dict[str, object]:
    disk: dict[str, object] = {
        "VolumeSize": ctx.number("root-size"),
        "VolumeType": ctx.text("volume-type"),
        "DeleteOnTermination": True,
    }
    if ctx.flag("encrypt-ebs-volume") or ctx.text("kms-key"):
        disk["Encrypted"] = True
    if ctx.text("kms-key"):
        disk["KmsKeyId"] = ctx.text("kms-key")
    return disk


def _spot(ctx: DriverContext) -> dict[str, object]:
    behaviour = ctx.text("spot-interruption")
    options: dict[str, object] = {
        # Amazon stops or hibernates only what a persistent request has made
        "SpotInstanceType": "one-time" if behaviour == "terminate" else "persistent",
        "InstanceInterruptionBehavior": behaviour,
    }
    if ctx.text("spot-price"):
        options["MaxPrice"] = ctx.text("spot-price")
    return options


def _digest(value: object) -> str:
    packed = json.dumps(
        value, sort_keys=True, default=lambda data: hashlib.sha256(data).hexdigest()
    )
    return hashlib.sha256(packed.encode()).hexdigest()[:32]
