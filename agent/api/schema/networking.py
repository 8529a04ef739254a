"""A container's networks and ports, as inspect and list show them; networks themselves."""

from __future__ import annotations

from collections.abc import Iterable

from agent.api.schema.fields import Document
from agent.api.schema.ports import port_key
from agent.api.schema.times import rfc3339
from agent.api.version import Version
from agent.engine.joining import wanted
from agent.engine.model import Container, Endpoint, EndpointRequest, IpamPool, Phase
from agent.engine.ports import NetworkInfo

DNS_NAMES_SINCE: Version = (1, 44)
GW_PRIORITY_SINCE: Version = (1, 48)
SHORT_ID_ALIAS_UNTIL: Version = (1, 45)

LIVE_PHASES = frozenset({Phase.RUNNING, Phase.PAUSED, Phase.RESTARTING})


def network_of(container: Container) -> str:
    """The name under which the container's network is shown; "" for another container's."""
    mode = container.host_config.network_mode
    if mode.startswith("container:"):
        return ""
    return "bridge" if mode in {"", "default"} else mode


def live_endpoints(container: Container) -> tuple[Endpoint, ...]:
    return container.state.endpoints if container.state.phase in LIVE_PHASES else ()


def networks_of(container: Container) -> dict[str, EndpointRequest | None]:
    """Every network under which the container is shown, with what was asked for there."""
    found: dict[str, EndpointRequest | None] = {}
    for endpoint in live_endpoints(container):
        found[endpoint.network] = None
    for request in wanted(container):
        found[request.network] = request
    name = network_of(container)
    if name in {"host", "none"} and not found:
        found[name] = None
    return dict(sorted(found.items()))


def networks_document(container: Container, ids: dict[str, str], version: Version) -> Document:
    """NetworkSettings.Networks: live endpoints, else the empty one that a start would fill."""
    endpoints = {one.network: one for one in live_endpoints(container)}
    live = container.state.phase in LIVE_PHASES
    found: Document = {}
    for name, request in networks_of(container).items():
        network_id = ids.get(name, "") if live or container.state.started_at else ""
        endpoint = endpoints.get(name) or Endpoint(name, network_id, "", "", "", 0, "")
        found[name] = _endpoint(endpoint, request, container, version)
    return found


def _endpoint(
    one: Endpoint, asked: EndpointRequest | None, container: Container, version: Version
) -> Document:
    request = asked or EndpointRequest(one.network)
    aliases = list(request.aliases)
    if version < SHORT_ID_ALIAS_UNTIL and one.dns_names and container.id[:12] not in aliases:
        aliases.append(container.id[:12])
    ipam = {"IPv4Address": request.address, "IPv6Address": request.address6}
    document: Document = {
        "IPAMConfig": {key: value for key, value in ipam.items() if value} or None,
        "Links": list(request.links) or None,
        "Aliases": aliases or None,
        "MacAddress": one.mac,
        "DriverOpts": dict(request.driver_options) or None,
        "GwPriority": request.gw_priority,
        "NetworkID": one.network_id,
        "EndpointID": one.endpoint_id,
        "Gateway": one.gateway,
        "IPAddress": one.address,
        "IPPrefixLen": one.prefix,
        "IPv6Gateway": one.gateway6,
        "GlobalIPv6Address": one.address6,
        "GlobalIPv6PrefixLen": one.prefix6,
        "DNSNames": list(one.dns_names) or None,
    }
    if version < GW_PRIORITY_SINCE:
        del document["GwPriority"]
    if version < DNS_NAMES_SINCE:
        del document["DNSNames"]
    return document


def settings_document(container: Container, ids: dict[str, str], version: Version) -> Document:
    """NetworkSettings of inspect."""
    # The older fields are those of the default bridge alone, as docker's.
    nothing = Endpoint("", "", "", "", "", 0, "")
    first = next((one for one in live_endpoints(container) if one.network == "bridge"), nothing)
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
        "GlobalIPv6Address": first.address6,
        "GlobalIPv6PrefixLen": first.prefix6,
        "IPAddress": first.address,
        "IPPrefixLen": first.prefix,
        "IPv6Gateway": first.gateway6,
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
    pools = network.pools
    if not pools and network.subnet:
        pools = (IpamPool(network.subnet, gateway=network.gateway),)
    attached: Document = {}
    for container in containers:
        for one in live_endpoints(container):
            if one.network_id == network.id:
                attached[container.id] = {
                    "Name": container.name,
                    "EndpointID": one.endpoint_id,
                    "MacAddress": one.mac,
                    "IPv4Address": f"{one.address}/{one.prefix}" if one.address else "",
                    "IPv6Address": f"{one.address6}/{one.prefix6}" if one.address6 else "",
                }
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": rfc3339(network.created),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": network.enable_ipv4,
        "EnableIPv6": network.enable_ipv6,
        "IPAM": {
            "Driver": network.ipam_driver,
            "Options": None if network.builtin else dict(network.ipam_options or {}),
            "Config": [_pool(one) for one in pools] or None,
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": attached,
        "Options": dict(network.options),
        "Labels": dict(network.labels),
    }


def _pool(pool: IpamPool) -> Document:
    document: Document = {
        "Subnet": pool.subnet,
        "IPRange": pool.ip_range,
        "Gateway": pool.gateway,
        "AuxiliaryAddresses": dict(pool.aux_addresses),
    }
    return {key: value for key, value in document.items() if value}
