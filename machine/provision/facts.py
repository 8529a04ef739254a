"""What a host is and has: the output of facts.sh as a value. Pure."""

from __future__ import annotations

import dataclasses
import enum
import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Final

from machine.errors import MachineError, printable

LEAST_PYTHON: Final = (3, 11)


class Init(enum.Enum):
    SYSTEMD = "systemd"
    SUPERVISE = "supervise"  # our own supervisor, for everything else


@dataclasses.dataclass(frozen=True, slots=True)
class Owner:
    """Who provisioned the host before: /etc/machine/owner.json."""

    store_id: str
    machine: str
    uuid: str
    port: int


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """One look at a host. Sizes in KiB, times in seconds since the epoch."""

    root: bool = False  # commands run as root, by login or by passwordless sudo
    sudo: bool = False  # there is a sudo at all
    clock: int = 0
    arch: str = ""
    kernel: str = ""
    bits: str = ""
    hostname: str = ""
    os: Mapping[str, str] = dataclasses.field(default_factory=dict)
    init: Init = Init.SUPERVISE
    python: str = ""  # path of a Python that will do
    pythons: tuple[str, ...] = ()  # all that were seen, with versions
    tools: Mapping[str, str] = dataclasses.field(default_factory=dict)  # name -> path
    ca_bundle: str = ""
    libnftables: str = ""
    readonly: tuple[str, ...] = ()
    disk_var: int = -1  # free, -1 unknown
    disk_opt: int = -1
    listening: frozenset[int] = frozenset()
    owner: Owner | None = None
    bundle: str = ""  # folder name of the agent that is there
    overlay: bool = False

    @property
    def os_name(self) -> str:
        return self.os.get("PRETTY_NAME") or self.os.get("NAME") or "Linux"

    @property
    def families(self) -> tuple[str, ...]:
        """ID and then ID_LIKE: what the distribution is, and what it is like (os-release(5))."""
        return (self.os.get("ID", ""), *self.os.get("ID_LIKE", "").split())


def parse(text: str) -> Facts:
    """Facts from facts.sh's output. Raises MachineError when that is not what came."""
    rows = [line.split("\t", 1) for line in text.splitlines() if "\t" in line]
    pairs = [(key, value) for key, value in rows]
    start = pairs.index(("begin", "1")) + 1 if ("begin", "1") in pairs else len(pairs)
    if ("end", "1") not in pairs[start:]:
        raise MachineError(
            "The host did not tell what it is",
            details="Its answer begins with: " + (printable(text[:300]) or "nothing"),
            hint="Does its login shell run commands without printing anything else?",
        )
    return _facts(pairs[start:])  # what a login script printed before is ignored


def _facts(pairs: list[tuple[str, str]]) -> Facts:
    one = dict(pairs)
    pythons = [value for key, value in pairs if key == "python"]
    tools = {key[5:]: value for key, value in pairs if key.startswith("tool.")}
    return Facts(
        root=one.get("uid") == "0",
        sudo="sudo" in tools,
        clock=_number(one.get("clock"), 0),
        arch=one.get("arch", ""),
        kernel=one.get("kernel", ""),
        bits=one.get("bits", ""),
        hostname=one.get("hostname", ""),
        os=os_release(value for key, value in pairs if key == "os"),
        init=Init.SYSTEMD if one.get("init") == "systemd" else Init.SUPERVISE,
        python=_python(pythons),
        pythons=tuple(pythons),
        tools=tools,
        ca_bundle=one.get("ca-bundle", ""),
        libnftables=one.get("libnftables", ""),
        readonly=tuple(dict.fromkeys(value for key, value in pairs if key == "readonly")),
        disk_var=_number(one.get("disk-var"), -1),
        disk_opt=_number(one.get("disk-opt"), -1),
        listening=frozenset(_port(value) for key, value in pairs if key == "listen"),
        owner=_owner(one.get("owner")),
        bundle=one.get("bundle", "").rstrip("/").rpartition("/")[2],
        overlay=("filesystem", "overlay") in pairs,
    )


def os_release(lines: Iterable[str]) -> dict[str, str]:
    """KEY=value lines with shell quoting (os-release(5)); lines that are not so are skipped."""
    out = {}
    for line in lines:
        key, equals, raw = line.partition("=")
        if not equals or not key.replace("_", "").isalnum() or line.lstrip().startswith("#"):
            continue
        try:
            words = shlex.split(raw)
        except ValueError:
            continue
        out[key.strip()] = " ".join(words)
    return out


def kernel_version(release: str) -> tuple[int, int]:
    """(6, 1) of "6.1.0-28-amd64"; (0, 0) when it is not so."""
    major, _, rest = release.partition(".")
    minor = "".join(c for c in rest.partition(".")[0] if c.isdecimal())
    return (int(major), int(minor)) if major.isdecimal() and minor else (0, 0)


def _python(seen: list[str]) -> str:
    for line in seen:
        path, _, rest = line.partition(" ")
        version, _, bits = rest.partition(" ")
        major, _, minor = version.partition(".")
        numeric = major.isdecimal() and minor.isdecimal() and bits == "64"
        if numeric and (int(major), int(minor)) >= LEAST_PYTHON:
            return path
    return ""


def _owner(text: str | None) -> Owner | None:
    if not text:
        return None
    try:
        doc = json.loads(text)
        return Owner(str(doc["store_id"]), str(doc["machine"]), str(doc["uuid"]), int(doc["port"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return Owner("?", "?", "?", 0)


def _number(text: str | None, default: int) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 16 else default


def _port(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return 0
