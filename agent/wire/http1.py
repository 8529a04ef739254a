"""HTTP/1.1 without I/O: bytes in, request heads and bodies out; answer heads as bytes.

h11 parses (RFC 9112); this module adds what h11 leaves lenient and a server that must never
disagree with anyone about where a message ends should not accept: bare LF line ends, folded
headers, repeated or contradicting framing headers, a head larger than its limit that arrives in
one piece. One h11 connection object serves one request: what follows a request stays in our own
buffer, so nothing is lost when the connection is hijacked.

Heads of the plainest kind (`_plain`: printable ASCII, HTTP/1.1, one Host, no Transfer-Encoding)
are read without h11, which takes a third of a short request's time; every other head, also every
wrong one, is h11's to judge. A test holds the two against each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from agent.errors import headers_too_large, invalid
from agent.values import frozen
from agent.wire.http import MAX_HEAD, MAX_HEADERS, METHODS, Headers
from agent.wire.status import REASONS

if TYPE_CHECKING:
    import h11

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"

_END: Final = b"\r\n\r\n"
_FEED: Final = 65536
# A line feed without its carriage return, the reverse, NUL, or a line that continues the one before.
_FORBIDDEN: Final = re.compile(rb"(?<!\r)\n|\r(?!\n)|\x00|\n[ \t]")
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_FRAMING: Final = re.compile(rb"\n(content-length|transfer-encoding|host|expect)[ \t]*:", re.I)
_UNPLAIN: Final = re.compile(rb"[^\x20-\x7e\r\n]")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
# Fields that say where a message ends, or whose.
_ONCE: Final = frozenset({"content-length", "transfer-encoding", "host", "expect"})
_BAD_FIELD: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@frozen(slots=True)
class Head:
    """A request's head as it came over the wire."""

    method: str
    target: str
    headers: Headers
    http10: bool
    keep_alive: bool
    has_body: bool
    expects_continue: bool


class RequestReader:
    """One connection's requests, one after the other.

    Order: `feed()` as bytes come; `next_head()` until a Head; `next_body()` until b"";
    `next_request()`; and so on, or `leftover()` when the connection is hijacked. After an
    EngineError only closing is possible.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._eof = False
        self._h11: h11.Connection | None = None
        self._has_body = False
        self._left = 0  # bytes of a plain request's body still to come

    def feed(self, data: bytes) -> None:
        """b"" = the client sends no more."""
        if data:
            self._buffer += data
        else:
            self._eof = True

    @property
    def idle(self) -> bool:
        """True when no byte of a next request has come."""
        return not self._buffer

    def next_head(self) -> Head | None:
        """None = more bytes are needed. Raises EngineError (INVALID, HEADERS_TOO_LARGE)."""
        if not self._scanned:
            self._skip_blank_lines()
        end = self._buffer.find(_END, max(0, self._scanned - len(_END)))
        if end < 0 or end > MAX_HEAD:
            if len(self._buffer) > MAX_HEAD:
                raise headers_too_large("request header too large")
            if _BARE_LF.search(self._buffer, max(0, self._scanned - 1)):
                raise invalid("malformed request: bare line feed")
            # A lone CR may be half of an empty line, which is skipped however the bytes are cut.
            self._scanned = 0 if self._buffer == b"\r" else len(self._buffer)
            return None
        raw = bytes(self._buffer[: end + len(_END)])
        del self._buffer[: end + len(_END)]
        self._scanned = 0
        return self._parse(raw)

    def _skip_blank_lines(self) -> None:
        """RFC 9112 section 2.2: empty lines before the request line are ignored."""
        while self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]

    def _parse(self, raw: bytes) -> Head:
        if _FORBIDDEN.search(raw):
            raise invalid("malformed request header")
        plain = _plain(raw)
        if plain is not None:
            self._left = int(plain.headers.get("content-length", "0"))
            self._has_body = plain.has_body
            return plain
        return self._judged(raw)

    def _judged(self, raw: bytes) -> Head:
        import h11  # many agents' lives pass without it

        framing = [match[1].lower() for match in _FRAMING.finditer(raw)]
        if len(set(framing)) != len(framing):
            raise invalid("malformed request: repeated framing header")
        if b"content-length" in framing and b"transfer-encoding" in framing:
            raise invalid("malformed request: Content-Length with Transfer-Encoding")
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        try:
            connection.receive_data(raw)
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            raise invalid(f"malformed request: {error}") from error
        if not isinstance(event, h11.Request):
            raise invalid("malformed request")
        self._h11 = connection
        return self._head(event, chunked=b"transfer-encoding" in framing)

    def _head(self, event: h11.Request, *, chunked: bool) -> Head:
        fields = [(n.decode("ascii"), v.decode("latin-1")) for n, v in event.headers]
        if len(fields) > MAX_HEADERS:
            raise headers_too_large("too many request headers")
        method = event.method.decode("ascii")
        if method not in METHODS:
            raise invalid(f"unsupported method {method[:20]}")
        if event.http_version not in {b"1.0", b"1.1"}:
            raise invalid("unsupported HTTP version")
        headers = Headers(fields)
        http10 = event.http_version == b"1.0"
        if http10 and chunked:
            raise invalid("malformed request: Transfer-Encoding in HTTP/1.0")
        self._has_body = chunked or headers.get("content-length", "0").strip("0") != ""
        return Head(
            method=method,
            target=event.target.decode("latin-1"),
            headers=headers,
            http10=http10,
            keep_alive=not http10 and not headers.has_token("connection", "close"),
            has_body=self._has_body,
            expects_continue=not http10 and headers.get("expect").lower() == "100-continue",
        )

    def next_body(self) -> bytes | None:
        """A piece of the body; None = more bytes are needed; b"" = the body is complete.

        Raises EngineError (INVALID): broken chunks, or the client sends no more.
        """
        if not self._has_body:
            return b""
        return self._plain_body() if self._h11 is None else self._h11_body(self._h11)

    def _plain_body(self) -> bytes | None:
        if not self._left:
            self._has_body = False
            return b""
        data = bytes(self._buffer[: min(self._left, _FEED)])
        if not data:
            self._check_more_may_come()
            return None
        del self._buffer[: len(data)]
        self._left -= len(data)
        return data

    def _h11_body(self, connection: h11.Connection) -> bytes | None:
        import h11

        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError as error:
                raise invalid(f"malformed request body: {error}") from error
            if isinstance(event, h11.Data):
                if event.data:
                    return bytes(event.data)
            elif event is h11.NEED_DATA:
                if not self._buffer:
                    self._check_more_may_come()
                    return None
                connection.receive_data(bytes(self._buffer[:_FEED]))
                del self._buffer[:_FEED]
            else:
                self._complete(connection)
                return b""

    def _check_more_may_come(self) -> None:
        if self._eof:
            raise invalid("unexpected end of the request body")

    def _complete(self, connection: h11.Connection) -> None:
        self._buffer[:0] = connection.trailing_data[0]
        self._has_body = False

    @property
    def body_complete(self) -> bool:
        """True when nothing of this request is left to be read."""
        return not self._has_body

    def next_request(self) -> None:
        """Begins the next request on the connection; the body must be complete."""
        if self._has_body:
            raise RuntimeError("request body not read")
        self._h11 = None

    def leftover(self) -> bytes:
        """What came behind the request, for the stream that follows a hijack; taken out."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest


