"""conmon's k8s-file log format, parsed and rendered.  No I/O.

Each record is "TIMESTAMP STREAM TAG TEXT\\n" (kubernetes CRI log format): TAG F ends a line, P is a
piece of a line that goes on in the next record of its stream.  The bytes of TEXT are the
container's own.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

STREAMS = {b"stdout": 1, b"stderr": 2}
# TEXT may hold anything but "\n", which `.` does not match.
RECORD = re.compile(rb"^([^ \n]+) (stdout|stderr) ([FP]) (.*)\n", re.MULTILINE)
_HEAD = re.compile(rb"^[^ \n]+ (stdout|stderr) ([FP]) ", re.MULTILINE)
_UNHEAD = re.compile(rb"^[^ \n]+ (?:stdout|stderr) (?:P (.*)\n|F )", re.MULTILINE)
_STAMP = re.compile(
    rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)\Z", re.ASCII
)


@lru_cache(maxsize=256)
def _seconds(text: bytes) -> int:
    try:
        return calendar.timegm(time.strptime(text.decode("ascii"), "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return 0


def stamp_ns(stamp: bytes) -> int:
    """ns since the epoch; 0 when it is not a timestamp."""
    match = _STAMP.match(stamp)
    if not match:
        return 0
    second, fraction, zone = match.groups()
    found = _seconds(second) * 1_000_000_000 + int((fraction or b"0").ljust(9, b"0"))
    if zone != b"Z":
        offset = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
        found += (offset if zone[:1] == b"-" else -offset) * 1_000_000_000
    return found


def docker_stamp(stamp: bytes) -> bytes:
    """As Docker prints it: UTC, nine digits, "Z"."""
    if stamp.endswith(b"+00:00") and len(stamp) == 35:
        return stamp[:29] + b"Z"
    ns = stamp_ns(stamp)
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 1_000_000_000))
    return f"{whole}.{ns % 1_000_000_000:09d}Z".encode("ascii")


def frame(stream: int, data: bytes) -> bytes:
    """Docker's multiplex frame: stream, three zeros, big-endian length, data."""
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


@dataclass(frozen=True)
class View:
    """What a client wants to see of a log."""

    stdout: bool = True
    stderr: bool = True
    since: int | None = None
    until: int | None = None
    timestamps: bool = False
    framed: bool = True


class Renderer:
    """Records in, bytes for the client out.  Feed whole records (up to a "\\n") in any portions."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._plain = not view.timestamps and view.since is None and view.until is None
        self._middle = {1: False, 2: False}  # the stream's last record was a P
        self.finished = False  # `until` is past: nothing will follow

    def feed(self, block: bytes) -> bytes:
        if not block or self.finished:
            return b""
        if self._plain:
            kinds = set(_HEAD.findall(block))
            streams = {stream for stream, _ in kinds}
            if len(streams) == 1:
                return self._one_stream(streams.pop(), block)
        return b"".join(self._out(stream, data) for stream, data in self._runs(block))

    def _one_stream(self, name: bytes, block: bytes) -> bytes:
        # All of one stream: the heads are cut out in C, one frame for the block.
        number = STREAMS[name]
        if not self._wanted(number):
            return b""
        return self._out(number, _UNHEAD.sub(rb"\1", block))

    def _wanted(self, stream: int) -> bool:
        return self._view.stdout if stream == 1 else self._view.stderr

    def _out(self, stream: int, data: bytes) -> bytes:
        return frame(stream, data) if self._view.framed and data else data

    def _runs(self, block: bytes) -> Iterator[tuple[int, bytes]]:
        """Neighbouring records of one stream together (with timestamps: each by itself)."""
        current, pieces = 0, list[bytes]()
        for stream, data in self._pieces(block):
            if pieces and (stream != current or self._view.timestamps):
                yield current, b"".join(pieces)
                pieces = []
            current = stream
            pieces.append(data)
        if pieces:
            yield current, b"".join(pieces)

    def _pieces(self, block: bytes) -> Iterator[tuple[int, bytes]]:
        for match in RECORD.finditer(block):
            stamp, name, tag, text = match.groups()
            stream = STREAMS[name]
            begins = not self._middle[stream]
            self._middle[stream] = tag == b"P"
            if not self._in_time(stamp):
                if self.finished:
                    return
                continue
            if not self._wanted(stream):
                continue
            data = text if tag == b"P" else text + b"\n"
            if self._view.timestamps and begins:
                data = docker_stamp(stamp) + b" " + data
            yield stream, data

    def _in_time(self, stamp: bytes) -> bool:
        view = self._view
        if view.since is None and view.until is None:
            return True
        when = stamp_ns(stamp)
        if view.until is not None and when > view.until:
            self.finished = True
            return False
        return view.since is None or when >= view.since


def tail_offset(block: bytes, lines: int) -> tuple[int, int]:
    """Where the last `lines` lines of whole records begin in `block`, and how many it has.

    A line is what an F record ends; pieces (P) belong to the F after them.  A last line without an
    end counts.  The offset is of the block's first record when the block has no more than `lines`.
    """
    if lines <= 0:
        return len(block), 0
    starts: list[int] = []
    fresh = True
    for match in _HEAD.finditer(block):
        if fresh:
            starts.append(match.start())
        fresh = match.group(2) == b"F"
    if len(starts) <= lines:
        return (starts[0] if starts else 0), len(starts)
    return starts[-lines], lines
