"""Shapes and rules of networks and firewalls."""

import ipaddress
import re
import uuid

from tests.support.dolab.catalogue import Doc
from tests.support.dolab.refusals import wrong

_PORTS = re.compile(r"all|[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})?")


def card(address: str, kind: str) -> Doc:
    return {
        "ip_address": address,
        "netmask": "255.255.240.0",
        "gateway": "203.0.113.1",
        "type": kind,
    }


def vpc(region: str) -> Doc:
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_DNS, region)),
        "urn": f"do:vpc:{region}",
        "name": f"default-{region}",
        "description": "",
        "region": region,
        "ip_range": "10.108.0.0/20",
        "created_at": "2026-01-01T00:00:00Z",
        "default": True,
    }


def check_rule(rule: Doc) -> None:
    addresses = (rule.get("sources") or rule.get("destinations") or {}).get("addresses") or []
    if rule.get("protocol") not in {"tcp", "udp", "icmp"}:
        raise wrong("invalid protocol")
    if rule["protocol"] == "icmp" and "ports" in rule:
        raise wrong("You must specify a positive value for ports.")
    if rule["protocol"] != "icmp" and not _PORTS.fullmatch(str(rule.get("ports") or "")):
        raise wrong("You must specify a positive value for ports.")
    try:
        for one in addresses:
            ipaddress.ip_network(one)
    except ValueError:
        raise wrong("invalid address") from None
    if not addresses:
        raise wrong("invalid address")


def spans(ports: str, port: int) -> bool:
    if ports == "all":
        return True
    first, _, last = ports.partition("-")
    return int(first) <= port <= int(last or first)
