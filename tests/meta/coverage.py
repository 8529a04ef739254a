"""docs/api-coverage.md from the route table, the field tables and the tests that use them.

`python -m tests.meta.coverage` writes it; `test_coverage` says when it is stale, or when a row has
no test. A row's test is looked for in the sources: the first one, live before others, that speaks
of the route (its path, or the docker command that asks for it) or of the field (its name in a body,
or its flag).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

from agent.api.handlers.usage import UPDATE
from agent.api.routes import ROUTES, Row, Service
from agent.api.schema import config, execs, host, mounts, networks, volumes
from agent.api.schema.fields import Field, Table

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/api-coverage.md"
EVERY_FIELD: Final = "tests/unit/agent/api/test_every_field.py::test_field"
# In this order a row's test is looked for.
_PLACES: Final = (
    "tests/live",
    "tests/cases",
    "tests/api",
    "tests/unit/agent/api",
    "tests/unit/agent",
)
# Definitions whose fields a create or exec body has at its top, and where the others stand in it.
_TOP: Final = frozenset(
    {"ContainerConfig", "HostConfig", "ExecConfig", "NetworkCreateRequest", "VolumeCreateOptions"}
)
_PARENTS: Final = {
    "HealthConfig": '"Healthcheck"', "HostConfig.LogConfig": '"LogConfig"',
    "RestartPolicy": '"RestartPolicy"', "DeviceMapping": '"Devices"', "Ulimit": '"Ulimits"',
    "WeightDevice": '"BlkioWeightDevice"', "ThrottleDevice": '"BlkioDevice',
    "DeviceRequest": '"DeviceRequests"', "Mount": '"Mounts"', "Mount.BindOptions": '"BindOptions"',
    "Mount.VolumeOptions": '"VolumeOptions"', "Mount.ImageOptions": '"ImageOptions"',
    "Mount.TmpfsOptions": '"TmpfsOptions"', "Mount.VolumeOptions.DriverConfig": '"DriverConfig"',
    "EndpointSettings": '"EndpointsConfig"', "EndpointIPAMConfig": '"IPAMConfig"',
    "IPAMConfig": '"IPAM"', "IPAM": '"IPAM"', "ContainerUpdate": "/update",
}  # fmt: skip

_FIRST: Final = (
    "test_docker_cli", "test_containers", "test_networks", "test_terminal", "test_images", "test_build",
    "test_twins",
)  # fmt: skip

HEAD = """# API coverage

Docker Engine API 1.51 (minimum 1.24). Made by `python -m tests.meta.coverage` from the route table
(`agent/api/routes.py`), the field tables (`agent/api/schema`) and the tests; a test keeps it fresh.

