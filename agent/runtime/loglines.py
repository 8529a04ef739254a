"""conmon's k8s-file log format, parsed and rendered.  No I/O.

Each record is "TIMESTAMP STREAM TAG TEXT\\n" (kubernetes CRI log format): TAG F ends a line, P is a
piece of a line that goes on in the next record of its stream.  The bytes of TEXT are the
container's own.
"""

from __future__ import annotations

import calendar
import itertools
import re
import time
from collections.abc import Iterator
from functools import lru_cache

from agent.values import frozen

STREAMS = {b"stdout": 1, b"stderr": 2}
# TEXT may hold anything but "\n", which `.` does not match.
RECORD = re.compile(rb"^([^ \n]+) (stdout|stderr) ([FP]) (.*)\n", re.MULTILINE)
_HEAD = re.compile(rb"^[^ \n]+ (stdout|stderr) ([FP]) ", re.MULTILINE)
_STAMP_SIZE = 35  # 2026-11-23T18:51:11.123456789+00:00
_HEAD_SIZE = _STAMP_SIZE + 10
_HEADS = {  # what follows the stamp: (stream, what ends the text)
    b" stdout F ": (1, b"\n"),
    b" stdout P ": (1, b""),
    b" stderr F ": (2, b"\n"),
    b" stderr P ": (2, b""),
}
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


@frozen
class View:
    """What a client wants to see of a log."""

    stdout: bool = True
    stderr: bool = True
    since: int | None = None
    until: int | None = None
    timestamps: bool = False
    framed: bool = True
    details: bool = (
        False  # attributes before each line: there are none, but their space is docker's
    )


class Renderer:
    """Records in, bytes for the client out.  Feed whole records (up to a "\\n") in any portions."""

    def __init__(self, view: View) -> None:
        self._view = view
        lines = view.timestamps or view.details
        self._plain = not lines and view.since is None and view.until is None
        self._middle = {1: False, 2: False}  # the stream's last record was a P
        self.finished = False  # `until` is past: nothing will follow

    def feed(self, block: bytes) -> bytes:
        if not block or self.finished:
            return b""
        fast = self._fast_runs(block) if self._plain else None
        runs = self._runs(block) if fast is None else fast
        return b"".join([self._out(stream, data) for stream, data in runs])

    def _fast_runs(self, block: bytes) -> list[tuple[int, bytes]] | None:
        """Without looking at times, by slices: conmon's heads are all 45 bytes long.

        None when one is not (then the general way is taken).  10 times the speed of a regex.
        """
        lines = block.split(b"\n")
        if lines.pop():
            return None
        heads = [line[_STAMP_SIZE:_HEAD_SIZE] for line in lines]
        kinds = set(heads)
        if not kinds <= _HEADS.keys():
            return None
        if len(kinds) == 1:
            stream, end = _HEADS[heads[0]]
            text = end.join([line[_HEAD_SIZE:] for line in lines]) + end
            return [(stream, text)] if self._wanted(stream) else []
        runs: list[tuple[int, bytes]] = []
        pairs = zip(heads, lines, strict=True)
        for stream, group in itertools.groupby(pairs, lambda pair: _HEADS[pair[0]][0]):
            if self._wanted(stream):
                pieces = [line[_HEAD_SIZE:] + _HEADS[head][1] for head, line in group]
                runs.append((stream, b"".join(pieces)))
        return runs

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
            if self._view.details and begins:
                data = b" " + data
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