def _plain(raw: bytes) -> Head | None:
    """A head that needs no judgement; None = let h11 judge.  `raw` has passed _FORBIDDEN."""
    if _UNPLAIN.search(raw):
        return None
    first, *lines = raw[: -len(_END)].decode("ascii").split("\r\n")
    method, _, rest = first.partition(" ")
    target, _, version = rest.partition(" ")
    if method not in METHODS or not target or version != "HTTP/1.1" or len(lines) > MAX_HEADERS:
        return None
    fields: list[tuple[str, str]] = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            return None
        fields.append((name, value.strip(" ")))
    headers = Headers(fields)
    return _plain_head(method, target, headers) if _well_framed(headers) else None


def _well_framed(headers: Headers) -> bool:
    """One Host, no Transfer-Encoding, at most one Content-Length and Expect, a sane length."""
    found = [name for name, _ in headers.items() if name in _ONCE]
    if "host" not in found or "transfer-encoding" in found or len(set(found)) != len(found):
        return False
    return _LENGTH.fullmatch(headers.get("content-length", "0")) is not None


def _plain_head(method: str, target: str, headers: Headers) -> Head:
    return Head(
        method=method,
        target=target,
        headers=headers,
        http10=False,
        keep_alive=not headers.has_token("connection", "close"),
        has_body=int(headers.get("content-length", "0")) > 0,
        expects_continue=headers.get("expect").lower() == "100-continue",
    )


@lru_cache(maxsize=256)
def _field_line(name: str, value: str) -> str:
    """Raises ValueError for a field that would end its line."""
    if _BAD_FIELD.search(value):
        raise ValueError(f"control character in response header {name}")
    return f"{name}: {value}\r\n"


def response_head(status: int, fields: Iterable[tuple[str, str]], reason: str = "") -> bytes:
    """A status line and headers. Raises ValueError for a field that would end its line."""
    first = f"HTTP/1.1 {status} {reason or REASONS.get(status, 'Status')}\r\n"
    lines = "".join([_field_line(name, value) for name, value in fields])
    return f"{first}{lines}\r\n".encode("latin-1", "replace")


def chunk(data: bytes) -> bytes:
    """`data` (not empty) as one chunk (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)
