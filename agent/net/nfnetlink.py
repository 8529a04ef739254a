"""What we ask of netfilter by netlink itself: rule set generations, change events, stale flows."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address

from agent.net.netlink import (
    NETLINK_NETFILTER,
    Message,
    NetlinkSocket,
    attributes,
    nested,
)
from agent.values import frozen

_CTNETLINK, _NFTABLES = 1 << 8, 10 << 8
_CT_GET, _CT_DELETE = _CTNETLINK | 1, _CTNETLINK | 2
_NEWGEN, _GETGEN = _NFTABLES | 15, _NFTABLES | 16
_NEWRULE, _DELRULE = _NFTABLES | 6, _NFTABLES | 8
NFNLGRP_NFTABLES = 7
_GENMSG = struct.Struct("=BBH")
_NFTA_TABLE = 1  # the table's name has number 1 in every kind of nf_tables message
_NFTA_RULE_CHAIN = 2
_NFTA_GEN_ID = 1
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY = 1, 2
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_V4_SRC = 1
_CTA_PROTO_NUM, _CTA_PROTO_DST_PORT = 1, 3


@frozen
class RulesChanged:
    """One nf_tables event: of which table and, for rules, which chain.  `generation` only for the
    event that ends a transaction; `table` is empty then."""

    table: str
    chain: str = ""
    generation: int | None = None


def generation(netfilter: NetlinkSocket) -> int:
    """The number of the rule set's last committed transaction (10 us)."""
    request = Message(_GETGEN, 0, _GENMSG.pack(socket.AF_UNSPEC, 0, 0), "get ruleset generation")
    for reply in netfilter.apply([request]):
        if reply.type == _NEWGEN:
            return _generation(reply.body)
    raise OSError(errno.EPROTO, "no ruleset generation in the kernel's answer")


def decode_event(kind: int, body: bytes) -> RulesChanged | None:
    """An event of NFNLGRP_NFTABLES; None for other subsystems' messages."""
    if kind & 0xFF00 != _NFTABLES:
        return None
    if kind == _NEWGEN:
        return RulesChanged("", generation=_generation(body))
    found = attributes(body[_GENMSG.size :])
    chain = found.get(_NFTA_RULE_CHAIN, b"") if kind in (_NEWRULE, _DELRULE) else b""
    return RulesChanged(_string(found.get(_NFTA_TABLE, b"")), _string(chain))


def _generation(body: bytes) -> int:
    return int.from_bytes(attributes(body[_GENMSG.size :]).get(_NFTA_GEN_ID, b""), "big")


def _string(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("utf-8", "backslashreplace")


@frozen
class Flow:
    """A conntrack entry: protocol number, the port first sent to, and who answers."""

    protocol: int
    destination_port: int
    answering: IPv4Address


def forget_flows(stale: Callable[[Flow], bool]) -> int:
    """Drop the IPv4 conntrack entries that `stale` picks; returns their number.

    UDP senders that keep their port would otherwise follow the rules of yesterday: an entry made
    before a port was published never meets the DNAT map.  Raises OSError.
    """
    family = _GENMSG.pack(socket.AF_INET, 0, 0)
    with NetlinkSocket(NETLINK_NETFILTER) as netfilter:
        doomed: list[Message] = []
        for reply in netfilter.dump(Message(_CT_GET, 0, family, "list flows")):
            found = attributes(reply.body[_GENMSG.size :])
            original = found.get(_CTA_TUPLE_ORIG, b"")
            flow = _flow(original, found.get(_CTA_TUPLE_REPLY, b""))
            if flow is not None and stale(flow):
                body = family + nested(_CTA_TUPLE_ORIG, original)
                doomed.append(
                    Message(_CT_DELETE, 0, body, "forget flow", settled_by=(errno.ENOENT,))
                )
        for start in range(0, len(doomed), 64):
            netfilter.apply(doomed[start : start + 64])
    return len(doomed)


def _flow(original: bytes, reply: bytes) -> Flow | None:
    protocol = attributes(attributes(original).get(_CTA_TUPLE_PROTO, b""))
    answering = attributes(attributes(reply).get(_CTA_TUPLE_IP, b"")).get(_CTA_IP_V4_SRC)
    if answering is None or _CTA_PROTO_NUM not in protocol:
        return None
    port = int.from_bytes(protocol.get(_CTA_PROTO_DST_PORT, b""), "big")
    return Flow(protocol[_CTA_PROTO_NUM][0], port, IPv4Address(answering))
