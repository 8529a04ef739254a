"""The part of DNS that the embedded name server speaks: RFC 1035 queries, A, AAAA and PTR answers.

No I/O.  Everything that is not answered from our own names travels as opaque bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from agent.values import frozen

A, PTR, AAAA, OPT = 1, 12, 28, 41
IN: Final = 1
OK, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5
TTL: Final = 600  # seconds, docker's
LEAST: Final = 512  # bytes that every UDP client takes
MOST: Final = 4096
_HEADER = struct.Struct(">HHHHHH")
_QUESTION = struct.Struct(">HH")
_RECORD = struct.Struct(">HHIH")  # type, class, ttl, rdata's length
_QR, _TC, _RD, _RA = 0x8000, 0x0200, 0x0100, 0x0080
_OPCODE: Final = 0x7800
_NAME_AT_12: Final = b"\xc0\x0c"


class NotAQueryError(ValueError):
    """Not to be answered at all: too short, or itself an answer."""


class BadQueryError(ValueError):
    """To be answered with `rcode`."""

    def __init__(self, rcode: int) -> None:
        super().__init__(f"rcode {rcode}")
        self.rcode = rcode


@frozen
class Query:
    """One question.  `end`: where it ends in the message; `size`: what the client takes by UDP;
    `edns`: it said so itself."""

    id: int
    flags: int
    name: str  # as sent, labels joined by dots, without the last dot
    type: int
    klass: int
    end: int
    size: int = LEAST
    edns: bool = False


def parse(data: bytes) -> Query:
    """Raises NotAQueryError, BadQueryError."""
    if len(data) < _HEADER.size:
        raise NotAQueryError("too short")
    identity, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
    if flags & _QR:
        raise NotAQueryError("an answer")
    if flags & _OPCODE:
        raise BadQueryError(NOTIMP)
    if questions != 1 or answers or authorities:
        raise BadQueryError(FORMERR)
    name, offset = _name(data, _HEADER.size)
    if offset + _QUESTION.size > len(data):
        raise BadQueryError(FORMERR)
    kind, klass = _QUESTION.unpack_from(data, offset)
    end = offset + _QUESTION.size
    size, edns = _edns(data, end) if additional else (LEAST, False)
    return Query(identity, flags, name, kind, klass, end, size, edns)


def _name(data: bytes, offset: int) -> tuple[str, int]:
    """A question's name; a pointer has nothing there that it could point to (compression loops)."""
    labels: list[str] = []
    total = 0
    while True:
        if offset >= len(data):
            raise BadQueryError(FORMERR)
        length = data[offset]
        offset += 1
        if length == 0:
            return ".".join(labels), offset
        total += length + 1
        if length > 63 or total > 254 or offset + length > len(data):
            raise BadQueryError(FORMERR)
        # Whatever bytes they are; a dot within a label is no separator.
        label = data[offset : offset + length].decode("ascii", "backslashreplace")
        labels.append(label.replace(".", "\\."))
        offset += length


def _edns(data: bytes, offset: int) -> tuple[int, bool]:
    """The first additional record, where clients put it (RFC 6891)."""
    if len(data) < offset + 1 + _RECORD.size or data[offset] != 0:
        return LEAST, False
    kind, size, _, _ = _RECORD.unpack_from(data, offset + 1)
    return (min(max(size, LEAST), MOST), True) if kind == OPT else (LEAST, False)


def pointed(name: str) -> IPv4Address | IPv6Address | None:
    """The address of "4.3.2.1.in-addr.arpa" or "...ip6.arpa"; None for other names."""
    words = name.lower().split(".")
    try:
        if words[-2:] == ["in-addr", "arpa"] and len(words) == 6:
            return IPv4Address(".".join(reversed(words[:4])))
        if words[-2:] == ["ip6", "arpa"] and len(words) == 34:
            return IPv6Address(int("".join(reversed(words[:32])), 16))
    except ValueError:
        return None
    return None


def answer(
    query: Query,
    data: bytes,
    rcode: int = OK,
    records: Sequence[bytes] = (),
    *,
    limit: int | None = None,
) -> bytes:
    """The reply to `data`.  `records` are rdata of the question's type; what is beyond `limit` bytes
    (None = by TCP) is left out, with the bit that says so."""
    question = data[_HEADER.size : query.end]
    tail = b"\0" + _RECORD.pack(OPT, MOST, 0, 0) if query.edns else b""
    left = 65535 if limit is None else limit
    left -= _HEADER.size + len(question) + len(tail)
    parts: list[bytes] = []
    for one in records:
        record = _NAME_AT_12 + _RECORD.pack(query.type, IN, TTL, len(one)) + one
        if len(record) > left:
            break
        left -= len(record)
        parts.append(record)
    cut = _TC if len(parts) < len(records) else 0
    flags = _QR | _RA | (query.flags & _RD) | cut | rcode
    counts = (1, len(parts), 0, 1 if tail else 0)
    return _HEADER.pack(query.id, flags, *counts) + question + b"".join(parts) + tail


def refusal(data: bytes, rcode: int) -> bytes:
    """The reply to what could not be parsed: its header only."""
    identity, flags = struct.unpack_from(">HH", data)
    opcode = flags & _OPCODE
    return _HEADER.pack(identity, _QR | _RA | opcode | (flags & _RD) | rcode, 0, 0, 0, 0)


def rdata(name: str) -> bytes:
    """A domain name as rdata (PTR).  Raises ValueError for what is none."""
    parts = []
    for label in name.rstrip(".").split("."):
        raw = label.encode("idna" if not label.isascii() else "ascii")
        if not 0 < len(raw) < 64:
            raise ValueError(f"not a domain name: {name!r}")
        parts.append(bytes([len(raw)]) + raw)
    return b"".join(parts) + b"\0"


def answers_to(data: bytes, identity: int) -> bool:
    """Whether that is an answer with this id."""
    return (
        len(data) >= _HEADER.size
        and data[2] & 0x80 != 0
        and data[:2] == struct.pack(">H", identity)
    )
