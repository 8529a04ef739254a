"""Netlink messages and sockets: attributes, batches with one send, dumps (RFC 3549, linux/netlink.h).

A batch is one sendmsg: the kernel works through all of its messages before the call returns, so a
batch costs one system call plus one read of its acknowledgements.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from agent.values import frozen

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

NLM_F_REQUEST = 0x001
NLM_F_ACK = 0x004
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_REPLACE = 0x100
NLM_F_DUMP = 0x300

NLMSG_ERROR = 2
_NFNL_BATCH_BEGIN, _NFNL_BATCH_END = 0x10, 0x11
NLMSG_DONE = 3
NLM_F_DUMP_INTR = 0x10
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200

NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF

_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NLMSGERR_ATTR_MSG = 1
_SO_RCVBUFFORCE = 33

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_RECEIVE = 1 << 18


class NetlinkError(OSError):
    """The kernel refused a request.  `errno` is the kernel's, `operation` says what was asked."""

    def __init__(self, code: int, operation: str, detail: str = "") -> None:
        text = os.strerror(code)
        super().__init__(code, f"{operation}: {detail or text}")
        self.operation = operation


@frozen
class Message:
    """One request: netlink type, flags beyond REQUEST and ACK, body, and its name for errors."""

    type: int
    flags: int
    body: bytes
    operation: str
    # An errno that means "already so" for this request, e.g. EEXIST for an address.
    settled_by: tuple[int, ...] = ()


@frozen
class Reply:
    """One message from the kernel."""

    type: int
    port: int
    body: bytes


def attribute(kind: int, payload: bytes = b"") -> bytes:
    """One attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def nested(kind: int, *children: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(children))


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated string attribute."""
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """An unsigned 32-bit attribute in host order."""
    return attribute(kind, struct.pack("=I", value))


def attributes(data: bytes) -> dict[int, bytes]:
    """Decode a run of attributes; the last of a kind wins.  What is cut short is left out."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > len(data):
            break
        found[kind & _NLA_TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def messages(data: bytes) -> Iterator[tuple[int, int, int, int, bytes]]:
    """(type, flags, sequence, port, body) of each message in one datagram."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, port = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            break
        yield kind, flags, sequence, port, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


class NetlinkSocket:
    """One netlink socket of the network namespace in which it was opened.

    Not for use by two threads at once: sockets are cheap (15 us), open one per task.
    """

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._sequence = 0
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
            with contextlib.suppress(OSError):  # before Linux 4.12: errors come without words
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.bind((0, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def enlarge(self, size: int) -> None:
        """Make the receive buffer that large, past the system's limit where we may."""
        with contextlib.suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)

    def join(self, group: int) -> None:
        """Receive the messages of a multicast group."""
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    def apply(self, requests: Sequence[Message]) -> list[Reply]:
        """Send all at once; return what came back besides acknowledgements.

        The kernel goes on after a failing message; the first failure is raised as NetlinkError
        when all have been answered.
        """
        if not requests:
            return []  # the kernel has no word for an empty datagram but ENODATA
        first = self._sequence + 1
        self._sequence += len(requests)
        self._socket.sendall(
            b"".join(
                self._packed(request, NLM_F_REQUEST | NLM_F_ACK, first + i)
                for i, request in enumerate(requests)
            )
        )
        waiting = dict(enumerate(requests, first))
        replies: list[Reply] = []
        failure: NetlinkError | None = None
        while waiting:
            for kind, flags, sequence, port, body in messages(self._socket.recv(_RECEIVE)):
                if sequence not in waiting:
                    continue
                if kind != NLMSG_ERROR:
                    replies.append(Reply(kind, port, body))
                    continue
                error = _failure(waiting.pop(sequence), flags, body)
                failure = failure or error
        if failure is not None:
            raise failure
        return replies

    def transact(self, requests: Sequence[Message], subsystem: int) -> None:
        """All of them or none: a batch of nfnetlink.  Raises NetlinkError for the first that fails."""
        first = self._sequence + 1
        self._sequence += len(requests) + 2
        head = struct.pack(">BBH", 0, 0, subsystem)
        begin = Message(_NFNL_BATCH_BEGIN, 0, head, "begin")
        end = Message(_NFNL_BATCH_END, 0, head, "end")
        packed = [self._packed(begin, NLM_F_REQUEST, first)]
        last = first + len(requests)
        for sequence, request in enumerate(requests, first + 1):
            flags = NLM_F_REQUEST | (NLM_F_ACK if sequence == last else 0)
            packed.append(self._packed(request, flags, sequence))
        packed.append(self._packed(end, NLM_F_REQUEST, last + 1))
        self._socket.sendall(b"".join(packed))
        asked = [begin, *requests, end]
        failure: NetlinkError | None = None
        while True:
            for kind, flags, sequence, _, body in messages(self._socket.recv(_RECEIVE)):
                if kind != NLMSG_ERROR or not first <= sequence <= last + 1:
                    continue
                failure = failure or _failure(asked[sequence - first], flags, body)
                if sequence >= last or sequence == first:
                    if failure is not None:
                        raise failure
                    return

    def dump(self, request: Message) -> list[Reply]:
        """All objects that match.  Asks again when the kernel says that the dump was torn."""
        for _ in range(8):
            replies, torn = self._dump_once(request)
            if not torn:
                return replies
        raise NetlinkError(errno.EINTR, request.operation)

    def receive(self) -> list[tuple[int, int, int, int, bytes]]:
        """Read one datagram of a joined group.  OSError ENOBUFS: events were lost."""
        return list(messages(self._socket.recv(_RECEIVE)))

    def _dump_once(self, request: Message) -> tuple[list[Reply], bool]:
        self._sequence += 1
        self._socket.sendall(self._packed(request, NLM_F_REQUEST | NLM_F_DUMP, self._sequence))
        replies: list[Reply] = []
        torn = False
        while True:
            for kind, flags, sequence, port, body in messages(self._socket.recv(_RECEIVE)):
                if sequence != self._sequence:
                    continue
                torn = torn or bool(flags & NLM_F_DUMP_INTR)
                if kind == NLMSG_DONE:
                    return replies, torn
                if kind == NLMSG_ERROR:
                    error = _failure(request, flags, body)
                    if error is not None:
                        raise error
                    return replies, torn
                replies.append(Reply(kind, port, body))

    @staticmethod
    def _packed(request: Message, flags: int, sequence: int) -> bytes:
        length = _HEADER.size + len(request.body)
        return (
            _HEADER.pack(length, request.type, flags | request.flags, sequence, 0)
            + request.body
            + bytes(-length % 4)
        )


def _failure(request: Message, flags: int, body: bytes) -> NetlinkError | None:
    code = -_ERROR.unpack_from(body)[0]
    if code == 0 or code in request.settled_by:
        return None
    detail = ""
    if flags & NLM_F_ACK_TLVS:
        start = 4 + _HEADER.size
        if not flags & NLM_F_CAPPED:
            start = 4 + ((_HEADER.unpack_from(body, 4)[0] + 3) & ~3)
        detail = attributes(body[start:]).get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode()
    return NetlinkError(code, request.operation, detail)
