"""A container's networks and ports, as inspect and list show them; networks themselves."""

from __future__ import annotations

from collections.abc import Iterable

from agent.api.schema.fields import Document
from agent.api.schema.ports import port_key
from agent.api.schema.times import rfc3339
from agent.api.version import Version
from agent.engine.model import Container, Endpoint, Phase
from agent.engine.ports import NetworkInfo

DNS_NAMES_SINCE: Version = (1, 44)
GW_PRIORITY_SINCE: Version = (1, 48)

LIVE_PHASES = frozenset({Phase.RUNNING, Phase.PAUSED, Phase.RESTARTING})


def network_of(container: Container) -> str:
    """The name under which the container's network is shown; "" for another container's."""
    mode = container.host_config.network_mode
    if mode.startswith("container:"):
        return ""
    return "bridge" if mode in {"", "default"} else mode


def live_endpoints(container: Container) -> tuple[Endpoint, ...]:
    return container.state.endpoints if container.state.phase in LIVE_PHASES else ()


def networks_document(container: Container, ids: dict[str, str], version: Version) -> Document:
    """NetworkSettings.Networks: live endpoints, else the empty one that a start would fill."""
    endpoints = live_endpoints(container)
    if endpoints:
        return {one.network: _endpoint(one, version) for one in endpoints}
    name = network_of(container)
    if not name:
        return {}
    live = container.state.phase in LIVE_PHASES
    network_id = ids.get(name, "") if live or container.state.started_at else ""
    return {name: _endpoint(Endpoint(name, network_id, "", "", "", 0, ""), version)}


def _endpoint(one: Endpoint, version: Version) -> Document:
    document: Document = {
        "IPAMConfig": None,
        "Links": None,
        "Aliases": None,
        "MacAddress": one.mac,
        "DriverOpts": None,
        "GwPriority": 0,
        "NetworkID": one.network_id,
        "EndpointID": one.endpoint_id,
        "Gateway": one.gateway,
        "IPAddress": one.address,
        "IPPrefixLen": one.prefix,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None,
    }
    if version < GW_PRIORITY_SINCE:
        del document["GwPriority"]
    if version < DNS_NAMES_SINCE:
        del document["DNSNames"]
    return document


def settings_document(container: Container, ids: dict[str, str], version: Version) -> Document:
    """NetworkSettings of inspect."""
    endpoints = live_endpoints(container)
    first = endpoints[0] if endpoints else Endpoint("", "", "", "", "", 0, "")
    pid = container.state.pid if container.state.phase in LIVE_PHASES else 0
    return {
        "Bridge": "",
        "SandboxID": container.id if pid else "",
        "SandboxKey": f"/proc/{pid}/ns/net" if pid else "",
        "Ports": port_map(container),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": first.endpoint_id,
        "Gateway": first.gateway,
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": first.address,
        "IPPrefixLen": first.prefix,
        "IPv6Gateway": "",
        "MacAddress": first.mac,
        "Networks": networks_document(container, ids, version),
    }


def _exposed(container: Container) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for key in container.config.exposed_ports:
        first, last, protocol = port_key(key)
        found += [(number, protocol) for number in range(first, last + 1)]
    return found


def port_map(container: Container) -> Document:
    """NetworkSettings.Ports: published ones with where they are bound, exposed ones null."""
    endpoints = live_endpoints(container)
    if not endpoints:
        return {}
    ports: dict[str, object] = {f"{port}/{proto}": None for port, proto in _exposed(container)}
    for endpoint in endpoints:
        for one in endpoint.ports:
            key = f"{one.container_port}/{one.protocol}"
            bound = {"HostIp": one.host_ip, "HostPort": str(one.host_port)}
            known = ports.get(key)
            ports[key] = [*known, bound] if isinstance(known, list) else [bound]
    return dict(sorted(ports.items()))


def port_list(container: Container) -> list[Document]:
    """Ports of a list entry."""
    endpoints = live_endpoints(container)
    published = [port for endpoint in endpoints for port in endpoint.ports]
    bound = {(one.container_port, one.protocol) for one in published}
    found: list[Document] = [
        {
            "IP": one.host_ip,
            "PrivatePort": one.container_port,
            "PublicPort": one.host_port,
            "Type": one.protocol,
        }
        for one in published
    ]
    if endpoints:
        found += [
            {"PrivatePort": port, "Type": protocol}
            for port, protocol in _exposed(container)
            if (port, protocol) not in bound
        ]
    return found


def network_document(network: NetworkInfo, containers: Iterable[Container]) -> Document:
    """One network; `containers` are those to show in it (none in a list)."""
    config = {"Subnet": network.subnet, "Gateway": network.gateway}
    attached: Document = {}
    for container in containers:
        for one in live_endpoints(container):
            if one.network == network.name:
                attached[container.id] = {
                    "Name": container.name,
                    "EndpointID": one.endpoint_id,
                    "MacAddress": one.mac,
                    "IPv4Address": f"{one.address}/{one.prefix}" if one.address else "",
                    "IPv6Address": "",
                }
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": rfc3339(network.created),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [{k: v for k, v in config.items() if v}] if network.subnet else None,
        },
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": attached,
        "Options": dict(network.options),
        "Labels": {},
    }
