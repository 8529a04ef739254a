"""Platforms "os/arch[/variant]": parsing, the host's own, and which ones can stand in for another.

The order of preference is containerd's `platforms.Only`.  Pure; the machine name is a parameter.
"""

from __future__ import annotations

import re

from agent.errors import invalid
from agent.values import frozen

_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MACHINES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "amd64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "arm64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armv8l": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armel": ("arm", "v6"),
    "i386": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
}
_ARM = ("v8", "v7", "v6", "v5")


@frozen
class Platform:
    """Normalised: amd64, arm64 (variant "" means v8), arm (v7 by default), 386, ..."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def normalise(os_name: str, architecture: str, variant: str = "") -> Platform:
    """The canonical spelling of a platform."""
    os_name, architecture, variant = os_name.lower(), architecture.lower(), variant.lower()
    architecture, implied = _MACHINES.get(architecture, (architecture, ""))
    variant = variant or implied
    if variant and variant[0].isdigit():
        variant = f"v{variant}"
    if architecture == "arm64" and variant == "v8":
        variant = ""
    if architecture == "arm" and not variant:
        variant = "v7"
    if architecture == "amd64" and variant == "v1":
        variant = ""
    return Platform(os_name or "linux", architecture, variant)


def host(machine: str) -> Platform:
    """The platform of a host whose uname machine is `machine`."""
    return normalise("linux", machine)


def parse(text: str, machine: str) -> Platform:
    """A `--platform` value; "" is the host's.  INVALID EngineError on nonsense."""
    if not text:
        return host(machine)
    parts = text.split("/")
    if len(parts) > 3 or not all(_WORD.fullmatch(part) for part in parts):
        raise invalid(
            f"{text!r} is an invalid component of {text!r}: platform specifier component must "
            'match "^[A-Za-z0-9_.-]+$"'
        )
    if len(parts) == 1:
        if parts[0].lower() == "linux":
            return host(machine)
        return normalise("linux", parts[0])
    return normalise(*parts)


def preferences(wanted: Platform) -> tuple[Platform, ...]:
    """What may run where `wanted` was asked for, best first."""
    os_name, architecture, variant = wanted.os, wanted.architecture, wanted.variant
    found = [wanted]
    if architecture == "amd64":
        level = int(variant[1:]) if re.fullmatch(r"v[2-9]", variant) else 1
        found += [Platform(os_name, "amd64", f"v{below}") for below in range(level - 1, 1, -1)]
        found += [Platform(os_name, "amd64"), Platform(os_name, "386")]
    elif architecture == "arm" and variant in _ARM:
        found += [Platform(os_name, "arm", below) for below in _ARM[_ARM.index(variant) + 1 :]]
    elif architecture == "arm64":
        minor = int(variant[3:]) if re.fullmatch(r"v8\.[1-9]", variant) else 0
        found += [Platform(os_name, "arm64", f"v8.{below}") for below in range(minor - 1, 0, -1)]
        found += [Platform(os_name, "arm64")]
        found += [Platform(os_name, "arm", below) for below in _ARM]
    return tuple(dict.fromkeys(found))
