"""What is chosen and what it is called: pure functions."""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Final

from drivers.api import Size
from drivers.digitalocean.account import ANYWHERE, EVERY_PORT, Opening
from drivers.digitalocean.things import Image, Plan
from drivers.errors import InvalidError

ENGINE_PORT: Final = 2376
NAME_PREFIX: Final = "machine-"
_TAG_PREFIX: Final = "machine:"
_UUID: Final = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_TAG: Final = re.compile(rf"{_TAG_PREFIX}({_UUID})")
_NAME: Final = re.compile(rf"{NAME_PREFIX}({_UUID})(?:-.*)?")
_DEBIAN: Final = re.compile(r"debian-(\d+)-x64")
_UBUNTU_LTS: Final = re.compile(r"ubuntu-(\d?[02468])-04-x64")
_OPEN: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp))?")
_LAST_PORT: Final = 65535


def tag_of(uuid: str) -> str:
    """The tag that everything of a machine carries which can carry one."""
    return f"{_TAG_PREFIX}{uuid}"


def name_of(uuid: str) -> str:
    """The name of its key, firewall and volume; snapshots have it with "-LABEL" at the end.

    Firewalls take letters, digits, dots and dashes only, volumes no capitals and 64 characters.
    """
    return f"{NAME_PREFIX}{uuid}"


def snapshot_name(uuid: str, label: str) -> str:
    return f"{name_of(uuid)}-{label}"


def owner(name: str = "", tags: Iterable[str] = ()) -> str:
    """The uuid of the machine that a thing with this name or these tags belongs to, or ""."""
    for tag in tags:
        if found := _TAG.fullmatch(tag):
            return found[1]
    named = _NAME.fullmatch(name)
    return named[1] if named else ""


def newest(images: Sequence[Image], region: str, disk: int) -> Image | None:
    """The newest Debian that the region has and that fits a disk of so many GiB, else Ubuntu LTS.

    Debian first: what the agent needs beside itself is a small install there.
    """
    fitting = [
        one
        for one in images
        if one.public
        and one.status == "available"
        and region in one.regions
        and (not disk or one.smallest_disk <= disk)
    ]
    for kind in (_DEBIAN, _UBUNTU_LTS):
        known = [(int(found[1]), one) for one in fitting if (found := kind.fullmatch(one.slug))]
        if known:
            return max(known, key=lambda pair: pair[0])[1]
    return None


def image_key(given: str) -> int | str:
    """An image as the API takes it: a number, or a slug."""
    return int(given) if given.isascii() and given.isdigit() else given


def size_for(plans: Sequence[Plan], region: str, now: Plan | None, wanted: Size) -> Plan:
    """The size to resize to: the one that is named, else the cheapest that has what is asked for.

    `now` is the present size: what is not asked for is kept at least. Raises InvalidError.
    """
    here = [one for one in plans if one.available and region in one.regions]
    if wanted.plan:
        for one in here:
            if one.slug == wanted.plan:
                return one
        raise InvalidError(f"the size {wanted.plan} is not to be had in {region}{_said(here)}")
    cpus = wanted.cpus or (now.cpus if now else 0)
    memory = wanted.memory or (now.memory if now else 0)
    disk = max(wanted.disk, now.disk if now else 0)
    fitting = [
        one for one in here if one.cpus >= cpus and one.memory >= memory and one.disk >= disk
    ]
    if not fitting:
        raise InvalidError(
            f"{region} has no size with {cpus} CPUs, {memory} MiB and {disk} GiB{_said(here)}"
        )
    return min(fitting, key=lambda one: (one.monthly, one.memory, one.slug))


def _said(plans: Sequence[Plan]) -> str:
    return f"; there are {', '.join(sorted(one.slug for one in plans)[:20])}" if plans else ""


def inbound(ssh_port: int, trusted: Sequence[str], ports: Sequence[str]) -> list[Opening]:
    """The rules of a machine's firewall.

    SSH and the engine are for the networks `trusted`. Without `ports` everything else is as it is
    at a droplet without a firewall, since what containers publish shall be reachable; with them
    only those are. Raises InvalidError.
    """
    guarded = sorted({22, ssh_port, ENGINE_PORT})
    rules = [Opening("tcp", str(port), tuple(trusted)) for port in sorted({ssh_port, ENGINE_PORT})]
    wanted = [part for part in ports if part != "none"]
    if wanted:
        return rules + [Opening(*opened(part), ANYWHERE) for part in wanted]
    if ports:
        return rules
    spans = [Opening("tcp", span, ANYWHERE) for span in _between(guarded)]
    return [
        *rules,
        *spans,
        Opening("udp", EVERY_PORT, ANYWHERE),
        Opening("icmp", "", ANYWHERE),
    ]


def opened(part: str) -> tuple[str, str]:
    """(protocol, ports) of "80", "53/udp", "8000-8010/tcp". Raises InvalidError."""
    found = _OPEN.fullmatch(part)
    first = int(found[1]) if found else 0
    last = int(found[2]) if found and found[2] else first
    if found is None or not 0 < first <= last <= _LAST_PORT:
        raise InvalidError(f'"{part}" is no port: 80, 53/udp, 8000-8010/tcp or none')
    return found[3] or "tcp", str(first) if first == last else f"{first}-{last}"


def _between(closed: Sequence[int]) -> list[str]:
    """The spans of ports that are left between the closed ones."""
    spans, first = [], 1
    for port in [*closed, _LAST_PORT + 1]:
        if first <= port - 1:
            spans.append(str(first) if first == port - 1 else f"{first}-{port - 1}")
        first = port + 1
    return spans


def network(given: str) -> str:
    """A CIDR or an address as the API takes it. Raises InvalidError."""
    try:
        return str(ipaddress.ip_network(given.strip(), strict=False))
    except ValueError:
        raise InvalidError(f'"{given}" is no network: say ADDRESS/PREFIX, 203.0.113.7/32') from None


def fingerprint(public_key: str) -> str:
    """The MD5 fingerprint by which the API knows keys. Raises InvalidError for what is no key."""
    parts = public_key.split()
    try:
        body = base64.b64decode(parts[1], validate=True)
    except (IndexError, binascii.Error):
        raise InvalidError("that is no SSH public key") from None
    return hashlib.md5(body, usedforsecurity=False).digest().hex(":")


def split(given: Iterable[str]) -> tuple[str, ...]:
    """Values of a list option; docker-machine had them in one text, with commas."""
    parts = (part.strip() for one in given for part in one.split(","))
    return tuple(dict.fromkeys(part for part in parts if part))
