"""_ping, version, info, events, system/df."""

from __future__ import annotations

from typing import Final

from agent.api.call import Api, Call
from agent.api.filters import EVENT_KEYS, event_predicate, parse
from agent.api.handlers.containers import network_ids
from agent.api.schema.images import image_summary
from agent.api.schema.listing import ImageNames, list_entry
from agent.api.schema.times import rfc3339, timestamp
from agent.api.schema.volumes import volume_document
from agent.api.streams import EventStream
from agent.api.version import CURRENT_TEXT, MINIMUM_TEXT
from agent.engine.model import Phase
from agent.errors import invalid, not_found
from agent.wire.http import Answer, Reply, Stream, json_reply

PING_HEADERS: Final = (
    ("Builder-Version", "1"),
    ("Cache-Control", "no-cache, no-store, must-revalidate"),
    ("Pragma", "no-cache"),
    ("Swarm", "inactive"),
)
_PONG: Final = Reply(200, b"OK", "text/plain; charset=utf-8", PING_HEADERS)


def ping(_api: Api, _call: Call) -> Answer:
    return _PONG


def version(api: Api, _call: Call) -> Answer:
    facts = api.backend.facts
    engine = {
        "ApiVersion": CURRENT_TEXT,
        "Arch": facts.go_architecture,
        "BuildTime": "",
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": "",
        "KernelVersion": facts.kernel,
        "MinAPIVersion": MINIMUM_TEXT,
        "Os": "linux",
    }
    return json_reply(
        {
            "Platform": {"Name": "Machine Engine"},
            "Components": [
                {"Name": "Engine", "Version": facts.agent_version, "Details": engine},
                {
                    "Name": facts.runtime,
                    "Version": facts.runtime_version,
                    "Details": {"GitCommit": ""},
                },
                {
                    "Name": "conmon",
                    "Version": facts.conmon_version,
                    "Details": {"GitCommit": ""},
                },
            ],
            "Version": facts.agent_version,
            "ApiVersion": CURRENT_TEXT,
            "MinAPIVersion": MINIMUM_TEXT,
            "GitCommit": "",
            "GoVersion": "",
            "Os": "linux",
            "Arch": facts.go_architecture,
            "KernelVersion": facts.kernel,
            "BuildTime": "",
        }
    )


def _registry_config(api: Api) -> dict[str, object]:
    facts = api.backend.facts
    indexes: dict[str, object] = {
        "docker.io": {
            "Name": "docker.io",
            "Mirrors": list(facts.registry_mirrors),
            "Secure": True,
            "Official": True,
        }
    }
    for name in facts.insecure_registries:
        if "/" not in name:
            indexes[name] = {"Name": name, "Mirrors": [], "Secure": False, "Official": False}
    return {
        "InsecureRegistryCIDRs": [n for n in facts.insecure_registries if "/" in n],
        "IndexConfigs": indexes,
        "Mirrors": list(facts.registry_mirrors),
    }


def info(api: Api, _call: Call) -> Answer:
    facts = api.backend.facts
    phases = [one.state.phase for one in api.backend.containers.all()]
    running = sum(phase in {Phase.RUNNING, Phase.RESTARTING} for phase in phases)
    paused = phases.count(Phase.PAUSED)
    commit = {"ID": facts.runtime_version}
    return json_reply(
        {
            "ID": facts.id,
            "Containers": len(phases),
            "ContainersRunning": running,
            "ContainersPaused": paused,
            "ContainersStopped": len(phases) - running - paused,
            "Images": len(api.backend.images.all()),
            "Driver": "overlay2",
            "DriverStatus": [["Supports d_type", "true"], ["Native Overlay Diff", "true"]],
            "Plugins": {
                "Volume": ["local"],
                "Network": ["bridge", "host", "ipvlan", "macvlan", "null"],
                "Authorization": None,
                "Log": ["json-file", "local", "none"],
            },
            **_ABILITIES,
            "Debug": facts.debug,
            "NFd": 0,
            "NGoroutines": 0,
            "SystemTime": rfc3339(api.now()),
            "LoggingDriver": "json-file",
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": facts.cgroup_version,
            "NEventsListener": 0,
            "KernelVersion": facts.kernel,
            "OperatingSystem": facts.operating_system,
            "OSVersion": facts.os_version,
            "OSType": "linux",
            "Architecture": facts.architecture,
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": _registry_config(api),
            "NCPU": facts.cpus,
            "MemTotal": facts.memory,
            "GenericResources": None,
            "DockerRootDir": facts.root,
            "HttpProxy": "",
            "HttpsProxy": "",
            "NoProxy": "",
            "Name": facts.name,
            "Labels": list(facts.labels),
            "ExperimentalBuild": False,
            "ServerVersion": facts.agent_version,
            "Runtimes": {name: {"path": path} for name, path in facts.runtimes.items()},
            "DefaultRuntime": facts.runtime,
            "Swarm": _SWARM,
            "LiveRestoreEnabled": True,
            "Isolation": "",
            "InitBinary": "docker-init",
            "ContainerdCommit": {"ID": ""},
            "RuncCommit": commit,
            "InitCommit": {"ID": ""},
            "SecurityOptions": _security_options(facts.cgroup_version),
            "FirewallBackend": {"Driver": "nftables"},
            "CDISpecDirs": [],
            "Warnings": list(facts.warnings) or None,
        }
    )


