"""What /info and /version tell of the host: read once at start."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Callable
from typing import Final

from agent.api.backend import HostFacts
from agent.config import Config
from agent.host import process
from agent.host.tree import write_atomic

# Docker's names for machines (GOARCH).
_GO: Final = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
    "loongarch64": "loong64",
}
_VERSION: Final = re.compile(r"\b[0-9]+\.[0-9]+[0-9A-Za-z.+~-]*")
_OS_RELEASE: Final = ("/etc/os-release", "/usr/lib/os-release")


def host_facts(
    config: Config, runtime: str, version: str, version_of: Callable[[str], str]
) -> HostFacts:
    """`runtime`: the name of the chosen OCI runtime; `version_of`: `program_version` or what
    knows its answers already.  Raises OSError (the data folder)."""
    system = os.uname()
    release = os_release()
    return HostFacts(
        id=engine_id(config.root),
        name=system.nodename,
        kernel=system.release,
        operating_system=release.get("PRETTY_NAME", "Linux"),
        os_version=release.get("VERSION_ID", ""),
        architecture=system.machine,
        go_architecture=_GO.get(system.machine, system.machine),
        cpus=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        cgroup_version="2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "1",
        runtime=runtime,
        runtime_version=version_of(runtime),
        conmon_version=version_of("conmon"),
        root=config.root,
        agent_version=version,
        labels=config.labels,
        registry_mirrors=config.registry_mirrors,
        insecure_registries=config.insecure_registries,
        debug=config.log_level == "debug",
    )


def os_release() -> dict[str, str]:
    """os-release(5); empty when there is none."""
    for path in _OS_RELEASE:
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            return parse_os_release(file.read(65536))
    return {}


def parse_os_release(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            found[key] = value.strip("\"'")
    return found


def program_version(name: str) -> str:
    """The number in `name --version`; "" when it can't be asked."""
    with contextlib.suppress(process.ProcessError):
        output = process.run([name, "--version"], timeout=10, limit=4096).stdout
        match = _VERSION.search(output.decode("utf-8", "replace"))
        return match[0] if match else ""
    return ""


def engine_id(root: str) -> str:
    """The id of this engine: made once, kept in $ROOT.  Raises OSError."""
    path = os.path.join(root, "engine-id")
    with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
        return str(uuid.UUID(file.read(64).strip()))
    fresh = str(uuid.uuid4())
    write_atomic(root, "engine-id", f"{fresh}\n".encode())
    return fresh
