"""Names and addresses of kernel objects, derived from ids, so that an orphan is recognisable.  Pure."""

from __future__ import annotations

import re
from ipaddress import IPv4Address

_ID = re.compile(r"[0-9a-f]{12,64}")
_INTERFACE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,14}")
_TABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,30}")
_MAC = re.compile(r"(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}")
_VETH = re.compile(r"veth[0-9a-f]{11}")


def veth_name(endpoint_id: str) -> str:
    """The host side's name: "veth" and 11 digits of the id fill IFNAMSIZ (15).

    docker uses 7 digits; with 11, ten thousand live ones collide once in 350,000 hosts.
    Raises ValueError for what is not an endpoint id.
    """
    if not _ID.fullmatch(endpoint_id):
        raise ValueError(f"not an endpoint id: {endpoint_id!r}")
    return f"veth{endpoint_id[:11]}"


def is_veth_name(name: str) -> bool:
    return _VETH.fullmatch(name) is not None


def mac_of(address: IPv4Address) -> str:
    """docker's MAC for an address: 02:42 and its four bytes."""
    return (b"\x02\x42" + address.packed).hex(":")


def mac_from(identity: str) -> str:
    """A MAC for what has no IPv4 address: 02:42 and four bytes of its id."""
    return (b"\x02\x42" + bytes.fromhex(identity[:8])).hex(":")


def checked_mac(text: str) -> str:
    """In its canonical spelling; ValueError for anything else, and for group addresses."""
    if not _MAC.fullmatch(text):
        raise ValueError(f"invalid MAC address: {text!r}")
    found = text.lower().replace("-", ":")
    if int(found[:2], 16) & 1:
        raise ValueError(f"not the MAC address of one interface: {text!r}")
    return found


def checked_interface(name: str) -> str:
    """A name that may stand in rule text and /proc paths; ValueError otherwise (case 114)."""
    if not _INTERFACE.fullmatch(name):
        raise ValueError(f"not an interface name: {name!r}")
    return name


def checked_table(name: str) -> str:
    """A name that may stand in rule text; ValueError otherwise (case 114)."""
    if not _TABLE.fullmatch(name):
        raise ValueError(f"not an nftables table name: {name!r}")
    return name
