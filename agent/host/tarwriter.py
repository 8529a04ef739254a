"""Tar headers as Go's archive/tar writes them (PAX), for docker's copies and exports.  Pure.

ustar fields where a value fits, one PAX header before it for what does not: long or non-ASCII
names, ids beyond 21 bits, sizes from 8 GiB on, extended attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from agent.host.tarheader import BLOCK, BLOCK_DEVICE, CHAR, DIRECTORY, padded
from agent.values import frozen

END = bytes(2 * BLOCK)
_XATTR = b"SCHILY.xattr."


@frozen(slots=True)
class Member:
    """One member to be.  `name` without the slash that a directory gets; mtime in s."""

    name: bytes
    kind: int  # one of agent.host.tarheader's
    mode: int
    uid: int
    gid: int
    size: int = 0
    mtime: int = 0
    link: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)


def header(member: Member) -> bytes:
    """The header block, with a PAX header before it when one is needed."""
    name = member.name
    if member.kind == DIRECTORY and not name.endswith(b"/"):
        name += b"/"
    records: list[tuple[bytes, bytes]] = []
    if len(name) > 100 or not name.isascii():
        records.append((b"path", name))
    if len(member.link) > 100 or not member.link.isascii():
        records.append((b"linkpath", member.link))
    numbers = (
        (b"uid", member.uid, 1 << 21),
        (b"gid", member.gid, 1 << 21),
        (b"size", member.size, 1 << 33),
        (b"mtime", member.mtime, 1 << 33),
    )
    for key, value, limit in numbers:
        if not 0 <= value < limit:
            records.append((key, str(value).encode("ascii")))
    records.extend((_XATTR + key, value) for key, value in member.xattrs.items())
    block = _block(member, name)
    return _pax(name, records) + block if records else block


def padding(size: int) -> bytes:
    """What follows a body of `size` bytes up to the next block."""
    return bytes(padded(size) - size)


def _pax(name: bytes, records: list[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(_record(key, value) for key, value in sorted(records))
    folder, _, last = name.rstrip(b"/").rpartition(b"/")
    shown = (folder + b"/PaxHeaders.0/" + last).decode("ascii", "replace").replace("\ufffd", "_")
    extended = Member(shown.encode("ascii")[:100], 0x78, 0, 0, 0, len(body))
    return _block(extended, extended.name) + body + padding(len(body))


def _record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    size = len(rest)
    while len(str(size)) + len(rest) != size:
        size = len(str(size)) + len(rest)
    return str(size).encode("ascii") + rest


def _octal(value: int, digits: int) -> bytes:
    """Zero when it does not fit: then a PAX record has it."""
    if not 0 <= value < 1 << (3 * digits):
        value = 0
    return b"%0*o\0" % (digits, value)


def _block(member: Member, name: bytes) -> bytes:
    devices = member.kind in (CHAR, BLOCK_DEVICE)
    front = b"".join(
        (
            name[:100].ljust(100, b"\0"),
            _octal(member.mode & 0o7777, 7),
            _octal(member.uid, 7),
            _octal(member.gid, 7),
            _octal(member.size, 11),
            _octal(member.mtime, 11),
        )
    )
    back = b"".join(
        (
            bytes((member.kind,)),
            member.link[:100].ljust(100, b"\0"),
            b"ustar\x0000",
            bytes(64),
            _octal(member.major if devices else 0, 7),
            _octal(member.minor if devices else 0, 7),
            bytes(167),
        )
    )
    total = sum(front) + sum(back) + 8 * 0x20
    return front + b"%06o\0 " % total + back
