"""The provider's things as we use them, decoded at the door from the API's documents. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

Document = Mapping[str, object]


@dataclasses.dataclass(frozen=True, slots=True)
class Droplet:
    ident: int
    name: str
    status: str  # new, active, off, archive
    locked: bool
    tags: tuple[str, ...]
    address: str  # public IPv4, "" while there is none
    size: str
    disk: int  # GiB


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What the account may have."""

    droplets: int
    status: str
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class Region:
    slug: str
    available: bool
    features: tuple[str, ...]
    sizes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """A size of droplets; memory in MiB, disk in GiB."""

    slug: str
    available: bool
    regions: tuple[str, ...]
    cpus: int
    memory: int
    disk: int
    monthly: float  # US dollars


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    ident: int
    slug: str
    public: bool
    status: str
    regions: tuple[str, ...]
    smallest_disk: int  # GiB


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    ident: int
    name: str
    fingerprint: str


@dataclasses.dataclass(frozen=True, slots=True)
class Firewall:
    ident: str
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Volume:
    ident: str
    name: str
    region: str
    droplets: tuple[int, ...]
    tags: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    ident: str
    name: str
    created: str


def droplet(found: Document) -> Droplet:
    return Droplet(
        ident=number(found, "id"),
        name=text(found, "name"),
        status=text(found, "status"),
        locked=found.get("locked") is True,
        tags=texts(found, "tags"),
        address=_public_address(found),
        size=text(found, "size_slug"),
        disk=number(found, "disk"),
    )


def limits(found: Document) -> Limits:
    return Limits(
        droplets=number(found, "droplet_limit"),
        status=text(found, "status"),
        message=text(found, "status_message"),
    )


def region(found: Document) -> Region:
    return Region(
        slug=text(found, "slug"),
        available=found.get("available") is True,
        features=texts(found, "features"),
        sizes=texts(found, "sizes"),
    )


def plan(found: Document) -> Plan:
    price = found.get("price_monthly")
    return Plan(
        slug=text(found, "slug"),
        available=found.get("available") is True,
        regions=texts(found, "regions"),
        cpus=number(found, "vcpus"),
        memory=number(found, "memory"),
        disk=number(found, "disk"),
        monthly=float(price) if isinstance(price, int | float) else 0.0,
    )


def image(found: Document) -> Image:
    return Image(
        ident=number(found, "id"),
        slug=text(found, "slug"),
        public=found.get("public") is True,
        status=text(found, "status") or "available",
        regions=texts(found, "regions"),
        smallest_disk=number(found, "min_disk_size"),
    )


def key(found: Document) -> Key:
    return Key(number(found, "id"), text(found, "name"), text(found, "fingerprint"))


def firewall(found: Document) -> Firewall:
    return Firewall(text(found, "id"), text(found, "name"))


def volume(found: Document) -> Volume:
    where = found.get("region")
    ids = found.get("droplet_ids")
    return Volume(
        ident=text(found, "id"),
        name=text(found, "name"),
        region=text(where, "slug") if isinstance(where, Mapping) else "",
        droplets=tuple(one for one in ids if isinstance(one, int)) if isinstance(ids, list) else (),
        tags=texts(found, "tags"),
    )


def snapshot(found: Document) -> Snapshot:
    # A droplet's snapshot has a number as text, a volume's a uuid.
    return Snapshot(str(found.get("id", "")), text(found, "name"), text(found, "created_at"))


def text(found: Document, name: str) -> str:
    value = found.get(name)
    return value if isinstance(value, str) else ""


def number(found: Document, name: str) -> int:
    value = found.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def texts(found: Document, name: str) -> tuple[str, ...]:
    value = found.get(name)
    return tuple(str(one) for one in value) if isinstance(value, list) else ()


def within(found: Document, name: str) -> Document:
    """The object `name` of a document, {} when it has none."""
    value = found.get(name)
    return value if isinstance(value, Mapping) else {}


def each(found: Document, name: str) -> list[Document]:
    """The objects of the list `name` of a document."""
    value = found.get(name)
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _public_address(found: Document) -> str:
    for card in each(within(found, "networks"), "v4"):
        if card.get("type") == "public":
            return text(card, "ip_address")
    return ""
