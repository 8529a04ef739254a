"""Tar headers, strictly: v7, ustar, GNU long names, PAX (POSIX.1-2017 pax, star's xattrs).

Pure: reads through two callables, so it is fed the same from a pipe and from a test's bytes.
Numbers are octal or base-256; sockets and multi-volume records are refused, and so are sparse files
unless the reader takes them (GNU's old form, PAX 0.1 and 1.0).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

BLOCK = 512
_PAX_LIMIT = 1 << 20
_NAME_LIMIT = 8192
_ID_LIMIT = 0xFFFFFFFF  # -1 means "leave alone" to chown: refused with the rest beyond uint32
_SIZE_LIMIT = 1 << 62
_OCTAL = re.compile(rb"[ \0]*([0-7]*)[ \0]*")
_DECIMAL = re.compile(rb"[0-9]{1,19}")
_TIME = re.compile(rb"(-?)([0-9]{1,30})(?:\.([0-9]*))?")
_XATTR = b"SCHILY.xattr."
_GNU = b"GNU.sparse."
_OLD_SPARSE = 0x53  # "S"
_RUNS = 100_000  # parts of one sparse file

REGULAR, HARD, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO = b"0123456"


class TarError(ValueError):
    """The archive is malformed or holds something that is refused."""


Runs = tuple[tuple[int, int], ...]  # (offset, bytes)


class Entry(NamedTuple):
    """One member.  Names are raw bytes as in the archive; mtime in ns (may be negative)."""

    name: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    link: bytes
    major: int
    minor: int
    xattrs: dict[bytes, bytes]
    sparse: Runs | None = None  # where the body's bytes belong, in order
    length: int = 0  # of a regular file; more than `size` for a sparse one


class Headers:
    """Iterates over the members of one archive.

    `take(n)` gives exactly n bytes, or fewer at the end of input.  After each entry the caller
    consumes its body and padding (`padded(entry.size)` bytes) before asking for the next.
    """

    def __init__(self, take: Callable[[int], bytes], *, sparse: bool = False) -> None:
        """`sparse`: the caller heeds `Entry.sparse`; else such a file is refused."""
        self._take = take
        self._sparse = sparse

    def next(self) -> Entry | None:
        """The next member; None at the end (two zero blocks, or just the end of input)."""
        pax: dict[bytes, bytes] = {}
        name = link = b""
        while True:
            block = self._take(BLOCK)
            if not block or not block.strip(b"\0"):
                if block and len(block) < BLOCK:
                    raise TarError("truncated header")
                return None
            if len(block) < BLOCK:
                raise TarError("truncated header")
            _check_sum(block)
            kind = block[156]
            if kind == 0x78:  # "x"
                pax.update(_pax_records(self._body(block, _PAX_LIMIT)))
            elif kind == 0x67:  # "g": defaults for a whole archive; docker ignores them too
                self._body(block, _PAX_LIMIT)
            elif kind == 0x4C:  # "L"
                name = self._body(block, _NAME_LIMIT).rstrip(b"\0")
            elif kind == 0x4B:  # "K"
                link = self._body(block, _NAME_LIMIT).rstrip(b"\0")
            elif kind == _OLD_SPARSE or any(key.startswith(_GNU) for key in pax):
                return self._with_holes(block, kind, pax, (name, link))
            else:
                return _entry(block, kind, pax, (name, link))

    def _with_holes(
        self, block: bytes, kind: int, pax: dict[bytes, bytes], long: tuple[bytes, bytes]
    ) -> Entry:
        """A sparse file: its map is behind the header, in PAX records, or before the body."""
        if not self._sparse or kind not in (_OLD_SPARSE, REGULAR, 0):
            raise TarError("sparse files are not supported")
        plain = {key: value for key, value in pax.items() if not key.startswith(_GNU)}
        entry = _entry(block, REGULAR, plain, (pax.get(_GNU + b"name") or long[0], long[1]))
        if kind == _OLD_SPARSE:
            numbers = self._old_map(block)
            length, size = _number(block[483:495], "size"), entry.size
        elif pax.get(_GNU + b"major") == b"1" and pax.get(_GNU + b"minor") == b"0":
            numbers, used = self._new_map()
            length, size = _decimal(pax, _GNU + b"realsize", -1), entry.size - used
        elif _GNU + b"map" in pax:
            numbers = [_count(text) for text in pax[_GNU + b"map"].split(b",")]
            length, size = _decimal(pax, _GNU + b"size", -1), entry.size
        else:
            raise TarError("unknown form of a sparse file")
        return entry._replace(size=size, sparse=_runs(numbers, size, length), length=length)

    def _old_map(self, block: bytes) -> list[int]:
        """Pairs in the header, and in blocks behind it as long as each says so."""
        numbers: list[int] = []
        raw, more = block[386:482], block[482]
        while True:
            for start in range(0, len(raw) - 23, 24):
                if raw[start : start + 24].strip(b"\0 "):
                    numbers.append(_number(raw[start : start + 12], "offset"))
                    numbers.append(_number(raw[start + 12 : start + 24], "size"))
            if not more:
                return numbers
            if len(numbers) > 2 * _RUNS:
                raise TarError("a sparse file has too many parts")
            raw = self._take(BLOCK)
            if len(raw) < BLOCK:
                raise TarError("truncated header")
            more = raw[504]

    def _new_map(self) -> tuple[list[int], int]:
        """Decimal lines in blocks of their own: how many pairs, then the pairs; and their bytes."""
        text, used, wanted = b"", 0, 1
        lines: list[bytes] = []
        while len(lines) - 1 < wanted:  # what follows the last newline is not a whole line
            block = self._take(BLOCK)
            used += BLOCK
            if len(block) < BLOCK or used > _PAX_LIMIT:
                raise TarError("the map of a sparse file is cut off or too large")
            text = (lines.pop() if lines else b"") + block
            lines += text.split(b"\n")
            wanted = 1 + 2 * _count(lines[0]) if len(lines) > 1 else 1
        return [_count(line) for line in lines[1:wanted]], used

    def _body(self, block: bytes, limit: int) -> bytes:
        size = _number(block[124:136], "size")
        if size > limit:
            raise TarError("an extended header is too large")
        body = self._take(padded(size))
        if len(body) < padded(size):
            raise TarError("truncated extended header")
        return body[:size]


def _count(text: bytes) -> int:
    if not _DECIMAL.fullmatch(text):
        raise TarError("invalid number in the map of a sparse file")
    return int(text)


def _runs(numbers: list[int], size: int, length: int) -> Runs:
    """Checked: in order, inside the file, and as many bytes as the body has."""
    if len(numbers) % 2 or len(numbers) > 2 * _RUNS or not 0 <= length < _SIZE_LIMIT:
        raise TarError("invalid map of a sparse file")
    runs = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    end = 0
    for offset, count in runs:
        if offset < end or count < 0:
            raise TarError("invalid map of a sparse file")
        end = offset + count
    if end > length or sum(count for _, count in runs) != size:
        raise TarError("invalid map of a sparse file")
    return runs


def padded(size: int) -> int:
    """`size` rounded up to whole blocks."""
    return (size + BLOCK - 1) & ~(BLOCK - 1)


def _check_sum(block: bytes) -> None:
    stored = _number(block[148:156], "checksum")
    fixed = block[:148] + b"        " + block[156:]
    if sum(fixed) == stored:
        return
    # Some historic writers summed signed chars.
    if sum(byte - 256 if byte > 127 else byte for byte in fixed) != stored:
        raise TarError("invalid header checksum")


def _number(raw: bytes, what: str) -> int:
    if raw[0] & 0x80:  # base-256, two's complement in the remaining bits
        value = int.from_bytes(raw, "big") & ~(0x80 << (8 * (len(raw) - 1)))
        if raw[0] & 0x40:
            value -= 1 << (8 * len(raw) - 1)
        return value
    match = _OCTAL.fullmatch(raw)
    if match is None:
        raise TarError(f"invalid {what} in a header")
    return int(match[1] or b"0", 8)


def _entry(block: bytes, kind: int, pax: dict[bytes, bytes], long: tuple[bytes, bytes]) -> Entry:
    name = pax.get(b"path") or long[0] or _ustar_name(block)
    link = pax.get(b"linkpath") or long[1] or _text(block[157:257])
    size = _decimal(pax, b"size", _number(block[124:136], "size"))
    kind = _kind(kind, name)
    if not 0 <= size < _SIZE_LIMIT:
        raise TarError("invalid size in a header")
    if b"\0" in name or b"\0" in link:
        raise TarError("a name holds a NUL byte")
    devices = kind in (CHAR, BLOCK_DEVICE)
    return Entry(
        name=name,
        kind=kind,
        mode=_number(block[100:108], "mode") & 0o7777,
        uid=_identity(_decimal(pax, b"uid", _number(block[108:116], "uid"))),
        gid=_identity(_decimal(pax, b"gid", _number(block[116:124], "gid"))),
        size=size if kind == REGULAR else 0,
        mtime=_time(pax[b"mtime"]) if b"mtime" in pax else _stamp(block),
        link=link,
        major=_number(block[329:337], "device") if devices else 0,
        minor=_number(block[337:345], "device") if devices else 0,
        xattrs={
            key.removeprefix(_XATTR): value for key, value in pax.items() if key.startswith(_XATTR)
        },
        length=size if kind == REGULAR else 0,
    )


def _kind(kind: int, name: bytes) -> int:
    if kind in (0, 0x37):  # v7's NUL, and "7", contiguous
        kind = REGULAR
    if kind == REGULAR and name.endswith(b"/"):
        return DIRECTORY  # how v7 archives spell one
    if not REGULAR <= kind <= FIFO:
        raise TarError(f"entry type {chr(kind)!r} is not supported")
    return kind


def _text(raw: bytes) -> bytes:
    return raw.partition(b"\0")[0]


def _ustar_name(block: bytes) -> bytes:
    name = _text(block[:100])
    if block[257:263] == b"ustar\0":
        prefix = _text(block[345:500])
        return prefix + b"/" + name if prefix else name
    return name


def _stamp(block: bytes) -> int:
    return _number(block[136:148], "mtime") * 1_000_000_000


def _time(raw: bytes) -> int:
    match = _TIME.fullmatch(raw)
    if match is None:
        raise TarError("invalid mtime in an extended header")
    fraction = int(((match[3] or b"") + b"000000000")[:9])
    value = int(match[2]) * 1_000_000_000 + fraction
    return -value if match[1] else value


def _decimal(pax: dict[bytes, bytes], key: bytes, default: int) -> int:
    raw = pax.get(key)
    if not raw:
        return default
    if not _DECIMAL.fullmatch(raw):
        raise TarError(f"invalid {key.decode()} in an extended header")
    return int(raw)


def _identity(value: int) -> int:
    if not 0 <= value < _ID_LIMIT:
        raise TarError("an owner is outside 0..4294967294")
    return value


def _pax_records(body: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    position = 0
    while position < len(body):
        space = body.find(b" ", position, position + 9)
        digits = body[position:space] if space > 0 else b""
        if not _DECIMAL.fullmatch(digits):
            raise TarError("invalid extended header")
        end = position + int(digits)
        key, equals, value = body[space + 1 : end - 1].partition(b"=")
        if end > len(body) or end <= space + 2 or body[end - 1] != 0x0A or not equals or not key:
            raise TarError("invalid extended header")
        found[key] = value
        position = end
    return found