*served*: answered as Docker Engine does. *not yet*: 501 that names the endpoint. *no swarm*: 503, as of
an engine that is in no swarm and has neither plugins nor checkpoints. A field that is *refused* is named in a
400 unless it has its zero value; every field's row in `tests/unit/agent/api/test_every_field.py` shows
that it is honoured or refused, and the test named here what it does.
"""

# What a test says when it asks for a route otherwise than by its path: words of the docker command.
_COMMANDS: Final[Mapping[str, str]] = {
    "HEAD /_ping": r'"HEAD", "/_ping"',
    "POST /containers/create": r'"run"|"create"',
    "POST /containers/{id}/start": r'docker\("start"',
    "POST /containers/{id}/stop": r'docker\("stop"',
    "POST /containers/{id}/restart": r'docker\("restart"',
    "POST /containers/{id}/kill": r'docker\("kill"',
    "POST /containers/{id}/pause": r'"pause"',
    "POST /containers/{id}/unpause": r'"unpause"',
    "POST /containers/{id}/rename": r'"rename"',
    "POST /containers/{id}/resize": r"stty size",
    "POST /containers/{id}/update": r'docker\("update"|"update", "-',
    "POST /containers/{id}/wait": r'docker\("wait"',
    "POST /containers/{id}/attach": r'"attach"',
    "POST /containers/{id}/exec": r'"exec"',
    "POST /exec/{id}/start": r'"exec"',
    "POST /exec/{id}/resize": r"stty size",
    "DELETE /containers/{id}": r'docker\("rm"|"rm", "-f"',
    "GET /containers/{id}/json": r"box\.inspect\(",
    "GET /containers/{id}/logs": r'"logs"',
    "GET /containers/{id}/top": r'"top"',
    "GET /containers/{id}/stats": r'"stats"',
    "GET /containers/{id}/changes": r'"diff"',
    "GET /containers/{id}/export": r'"export"',
    "GET /containers/{id}/archive": r'docker\("cp"',
    "HEAD /containers/{id}/archive": r'docker\("cp"',
    "PUT /containers/{id}/archive": r"\bput\(box",
    "GET /containers/{id}/attach/ws": r"websocket\(|Socket\(box|WebSocket\(",
    "GET /containers/json": r'docker\("ps"',
    "POST /containers/prune": r'"container", "prune"',
    "POST /auth": r'"login", "-u"',
    "POST /build": r'docker\(\s*"build"|"build"',
    "POST /build/prune": r'"builder", "prune"|build/prune',
    "POST /commit": r'"commit"',
    "GET /distribution/{name}/json": r'"/distribution/',
    "GET /events": r'"events"',
    "POST /images/create": r'"pull"',
    "GET /images/get": r'"save"',
    "GET /images/{name}/get": r'"save"',
    "GET /images/json": r'"images"|"image", "ls"',
    "POST /images/load": r'"load"',
    "POST /images/prune": r'"image", "prune"',
    "GET /images/search": r'"search"',
    "DELETE /images/{name}": r'"rmi"|"image", "rm"',
    "GET /images/{name}/history": r'"history"',
    "GET /images/{name}/json": r'"image", "inspect"',
    "POST /images/{name}/push": r'"push"',
    "POST /images/{name}/tag": r'"tag"',
    "GET /info": r'"info"',
    "GET /version": r'"version"',
    "GET /networks": r'"network", "ls"|"/networks"',
    "POST /networks/create": r'"network", "create"',
    "POST /networks/prune": r'"network", "prune"',
    "DELETE /networks/{id}": r'"network", "rm"',
    "GET /networks/{id}": r'"network", "inspect"|/networks/',
    "POST /networks/{id}/connect": r'"network", "connect"',
    "POST /networks/{id}/disconnect": r'"network", "disconnect"',
    "GET /system/df": r'"system", "df"',
    "GET /volumes": r'"volume", "ls"|"/volumes"',
    "POST /volumes/create": r'"volume", "create"',
    "POST /volumes/prune": r'"volume", "prune"',
    "DELETE /volumes/{name}": r'"volume", "rm"',
    "GET /volumes/{name}": r'"volume", "inspect"',
    "GET /plugins": r'"/plugins"',
    "GET /plugins/{name}/json": r"/plugins/x/json",
}
# The docker client's flags of fields (`run`, `create`, `network create`, ...).
_FLAGS: Final[Mapping[str, str]] = {
    "Hostname": "--hostname", "User": "--user", "Tty": "-t", "OpenStdin": "-i", "StdinOnce": "-i",
    "Env": "-e", "WorkingDir": "-w", "Entrypoint": "--entrypoint", "Labels": "--label",
    "StopSignal": "--stop-signal", "StopTimeout": "--stop-timeout", "Binds": "-v",
    "Healthcheck": "--health-cmd", "Domainname": "--domainname", "PortBindings": "-p",
    "ExposedPorts": "--expose", "RestartPolicy": "--restart", "AutoRemove": "--rm",
    "NetworkMode": "--network", "VolumesFrom": "--volumes-from", "Mounts": "--mount",
    "CapAdd": "--cap-add", "CapDrop": "--cap-drop", "Dns": "--dns", "DnsSearch": "--dns-search",
    "DnsOptions": "--dns-option", "ExtraHosts": "--add-host", "GroupAdd": "--group-add",
    "IpcMode": "--ipc", "PidMode": "--pid", "UTSMode": "--uts", "Links": "--link",
    "OomScoreAdj": "--oom-score-adj", "Privileged": "--privileged", "PublishAllPorts": "-P",
    "ReadonlyRootfs": "--read-only", "SecurityOpt": "--security-opt", "Tmpfs": "--tmpfs",
    "ShmSize": "--shm-size", "Sysctls": "--sysctl", "Runtime": "--runtime", "Init": "--init",
    "CpuShares": "--cpu-shares", "Memory": "--memory", "NanoCpus": "--cpus",
    "CpusetCpus": "--cpuset-cpus", "PidsLimit": "--pids-limit", "Ulimits": "--ulimit",
    "Devices": "--device", "CgroupParent": "--cgroup-parent", "LogConfig": "--log-driver",
    "BlkioWeight": "--blkio-weight", "CgroupnsMode": "--cgroupns", "Annotations": "--annotation",
    "MacAddress": "--mac-address", "Volumes": "-v", "Subnet": "--subnet", "Gateway": "--gateway",
    "IPRange": "--ip-range", "AuxiliaryAddresses": "--aux-address", "Internal": "--internal",
    "EnableIPv6": "--ipv6", "DriverOpts": "--opt", "IPv4Address": "--ip", "IPv6Address": "--ip6",
    "Aliases": "--network-alias", "Options": "--opt", "Driver": "--driver",
    "DeviceCgroupRules": "--device-cgroup-rule", "MemorySwap": "--memory-swap",
    "MemoryReservation": "--memory-reservation", "StorageOpt": "--storage-opt",
}  # fmt: skip


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_routes(), "", *_fields()]) + "\n"


def untested() -> list[str]:
    """Served routes for which no test was found."""
    return [_key(row) for row in ROUTES if row.service is Service.SERVED and not route_test(row)]


def _key(row: Row) -> str:
    return f"{row.method} {row.template}"


def _routes() -> Iterator[str]:
    served = sum(row.service is Service.SERVED for row in ROUTES)
    core = sum(row.service is not Service.SWARM for row in ROUTES)
    yield f"## Endpoints: {served} of {core} served, {len(ROUTES) - core} answer 503"
    yield ""
    yield "| method | path | | test |"
    yield "| --- | --- | --- | --- |"
    for row in sorted(ROUTES, key=_order):
        yield f"| {row.method} | `{row.template}` | {row.service.value} | {_shown(route_test(row))} |"


def _order(row: Row) -> tuple[str, str]:
    return row.template, row.method


def route_test(row: Row) -> str:
    """ "" when there is none."""
    if row.service is not Service.SERVED:
        return "tests/unit/agent/api/test_routes.py::test_what_is_not_served_says_so"
    path = re.sub(r"\\{[a-z]+\\}", r"[^\"'?]+", re.escape(row.template))
    words = _COMMANDS.get(_key(row))
    pattern = re.compile(words) if words else re.compile(f"[\"'/]{path.lstrip('/')}[\"'?]")
    return next((name for name, text in _tests() if pattern.search(text)), "")


def _fields() -> Iterator[str]:
    modules = (config, host, mounts, networks, volumes, execs)
    tables = [one for module in modules for one in vars(module).values() if isinstance(one, Table)]
    yield "## Fields"
    seen: set[str] = set()
    for table in [*tables, UPDATE]:
        if table.definition in seen or table is host.RESOURCES:
            continue  # HostConfig has the resources' fields
        seen.add(table.definition)
        served = sum(field.served for field in table.fields)
        yield ""
        yield f"### {table.definition}: {served} of {len(table.fields)} served"
        yield ""
        yield "| field | | test |"
        yield "| --- | --- | --- |"
        for field in table.fields:
            state = "served" if field.served else "refused"
            yield f"| `{field.name}` | {state} | {_shown(field_test(table, field))} |"


def field_test(table: Table, field: Field) -> str:
    """The test that shows what it does, else the row that shows that it is honoured or refused."""
    parent = _PARENTS.get(table.definition, "")
    flag = "" if parent else _FLAGS.get(field.name, "")
    alternatives = [rf'"{field.name}": ', *([rf'"{flag}["= ]'] if flag else [])]
    pattern = re.compile("|".join(alternatives))
    shown = ("tests/live", "tests/cases")
    for name, text in _tests():
        inside = parent in text and (parent or table.definition in _TOP)
        if field.served and inside and name.startswith(shown) and pattern.search(text):
            return name
    return f"{EVERY_FIELD}[{table.definition}.{field.name}]"


def _shown(name: str) -> str:
    return f"`{name.removeprefix('tests/')}`"


def _rank(path: Path) -> tuple[int, str]:
    """Tests of one thing before those that use many."""
    known = [number for number, start in enumerate(_FIRST) if path.name.startswith(start)]
    return (known[0] if known else len(_FIRST)), str(path)


def _shows(path: Path) -> bool:
    """Live tests of the engine; not those that only use it, which come and go."""
    return "live" not in path.parts or path.name.startswith(_FIRST)


@cache
def _tests() -> tuple[tuple[str, str], ...]:
    """(node name, source) of every test, in the order in which they are asked."""
    found: list[tuple[str, str]] = []
    for place in _PLACES:
        for path in sorted((ROOT / place).rglob("test_*.py"), key=_rank):
            if not _shows(path):
                continue
            name = path.relative_to(ROOT).as_posix()
            found += [(f"{name}::{test}", text) for test, text in _functions(path.read_text())]
    return tuple(found)


def _functions(source: str) -> list[tuple[str, str]]:
    return [
        (node.name, ast.get_source_segment(source, node) or "")
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]


if __name__ == "__main__":
    PAGE.write_text(page())
