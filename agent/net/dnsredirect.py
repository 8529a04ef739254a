"""127.0.0.11:53 in a container leads to our sockets there, which have ports of their own.

Were they bound to port 53 themselves, no container could be a name server (a wildcard bind fails).
One nftables table in the container's namespace, written by netlink: a libnftables context is bound to
the namespace it is made in, and a fresh one costs 18 ms; this costs 0.2.
"""

from __future__ import annotations

import errno
import struct
from ipaddress import IPv4Address
from typing import Final

from agent.net.netlink import (
    NETLINK_NETFILTER,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    NetlinkError,
    NetlinkSocket,
    attribute,
    nested,
    text,
)

ADDRESS: Final = IPv4Address("127.0.0.11")
PORT: Final = 53
_TABLE: Final = "machine_names"
_NFPROTO_IPV4, _SUBSYSTEM = 2, 10
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = 0, 2, 3, 6
_LOCAL_OUT, _DSTNAT = 3, -100
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_L4PROTO: Final = 16  # NFT_META_L4PROTO
_NLM_F_APPEND: Final = 0x800


def install(udp: int, tcp: int) -> None:
    """In the calling thread's network namespace; what an earlier agent left is replaced.  OSError."""
    made = _message(_NEWTABLE, text(1, _TABLE), "add table", NLM_F_CREATE | NLM_F_EXCL)
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        try:
            netlink.transact([made, *_contents(udp, tcp)], _SUBSYSTEM)
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise
        else:
            return
    # A transaction that deletes waits for the kernel's readers, 15 ms: only where it must be.
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        gone = _message(_DELTABLE, text(1, _TABLE), "delete table")
        netlink.transact([gone, made, *_contents(udp, tcp)], _SUBSYSTEM)


def _contents(udp: int, tcp: int) -> list[Message]:
    table = text(1, _TABLE)
    hook = nested(4, _number(1, _LOCAL_OUT), attribute(2, struct.pack(">i", _DSTNAT)))
    return [
        _message(
            _NEWCHAIN, table + text(3, "output") + hook + text(7, "nat"), "add chain", NLM_F_CREATE
        ),
        *(
            _message(
                _NEWRULE,
                table + text(2, "output") + nested(4, *_redirect(protocol, port)),
                "add rule",
                NLM_F_CREATE | _NLM_F_APPEND,
            )
            for protocol, port in ((17, udp), (6, tcp))
        ),
    ]


def _message(kind: int, body: bytes, operation: str, flags: int = 0) -> Message:
    header = struct.pack("=BBH", _NFPROTO_IPV4, 0, 0)
    return Message(_SUBSYSTEM << 8 | kind, flags, header + body, f"name server: {operation}")


def _redirect(protocol: int, port: int) -> list[bytes]:
    """ip daddr 127.0.0.11 meta l4proto P th dport 53 dnat to 127.0.0.11:PORT"""
    return [
        _payload(_NETWORK_HEADER, 16, 4),
        _equals(ADDRESS.packed),
        _expression("meta", _number(1, 1), _number(2, _L4PROTO)),
        _equals(bytes([protocol])),
        _payload(_TRANSPORT_HEADER, 2, 2),
        _equals(struct.pack(">H", PORT)),
        _immediate(1, ADDRESS.packed),
        _immediate(2, struct.pack(">H", port)),
        _expression(
            "nat",
            _number(1, 1),  # destination
            _number(2, _NFPROTO_IPV4),
            _number(3, 1),
            _number(4, 1),
            _number(5, 2),
            _number(6, 2),
        ),
    ]


def _number(kind: int, value: int) -> bytes:
    """nf_tables numbers are in network order."""
    return attribute(kind, struct.pack(">I", value))


def _expression(name: str, *parts: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *parts))


def _payload(base: int, offset: int, length: int) -> bytes:
    parts = (_number(1, 1), _number(2, base), _number(3, offset), _number(4, length))
    return _expression("payload", *parts)


def _equals(value: bytes) -> bytes:
    return _expression("cmp", _number(1, 1), _number(2, 0), nested(3, attribute(1, value)))


def _immediate(register: int, value: bytes) -> bytes:
    return _expression("immediate", _number(1, register), nested(2, attribute(1, value)))
