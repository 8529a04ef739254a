"""Bodies of the /networks requests, and a container's endpoint settings."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final, cast

from agent.api.schema.fields import (
    Document,
    Field,
    Table,
    anything,
    array_of,
    boolean,
    built,
    integer,
    map_of,
    text,
    text_map,
    texts,
    unserved,
)
from agent.engine.hostsfile import is_hostname
from agent.engine.model import EndpointRequest, HostConfig, IpamPool, NetworkSpec
from agent.errors import EngineError, Kind, invalid
from agent.wire.http import printable

IPAM_CONFIG: Final = Table(
    "EndpointIPAMConfig",
    (
        Field("IPv4Address", text, "address"),
        Field("IPv6Address", text, "address6"),
        unserved("LinkLocalIPs"),
    ),
)
# Observed fields (Gateway, IPAddress, ...) are ignored in a request, as Docker Engine does.
ENDPOINT: Final = Table(
    "EndpointSettings",
    (
        Field("IPAMConfig", anything, "ipam"),
        Field("Links", texts, "links"),
        Field("MacAddress", text, "mac"),
        Field("Aliases", texts, "aliases"),
        Field("DriverOpts", text_map, "driver_options"),
        Field("GwPriority", integer, "gw_priority"),
        Field("NetworkID", anything),
        Field("EndpointID", anything),
        Field("Gateway", anything),
        Field("IPAddress", anything),
        Field("IPPrefixLen", anything),
        Field("IPv6Gateway", anything),
        Field("GlobalIPv6Address", anything),
        Field("GlobalIPv6PrefixLen", anything),
        Field("DNSNames", anything),
    ),
)
NETWORKING_CONFIG: Final = Table(
    "NetworkingConfig", (Field("EndpointsConfig", map_of(anything), "endpoints"),)
)
POOL: Final = Table(
    "IPAMConfig",
    (
        Field("Subnet", text, "subnet"),
        Field("IPRange", text, "ip_range"),
        Field("Gateway", text, "gateway"),
        Field("AuxiliaryAddresses", text_map, "aux_addresses"),
    ),
)


def _pool(value: object, where: str) -> IpamPool:
    return built(IpamPool, POOL.decode(value, where))


IPAM: Final = Table(
    "IPAM",
    (
        Field("Driver", text, "ipam_driver"),
        Field("Config", array_of(_pool), "pools"),
        Field("Options", text_map, "ipam_options"),
    ),
)
NETWORK_CREATE: Final = Table(
    "NetworkCreateRequest",
    (
        Field("Name", text, "name"),
        Field("CheckDuplicate", boolean),  # always checked
        Field("Driver", text, "driver"),
        Field("Scope", text, "scope"),
        Field("Internal", boolean, "internal"),
        Field("Attachable", boolean, "attachable"),
        unserved("Ingress"),
        unserved("ConfigOnly"),
        unserved("ConfigFrom"),
        Field("IPAM", anything, "ipam"),
        Field("EnableIPv4", boolean, "enable_ipv4"),
        Field("EnableIPv6", boolean, "enable_ipv6"),
        Field("Options", text_map, "options"),
        Field("Labels", text_map, "labels"),
    ),
)
CONNECT: Final = Table(
    "NetworkConnectRequest",
    (Field("Container", text, "container"), Field("EndpointConfig", anything, "endpoint")),
)
DISCONNECT: Final = Table(
    "NetworkDisconnectRequest",
    (Field("Container", text, "container"), Field("Force", boolean, "force")),
)
_ENDPOINT_OPTIONS: Final = frozenset({"com.docker.network.endpoint.ifname"})


def network_spec(document: object) -> NetworkSpec:
    """Raises EngineError: INVALID (names the field), UNAVAILABLE (swarm)."""
    decoded = NETWORK_CREATE.decode({} if document is None else document)
    ipam = IPAM.decode(decoded.pop("ipam", {}), "NetworkCreateRequest.IPAM")
    scope = decoded.pop("scope", "")
    if scope not in {"", "local"}:
        raise EngineError(
            Kind.UNAVAILABLE,
            f"networks of scope {printable(str(scope))} need a swarm: this node is not a swarm manager",
        )
    decoded["driver"] = decoded.get("driver") or "bridge"
    ipam["ipam_driver"] = ipam.get("ipam_driver") or "default"
    name = str(decoded.setdefault("name", ""))
    if not name.strip():
        raise invalid("invalid network name: name is empty")
    return built(NetworkSpec, {**decoded, **ipam})


def endpoint_request(network: str, value: object, where: str) -> EndpointRequest:
    """One EndpointSettings.  Raises EngineError: INVALID (names the field)."""
    if value is None:
        return EndpointRequest(network)
    decoded = ENDPOINT.decode(value, where)
    ipam = IPAM_CONFIG.decode(decoded.pop("ipam", {}), f"{where}.IPAMConfig")
    for name, version in (("address", 4), ("address6", 6)):
        given = str(ipam.get(name, ""))
        if given and not _is_address(given, version):
            raise invalid(f"invalid IPv{version} address: {printable(given)}")
    for alias in cast("tuple[str, ...]", decoded.get("aliases", ())):
        if not is_hostname(alias):
            raise invalid(f"invalid network alias: {printable(alias)}")
    for link in cast("tuple[str, ...]", decoded.get("links", ())):
        target, _, alias = link.partition(":")
        if not is_hostname(target) or (alias and not is_hostname(alias)):
            raise invalid(f"bad format for links: {printable(link)}")
    options = cast("dict[str, str]", decoded.get("driver_options", {}))
    for option in options:
        if option not in _ENDPOINT_OPTIONS:
            raise EngineError(
                Kind.INVALID,
                f"{where}.DriverOpts {printable(option)} is not served by this engine yet",
            )
    return built(EndpointRequest, {"network": network, **decoded, **ipam})


def networks_of_create(value: object, host: HostConfig, mac: str) -> tuple[EndpointRequest, ...]:
    """NetworkingConfig, and the older MacAddress, which is that of the mode's network."""
    decoded = NETWORKING_CONFIG.decode(value)
    endpoints = cast("Document", decoded.get("endpoints", {}))
    found = [
        endpoint_request(name, settings, f"NetworkingConfig.EndpointsConfig.{name}")
        for name, settings in endpoints.items()
    ]
    if mac and host.network_mode not in {"host", "none"}:
        mode = "bridge" if host.network_mode in {"", "default"} else host.network_mode
        known = next((one for one in found if one.network in {mode, "default"}), None)
        if known is not None and known.mac not in {"", mac}:
            raise invalid(
                "the container-wide MAC address must match the endpoint-specific MAC address for "
                "the main network, or should be left empty"
            )
        settings = endpoints.get(known.network) if known else None
        document = {**cast("Document", settings or {}), "MacAddress": mac}
        name = known.network if known else mode
        merged = endpoint_request(name, document, f"NetworkingConfig.EndpointsConfig.{name}")
        found = [merged if one is known else one for one in found] if known else [merged, *found]
    return tuple(found)


def _is_address(given: str, version: int) -> bool:
    try:
        return ip_address(given).version == version
    except ValueError:
        return False
