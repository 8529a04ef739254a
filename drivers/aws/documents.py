"""Amazon's answers as values (pure): read at the door, once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

TAG: Final = "machine-uuid"  # on everything that the driver makes
LABEL_TAG: Final = "machine-snapshot"

Document = Mapping[str, object]


def text(document: Document, *path: str) -> str:
    """The text at `path`; "" when there is none."""
    here: object = document
    for key in path:
        here = here.get(key) if isinstance(here, Mapping) else None
    return "" if here is None else str(here)


def rows(document: Document, key: str) -> list[Document]:
    """The list of objects at `key`; [] when there is none."""
    found = document.get(key)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def texts(document: Document, key: str) -> list[str]:
    """The list of texts at `key`."""
    found = document.get(key)
    return [str(one) for one in found] if isinstance(found, list) else []


def tags(document: Document) -> dict[str, str]:
    """The resource's tags."""
    return {text(one, "Key"): text(one, "Value") for one in rows(document, "Tags")}


@dataclasses.dataclass(frozen=True, slots=True)
class Instance:
    """What the driver needs to know of an instance."""

    id: str
    state: str
    public: str
    private: str
    ipv6: str
    zone: str
    subnet: str
    type: str
    root_device: str
    volumes: Mapping[str, str]  # device name -> volume id
    spot_request: str
    reason: str
    uuid: str

    @property
    def root_volume(self) -> str:
        return self.volumes.get(self.root_device, "")

    @property
    def dead(self) -> bool:
        """Terminated for good; Amazon goes on listing it for an hour."""
        return self.state == "terminated"


def instance(document: Document) -> Instance:
    """One entry of DescribeInstances."""
    cards = rows(document, "NetworkInterfaces")
    six = [text(one, "Ipv6Address") for card in cards for one in rows(card, "Ipv6Addresses")]
    return Instance(
        id=text(document, "InstanceId"),
        state=text(document, "State", "Name"),
        public=text(document, "PublicIpAddress"),
        private=text(document, "PrivateIpAddress"),
        ipv6=text(document, "Ipv6Address") or next(iter(six), ""),
        zone=text(document, "Placement", "AvailabilityZone"),
        subnet=text(document, "SubnetId"),
        type=text(document, "InstanceType"),
        root_device=text(document, "RootDeviceName"),
        volumes={
            text(one, "DeviceName"): text(one, "Ebs", "VolumeId")
            for one in rows(document, "BlockDeviceMappings")
        },
        spot_request=text(document, "SpotInstanceRequestId"),
        reason=text(document, "StateReason", "Message"),
        uuid=tags(document).get(TAG, ""),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Subnet:
    """A subnet."""

    id: str
    vpc: str
    zone: str
    default: bool
    public: bool
    ipv6: bool


def subnet(document: Document) -> Subnet:
    """One entry of DescribeSubnets."""
    return Subnet(
        id=text(document, "SubnetId"),
        vpc=text(document, "VpcId"),
        zone=text(document, "AvailabilityZone"),
        default=document.get("DefaultForAz") is True,
        public=document.get("MapPublicIpOnLaunch") is True,
        ipv6=bool(rows(document, "Ipv6CidrBlockAssociationSet")),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """An image."""

    id: str
    name: str
    architecture: str
    root_device: str
    root_size: int  # GiB; 0 unknown
    created: str  # ISO 8601, so that they sort


def image(document: Document) -> Image:
    """One entry of DescribeImages."""
    root = text(document, "RootDeviceName") or "/dev/sda1"
    sizes = [
        int(text(one, "Ebs", "VolumeSize") or 0)
        for one in rows(document, "BlockDeviceMappings")
        if text(one, "DeviceName") == root
    ]
    return Image(
        id=text(document, "ImageId"),
        name=text(document, "Name"),
        architecture=text(document, "Architecture"),
        root_device=root,
        root_size=next(iter(sizes), 0),
        created=text(document, "CreationDate"),
    )
