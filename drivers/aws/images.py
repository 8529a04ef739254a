"""Which image is the newest: names of public SSM parameters, and of images by owner (pure).

Nothing here is a frozen id: releases follow from the calendar, and the newest that exists is taken.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Final

from drivers.aws.documents import Image
from drivers.errors import DriverError

ARCHITECTURES: Final = {"x86_64": "amd64", "arm64": "arm64"}  # Amazon's names -> the distributions'
_WANTED: Final = re.compile(r"(ubuntu|debian)(?:-([0-9]{1,2}(?:\.[0-9]{2})?))?")
_USERS: Final = {"ubuntu": "ubuntu", "debian": "admin"}
_CANONICAL: Final = {"aws": "099720109477", "cn": "837727238323", "us-gov": "513442679011"}
_DEBIAN: Final = {"aws": "136693071363"}
_UBUNTU: Final = "/aws/service/canonical/ubuntu/server"
_AT_ONCE: Final = 3  # releases that are looked for
_BOOKWORM: Final = (12, 2023)  # a release every second year since


@dataclasses.dataclass(frozen=True, slots=True)
class Search:
    """Where to look for an image; the first candidate that exists is the one."""

    parameters: tuple[str, ...]  # names of SSM parameters, best first
    owner: str  # of images, when no parameter helps; "" nobody known
    names: tuple[str, ...]  # patterns of their names, best first


def default_user(image: str) -> str:
    """The login of that kind of image."""
    return _USERS.get(image.partition("-")[0], "ubuntu")


def search(image: str, architecture: str, region: str, year: int) -> Search:
    """How to find `image` (ubuntu, debian-13 ...). Raises DriverError for another kind."""
    found = _WANTED.fullmatch(image)
    if found is None:
        raise DriverError(
            f"--amazonec2-image {image}: it takes ubuntu, debian, or one of their releases",
            hint="As ubuntu-24.04 or debian-13; any other image with --amazonec2-ami.",
        )
    kind, release = found[1], found[2]
    if architecture not in ARCHITECTURES:
        raise DriverError(f"there are no {kind} images for {architecture}")
    arch = ARCHITECTURES[architecture]
    partition = next((one for one in ("cn", "us-gov") if region.startswith(f"{one}-")), "aws")
    if kind == "ubuntu":
        releases = (release,) if release else _ubuntu_releases(year)
        return _ubuntu(releases, arch, _CANONICAL[partition])
    releases = (release,) if release else _debian_releases(year)
    return Search(
        tuple(f"/aws/service/debian/release/{one}/latest/{arch}" for one in releases),
        _DEBIAN.get(partition, ""),
        tuple(f"debian-{one}-{arch}-*" for one in releases),
    )


def _ubuntu(releases: Iterable[str], arch: str, owner: str) -> Search:
    pairs = [(one, disk) for one in releases for disk in ("gp3", "gp2")]
    return Search(
        tuple(
            f"{_UBUNTU}/{one}/stable/current/{arch}/hvm/ebs-{disk}/ami-id" for one, disk in pairs
        ),
        owner,
        tuple(
            f"ubuntu/images/hvm-ssd{'-gp3' if disk == 'gp3' else ''}/ubuntu-*-{one}-{arch}-server-*"
            for one, disk in pairs
        ),
    )


def _ubuntu_releases(year: int) -> tuple[str, ...]:
    """Long-term releases: April of every even year."""
    newest = year - year % 2
    return tuple(f"{(newest - 2 * back) % 100:02}.04" for back in range(_AT_ONCE))


def _debian_releases(year: int) -> tuple[str, ...]:
    number, since = _BOOKWORM
    newest = number + (year - since) // 2 + 1  # perhaps it is early
    return tuple(str(newest - back) for back in range(_AT_ONCE))


def first_parameter(names: Iterable[str], values: Mapping[str, str]) -> str:
    """The image id of the best parameter that exists; ""."""
    return next((values[name] for name in names if values.get(name, "").startswith("ami-")), "")


def newest(patterns: Iterable[str], images: Iterable[Image]) -> Image | None:
    """The newest image of the best pattern that any image's name matches."""
    known = list(images)
    for pattern in patterns:
        shape = re.compile(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."))
        matching = [one for one in known if shape.fullmatch(one.name)]
        if matching:
            return max(matching, key=lambda one: (one.created, one.name))
    return None
