"""Every field of the request bodies of the core groups is honoured or refused by its name.

One row a field: a value that is not zero, and what becomes of it. A row that changes nothing of the
decoded request, and is not refused by a 4xx that names it, fails; so does a field without a row.
Whether what was decoded is then used is asked by the last test here, and shown by the tests that
docs/api-coverage.md names.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Final

import pytest

from agent.api.handlers.usage import UPDATE, fixed_refused
from agent.api.schema.create import create_request
from agent.api.schema.execs import EXEC_CONFIG, EXEC_START, exec_config, exec_start
from agent.api.schema.networks import (
    CONNECT,
    DISCONNECT,
    NETWORK_CREATE,
    endpoint_request,
    network_spec,
)
from agent.api.schema.volumes import VOLUME_CREATE
from agent.engine import model
from agent.errors import EngineError, Kind
from tests.unit.agent.api.spec import definitions

SOURCES = Path(__file__).parents[4] / "agent"

# What is neither: a hint that asks for nothing on this side of the API.
HINTS: Final = {
    "HostConfig.ContainerIDFile": "the client's own file, for inspect",
    "HostConfig.ConsoleSize": "the terminal's first size: kept, and given to the runtime",
    "ContainerConfig.ArgsEscaped": "means something on Windows only",
    "Mount.Consistency": "a hint for Docker Desktop",
    "ContainerConfig.MacAddress": "goes to the endpoint: see the networks of the request",
    "NetworkCreateRequest.CheckDuplicate": "names are always checked, as since API 1.44",
    "HostConfig.UsernsMode": 'only "host" passes, which is what there is',
    "HostConfig.Isolation": 'only "default" passes',
    "HostConfig.VolumeDriver": 'only "local" passes',
    "NetworkConnectRequest.Container": "the container to connect",
    "NetworkDisconnectRequest.Container": "the container to disconnect",
}
# Observed, not asked for: a client may send an inspected document back (docker-py does).
OBSERVED: Final = frozenset(
    f"EndpointSettings.{name}"
    for name in (
        "NetworkID", "EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "IPv6Gateway",
        "GlobalIPv6Address", "GlobalIPv6PrefixLen", "DNSNames",
    )
)  # fmt: skip

CONFIG: Final[Mapping[str, object]] = {
    "Hostname": "h", "Domainname": "d.e", "User": "u", "AttachStdin": True, "AttachStdout": True,
    "AttachStderr": True, "ExposedPorts": {"1/tcp": {}}, "Tty": True, "OpenStdin": True,
    "StdinOnce": True, "Env": ["A=b"], "Cmd": ["x"], "Healthcheck": {"Test": ["NONE"]},
    "ArgsEscaped": True, "Image": "y", "Volumes": {"/v": {}}, "WorkingDir": "/w",
    "Entrypoint": ["e"], "NetworkDisabled": True, "MacAddress": "02:42:ac:11:00:07",
    "OnBuild": ["RUN x"], "Labels": {"a": "b"}, "StopSignal": "SIGINT", "StopTimeout": 3,
    "Shell": ["sh"],
}  # fmt: skip
LIMITS: Final[Mapping[str, object]] = {
    "CpuShares": 2, "Memory": 8 << 20, "CgroupParent": "/p", "BlkioWeight": 10,
    "BlkioWeightDevice": [{"Path": "/dev/x", "Weight": 10}],
    "BlkioDeviceReadBps": [{"Path": "/dev/x", "Rate": 1}],
    "BlkioDeviceWriteBps": [{"Path": "/dev/x", "Rate": 1}],
    "BlkioDeviceReadIOps": [{"Path": "/dev/x", "Rate": 1}],
    "BlkioDeviceWriteIOps": [{"Path": "/dev/x", "Rate": 1}],
    "CpuPeriod": 5000, "CpuQuota": 5000, "CpuRealtimePeriod": 2, "CpuRealtimeRuntime": 1,
    "CpusetCpus": "0", "CpusetMems": "0", "Devices": [{"PathOnHost": "/dev/null"}],
    "DeviceCgroupRules": ["c 1:1 r"], "DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}],
    "KernelMemoryTCP": 1, "MemoryReservation": 8 << 20, "MemorySwap": -1, "MemorySwappiness": 1,
    "NanoCpus": 1, "OomKillDisable": True, "Init": True, "PidsLimit": 3,
    "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}], "CpuCount": 1, "CpuPercent": 1,
    "IOMaximumIOps": 1, "IOMaximumBandwidth": 1,
}  # fmt: skip
HOST: Final[Mapping[str, object]] = {
    **LIMITS, "Binds": ["/a:/b"], "ContainerIDFile": "x", "LogConfig": {"Type": "local"},
    "NetworkMode": "none", "PortBindings": {"1/tcp": [{"HostPort": "1"}]},
    "RestartPolicy": {"Name": "always"}, "AutoRemove": True, "VolumeDriver": "other",
    "VolumesFrom": ["x"], "Mounts": [{"Type": "tmpfs", "Target": "/t"}], "ConsoleSize": [1, 2],
    "Annotations": {"a": "b"}, "CapAdd": ["KILL"], "CapDrop": ["KILL"], "CgroupnsMode": "host",
    "Dns": ["1.1.1.1"], "DnsOptions": ["x"], "DnsSearch": ["x"], "ExtraHosts": ["a:1.1.1.1"],
    "GroupAdd": ["1"], "IpcMode": "host", "Cgroup": "x", "Links": ["a:b"], "OomScoreAdj": 5,
    "PidMode": "host", "Privileged": True, "PublishAllPorts": True, "ReadonlyRootfs": True,
    "SecurityOpt": ["no-new-privileges"], "StorageOpt": {"size": "1g"}, "Tmpfs": {"/x": ""},
    "UTSMode": "host", "UsernsMode": "private", "ShmSize": 1, "Sysctls": {"a.b": "c"},
    "Runtime": "nosuch", "Isolation": "hyperv", "MaskedPaths": ["/a"], "ReadonlyPaths": ["/a"],
}  # fmt: skip
MOUNTS: Final[Mapping[str, Mapping[str, object]]] = {
    "Mount": {
        "Target": "/other", "Source": "/other", "Type": "tmpfs", "ReadOnly": True,
        "Consistency": "cached", "BindOptions": {"NonRecursive": True},
        "VolumeOptions": {"NoCopy": True}, "ImageOptions": {"Subpath": "x"},
        "TmpfsOptions": {"SizeBytes": 1},
    },
    "Mount.BindOptions": {
        "Propagation": "rslave", "NonRecursive": True, "CreateMountpoint": True,
        "ReadOnlyNonRecursive": True, "ReadOnlyForceRecursive": True,
    },
    "Mount.VolumeOptions": {
        "NoCopy": True, "Labels": {"a": "b"}, "DriverConfig": {"Name": "other"}, "Subpath": "x",
    },
    "Mount.VolumeOptions.DriverConfig": {"Name": "other", "Options": {"type": "tmpfs"}},
    "Mount.ImageOptions": {"Subpath": "x"},
    "Mount.TmpfsOptions": {"SizeBytes": 1, "Mode": 7, "Options": [["exec"]]},
}  # fmt: skip
ENDPOINT: Final[Mapping[str, object]] = {
    "IPAMConfig": {"IPv4Address": "10.0.0.9"}, "Links": ["a:b"], "MacAddress": "02:42:ac:11:00:07",
    "Aliases": ["x"], "DriverOpts": {"com.docker.network.endpoint.ifname": "x0"}, "GwPriority": 2,
}  # fmt: skip
IPAM_OF_ENDPOINT: Final[Mapping[str, object]] = {
    "IPv4Address": "10.0.0.9", "IPv6Address": "fd00::9", "LinkLocalIPs": ["169.254.1.1"],
}  # fmt: skip
NETWORK: Final[Mapping[str, object]] = {
    "Name": "other", "CheckDuplicate": True, "Driver": "macvlan", "Scope": "swarm",
    "Internal": True, "Attachable": True, "Ingress": True, "ConfigOnly": True,
    "ConfigFrom": {"Network": "x"}, "IPAM": {"Config": [{"Subnet": "10.1.0.0/24"}]},
    "EnableIPv4": False, "EnableIPv6": True, "Options": {"a": "b"}, "Labels": {"a": "b"},
}  # fmt: skip
IPAM: Final[Mapping[str, object]] = {
    "Driver": "other", "Config": [{"Subnet": "10.1.0.0/24"}], "Options": {"a": "b"},
}  # fmt: skip
POOL: Final[Mapping[str, object]] = {
    "Subnet": "10.2.0.0/24", "IPRange": "10.1.0.0/25", "Gateway": "10.1.0.9",
    "AuxiliaryAddresses": {"a": "10.1.0.8"},
}  # fmt: skip
VOLUME: Final[Mapping[str, object]] = {
    "Name": "v1", "Driver": "local", "DriverOpts": {"type": "tmpfs"}, "Labels": {"a": "b"},
    "ClusterVolumeSpec": {"Group": "x"},
}  # fmt: skip
EXEC: Final[Mapping[str, object]] = {
    "AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "ConsoleSize": [1, 2],
    "DetachKeys": "ctrl-a", "Tty": True, "Env": ["A=b"], "Cmd": ["y"], "Privileged": True,
    "User": "u", "WorkingDir": "/w",
}  # fmt: skip
START: Final[Mapping[str, object]] = {"Detach": True, "Tty": True, "ConsoleSize": [1, 2]}


def create(host: object = None, networking: object = None, **config: object) -> object:
    body = {"Image": "x", **config, "HostConfig": host or {}, "NetworkingConfig": networking or {}}
    made = create_request(body, "", "")
    # The document as given is only for inspect: to be in it is not to be honoured.
    return dataclasses.replace(made, given_config={}, given_host_config={})


def _mount(part: str, field: str, value: object) -> object:
    """A create request with one Mount; `part` is the definition that has the field."""
    kind = {
        "Mount.BindOptions": "bind",
        "Mount.TmpfsOptions": "tmpfs",
        "Mount.ImageOptions": "image",
    }
    base: dict[str, object] = {"Type": kind.get(part, "volume"), "Target": "/t"}
    if base["Type"] in {"bind", "image"} or field == "Type":
        base["Source"] = "/s"
    if field.startswith("ReadOnly") and part == "Mount.BindOptions":
        base["ReadOnly"] = True
    rprivate = {"Propagation": "rprivate"} if field == "ReadOnlyForceRecursive" else {}
    options = {"Mount.VolumeOptions.DriverConfig": "VolumeOptions"}.get(
        part, part.rpartition(".")[2]
    )
    if part == "Mount":
        base[field] = value
        base.update({"Source": "/s"} if field == "Type" else {})
    elif part.endswith("DriverConfig"):
        base[options] = {"DriverConfig": {field: value}}
    else:
        base[options] = {**rprivate, field: value}
    return create({"Mounts": [base]})


def _plain_mount(part: str, field: str) -> object:
    zero: dict[str, object] = {"ReadOnlyForceRecursive": False, "Type": "volume"}
    empty = {"Target": "/t", "Type": "volume"}
    return _mount(part, field, zero.get(field, empty.get(field)))


def _update(field: str, value: object) -> object:
    fixed_refused({field: value})
    return UPDATE.decode({field: value})


def _volume(document: object) -> object:
    return VOLUME_CREATE.decode(document)


Case = tuple[str, str, Callable[[], object], Callable[[], object]]


def _cases() -> list[Case]:
    """(definition, field, the request with it, the request without it)."""
    found: list[Case] = []

    def add(definition: str, rows: Mapping[str, object], ask: Callable[[str, object], object],
            plain: Callable[[str], object]) -> None:  # fmt: skip
        for name, value in rows.items():
            found.append((definition, name, partial(ask, name, value), partial(plain, name)))

    def endpoint(settings: object) -> object:
        return endpoint_request("n", settings, "EndpointSettings")

    def pool(**changes: object) -> object:
        return network_spec(
            {"Name": "n", "IPAM": {"Config": [{"Subnet": "10.1.0.0/24", **changes}]}}
        )

    add("ContainerConfig", CONFIG, lambda n, v: create(**{n: v}), lambda _: create())
    add("HostConfig", HOST, lambda n, v: create({n: v}), lambda _: create())
    for part, rows in MOUNTS.items():
        add(part, rows, partial(_mount, part), partial(_plain_mount, part))
    add("EndpointSettings", ENDPOINT, lambda n, v: endpoint({n: v}), lambda _: endpoint({}))
    add("EndpointIPAMConfig", IPAM_OF_ENDPOINT, lambda n, v: endpoint({"IPAMConfig": {n: v}}),
        lambda _: endpoint({}))  # fmt: skip
    add("NetworkingConfig", {"EndpointsConfig": {"n": {"Aliases": ["x"]}}},
        lambda n, v: create(None, {n: v}), lambda _: create())  # fmt: skip
    add("NetworkCreateRequest", NETWORK, lambda n, v: network_spec({"Name": "n", n: v}),
        lambda _: network_spec({"Name": "n"}))  # fmt: skip
    add("IPAM", IPAM, lambda n, v: network_spec({"Name": "n", "IPAM": {n: v}}),
        lambda _: network_spec({"Name": "n"}))  # fmt: skip
    add("IPAMConfig", POOL, lambda n, v: pool(**{n: v}), lambda _: pool())
    add("VolumeCreateOptions", VOLUME, lambda n, v: _volume({n: v}), lambda _: _volume({}))
    add("ExecConfig", EXEC, lambda n, v: exec_config({"Cmd": ["x"], n: v}),
        lambda _: exec_config({"Cmd": ["x"]}))  # fmt: skip
    add("ExecStartConfig", START, lambda n, v: exec_start({n: v}), lambda _: exec_start({}))
    add("ContainerUpdate", {**LIMITS, "RestartPolicy": {"Name": "always"}}, _update, lambda _: {})
    add("NetworkConnectRequest", {"Container": "c", "EndpointConfig": {"Aliases": ["x"]}},
        lambda n, v: CONNECT.decode({n: v}), lambda _: {})  # fmt: skip
    add("NetworkDisconnectRequest", {"Container": "c", "Force": True},
        lambda n, v: DISCONNECT.decode({n: v}), lambda _: {})  # fmt: skip
    return found


CASES = _cases()


@pytest.mark.parametrize(
    ("definition", "field", "asked", "plain"), CASES, ids=[f"{one[0]}.{one[1]}" for one in CASES]
)
def test_field(
    definition: str, field: str, asked: Callable[[], object], plain: Callable[[], object]
) -> None:
    made = _answer(asked)
    if isinstance(made, EngineError):
        assert made.kind in {Kind.INVALID, Kind.UNAVAILABLE}
        assert _named(field, made.message), made.message
    elif f"{definition}.{field}" not in HINTS:
        assert made != plain(), "neither honoured nor refused"


def _answer(asked: Callable[[], object]) -> object:
    try:
        return asked()
    except EngineError as error:
        return error


# Where Docker's own text calls a field something else.
_TEXTS: Final = {
    "DeviceRequests": "device driver", "StorageOpt": "storage-opt", "Runtime": "runtime name",
    "DriverConfig": "driver",
}  # fmt: skip


def _named(field: str, message: str) -> bool:
    words = {field, _TEXTS.get(field, field)}
    return any(one and one.lower() in message.lower() for one in words)


def test_every_field_has_a_row() -> None:
    rows: dict[str, set[str]] = {}
    for definition, field, _, _ in CASES:
        rows.setdefault(definition, set()).add(field)
    for definition, names in definitions().items():
        if definition in rows:
            expected = set(names) - {
                one.partition(".")[2] for one in OBSERVED if one.startswith(f"{definition}.")
            }
            assert rows[definition] >= expected, definition
    assert rows["NetworkCreateRequest"] == {one.name for one in NETWORK_CREATE.fields}
    assert rows["ExecConfig"] == {one.name for one in EXEC_CONFIG.fields}
    assert rows["ExecStartConfig"] == {one.name for one in EXEC_START.fields}


@cache
def _attributes_read() -> frozenset[str]:
    """Names of attributes that the agent reads anywhere but where requests are decoded."""
    found: set[str] = set()
    for path in SOURCES.rglob("*.py"):
        inside = path.relative_to(SOURCES).as_posix()
        if not inside.startswith("api/schema/") and inside != "engine/model.py":
            tree = ast.parse(path.read_text())
            found |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return frozenset(found)


@pytest.mark.parametrize(
    "kind",
    [
        model.ContainerConfig, model.HostConfig, model.Resources, model.MountRequest,
        model.EndpointRequest, model.NetworkSpec, model.IpamPool, model.ExecConfig,
        model.RestartPolicy, model.DeviceMapping, model.Ulimit, model.BlockLimit,
        model.PortBinding,
    ],
)  # fmt: skip
def test_what_was_decoded_is_used(kind: type) -> None:
    names = {one.name for one in dataclasses.fields(kind)}
    assert names <= _attributes_read()