def _security_options(cgroup_version: str) -> list[str]:
    options = ["name=seccomp,profile=builtin"]
    return [*options, "name=cgroupns"] if cgroup_version == "2" else options


_ABILITIES: Final = {
    "MemoryLimit": True,
    "SwapLimit": True,
    "CpuCfsPeriod": True,
    "CpuCfsQuota": True,
    "CPUShares": True,
    "CPUSet": True,
    "PidsLimit": True,
    "IPv4Forwarding": True,
    "OomKillDisable": False,
}
_SWARM: Final = {
    "NodeID": "",
    "NodeAddr": "",
    "LocalNodeState": "inactive",
    "ControlAvailable": False,
    "Error": "",
    "RemoteManagers": None,
}


def events(api: Api, call: Call) -> Answer:
    since = timestamp(call.query.get("since"), "since")
    until = timestamp(call.query.get("until"), "until")
    if since is not None and until is not None and until < since:
        raise invalid("`since` time cannot be after `until` time")
    predicate = event_predicate(parse(call.query.get("filters"), EVENT_KEYS))
    return Stream(EventStream(api.backend.subscribe(since, until, predicate)))


_DISK_KINDS: Final = frozenset({"container", "image", "volume", "build-cache"})


def disk_usage(api: Api, call: Call) -> Answer:
    """GET /system/df: what images, containers, volumes and the build cache take on disk."""
    wanted = set(call.query.all("type")) or _DISK_KINDS
    if unknown := wanted - _DISK_KINDS:
        raise invalid(f"unknown object type: {sorted(unknown)[0]}")
    containers, images = api.backend.containers.all(), api.backend.images.all()
    users = [one.image_id for one in containers]
    document: dict[str, object] = {}
    if "image" in wanted:
        space = api.backend.transfers.space()
        document["LayersSize"] = space.layers
        document["Images"] = [
            {
                **image_summary(one, call.version, users.count(one.id)),
                "SharedSize": space.shared.get(one.id, 0),
            }
            for one in images
        ]
    if "container" in wanted:
        names, ids, now = ImageNames.of(images), network_ids(api), api.now()
        document["Containers"] = [
            list_entry(
                one,
                names,
                ids,
                now,
                sizes=api.backend.containers.sizes(one.id),
                version=call.version,
            )
            for one in containers
        ]
    if "volume" in wanted:
        mounted = [
            mount.name for one in containers for mount in one.mounts if mount.type == "volume"
        ]
        document["Volumes"] = [
            {
                **volume_document(one),
                "UsageData": {
                    "RefCount": mounted.count(one.name),
                    "Size": api.backend.upkeep.volume_size(one),
                },
            }
            for one in api.backend.volumes.all()
            if not one.options  # somebody else's storage, as docker sees it
        ]
    if "build-cache" in wanted:
        document["BuildCache"] = []
    return json_reply(document)


def no_plugins(_api: Api, _call: Call) -> Answer:
    """Legacy plugins do not exist here: an empty list, as an engine without any says."""
    return json_reply([])


def no_such_plugin(_api: Api, call: Call) -> Answer:
    """`docker inspect NAME` asks for a plugin last: it must hear that there is none."""
    raise not_found(f'plugin "{call.name}" not found')
