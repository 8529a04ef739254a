"""Requests and answers as values, shared by the server and the handlers."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Final, Protocol
from urllib.parse import parse_qsl, unquote_to_bytes

from agent.errors import EngineError, Kind, invalid, not_found
from agent.values import frozen
from agent.wire.status import STATUS
from agent.wire.streams import BodyReader, ChunkSource, Duplex, Gone, PullStream

MAX_HEAD: Final = 32 * 1024  # bytes of request line and headers (security C16)
MAX_HEADERS: Final = 100
MAX_JSON: Final = 4 * 1024 * 1024  # bytes of a JSON body
MAX_QUERY_FIELDS: Final = 1000

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})
READING_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

JSON: Final = "application/json"
RAW_STREAM: Final = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM: Final = "application/vnd.docker.multiplexed-stream"

_FALSE: Final = frozenset({"", "0", "no", "false", "none"})
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_USER: Final = re.compile(r"(?<=://)[^/?#]*@")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DECIMAL: Final = re.compile(r"[+-]?[0-9]{1,18}")


class Query:
    """A URL's query: a mapping from name to one or more values, in order."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Sequence[tuple[str, str]] = ()) -> None:
        self._pairs = tuple(pairs)

    def get(self, name: str, default: str = "") -> str:
        """The first value of `name`, as Go's `url.Values.Get` gives it."""
        return next((value for key, value in self._pairs if key == name), default)

    def all(self, name: str) -> tuple[str, ...]:
        return tuple(value for key, value in self._pairs if key == name)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Docker's reading of a boolean: absent = default; "", 0, no, false, none = False."""
        values = self.all(name)
        return values[0].strip().lower() not in _FALSE if values else default

    def integer(self, name: str, default: int | None = None) -> int | None:
        """A decimal number; absent or empty = default. Raises EngineError (INVALID)."""
        text = self.get(name)
        if not text:
            return default
        if not _DECIMAL.fullmatch(text):
            raise invalid(f'invalid value "{printable(text)}" for query parameter {name}')
        return int(text)

    def items(self) -> tuple[tuple[str, str], ...]:
        return self._pairs

    def __contains__(self, name: object) -> bool:
        return any(key == name for key, _ in self._pairs)

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._pairs))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Query) and self._pairs == other._pairs

    def __hash__(self) -> int:
        return hash(self._pairs)

    def __repr__(self) -> str:
        return f"Query({self._pairs!r})"


class Headers:
    """Header fields; names are compared without regard to case and kept in lower case."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Sequence[tuple[str, str]] = ()) -> None:
        self._fields = tuple((name.lower(), value) for name, value in fields)

    def get(self, name: str, default: str = "") -> str:
        wanted = name.lower()
        return next((value for key, value in self._fields if key == wanted), default)

    def all(self, name: str) -> tuple[str, ...]:
        wanted = name.lower()
        return tuple(value for key, value in self._fields if key == wanted)

    def has_token(self, name: str, token: str) -> bool:
        """True when the comma-separated header `name` lists `token` (`Connection: Upgrade`)."""
        return any(
            part.strip().lower() == token for value in self.all(name) for part in value.split(",")
        )

    def items(self) -> tuple[tuple[str, str], ...]:
        return self._fields

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and any(key == name.lower() for key, _ in self._fields)

    def __repr__(self) -> str:
        # Values may hold registry credentials (X-Registry-Auth).
        return f"Headers({[name for name, _ in self._fields]!r})"


class Transport(enum.Enum):
    UNIX = "unix"
    TLS = "tls"


@frozen(slots=True)
class Client:
    """Who asks. On a unix socket the kernel's word, over TLS the verified certificate's."""

    transport: Transport
    name: str = ""  # TLS: the <name> in spiffe://machine/<store-id>/client/<name>
    fingerprint: str = ""  # TLS: SHA-256 of the certificate, lower-case hex
    address: str = ""  # TLS: numeric IP address
    uid: int = -1  # unix
    pid: int = -1  # unix; only for the log, a pid may be reused

    def label(self) -> str:
        """A short form for the log."""
        if self.transport is Transport.TLS:
            return f"tls:{self.name}/{self.fingerprint[:16]}@{self.address}"
        return f"unix:uid={self.uid},pid={self.pid}"


LOCAL_CLIENT: Final = Client(Transport.UNIX, uid=0)


@frozen(slots=True)
class Request:
    """A request's head. `path` is percent-decoded, valid UTF-8, without control characters and
    without `.`/`..` segments; it still holds the `/v1.NN` prefix."""

    method: str
    target: str
    path: str
    query: Query = field(default_factory=Query)
    headers: Headers = field(default_factory=Headers)
    client: Client = LOCAL_CLIENT
    id: str = ""  # names the request in the log

    @property
    def wants_upgrade(self) -> bool:
        """True when the client asks for `101 UPGRADED` (docker CLI: `Upgrade: tcp`)."""
        return self.headers.has_token("connection", "upgrade") and "upgrade" in self.headers


class BodyKind(enum.Enum):
    """What a route takes; the server reads accordingly before it calls the handler."""

    NONE = "none"  # a body is skipped
    JSON = "json"  # read whole, at most MAX_JSON, Content-Type must be application/json
    STREAM = "stream"  # offered as a BodyReader while it arrives


class NeverGone:
    """The `Gone` of handlers that are called outside a server (tests)."""

    def is_set(self) -> bool:
        return False

    def wait(self, timeout: float | None = None) -> bool:
        del timeout  # never set, so nothing to wait for
        return False


class _NoBody:
    def read(self, _size: int = 65536, /) -> bytes:
        return b""


@frozen(slots=True)
class Body:
    """What comes with a request: `data` for BodyKind.JSON, `reader` for BodyKind.STREAM.

    `reader` may be read by the handler or, when it returns a BlockingStream, by its iterator.
    """

    data: bytes = b""
    reader: BodyReader = field(default_factory=_NoBody)
    gone: Gone = field(default_factory=NeverGone)

    def json(self) -> object:
        """The decoded document, None for an empty body. Raises EngineError (INVALID)."""
        if not self.data.strip():
            return None
        try:
            decoded: object = json.loads(self.data)
        except (ValueError, RecursionError) as error:
            raise invalid(f"invalid JSON: {printable(str(error))}") from error
        return decoded


@frozen(slots=True)
class Reply:
    """A whole answer. `headers` has no Content-Length (the server sets it). For HEAD requests the
    body is left out, its length is announced."""

    status: int = 200
    body: bytes = b""
    content_type: str = ""
    headers: Sequence[tuple[str, str]] = ()


def json_reply(
    document: object, status: int = 200, headers: Sequence[tuple[str, str]] = ()
) -> Reply:
    """`document` as JSON, compact and with a newline after it, as Docker Engine writes it."""
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    return Reply(status, text.encode("utf-8", "replace") + b"\n", JSON, headers)


def error_reply(error: EngineError) -> Reply:
    """The `{"message": ...}` document of an error (304 has no body)."""
    if error.kind is Kind.NOT_MODIFIED:
        return Reply(STATUS[error.kind])
    return json_reply({"message": error.message or error.kind.value}, STATUS[error.kind])


def no_content() -> Reply:
    return Reply(204)


@frozen(slots=True)
class Stream:
    """An answer that goes on: the head is sent at once, then each piece of `source` as it comes.

    When the client goes away the source is closed and nothing else happens.
    """

    source: PullStream
    content_type: str = JSON
    status: int = 200
    headers: Sequence[tuple[str, str]] = ()


@frozen(slots=True)
class BlockingStream:
    """An answer produced by blocking code on a worker thread, with back-pressure (pull progress).

    The head is sent with the first chunk: an EngineError raised before it becomes an ordinary
    error answer. Later ones become a last line `{"errorDetail":{"message":..},"error":..}` when
    the content type is JSON, and cut off the body otherwise.
    """

    chunks: ChunkSource
    content_type: str = JSON
    status: int = 200
    headers: Sequence[tuple[str, str]] = ()


@frozen(slots=True)
class Hijack:
    """The connection becomes the container's standard streams (attach, exec start).

    101 UPGRADED when the request asked for an upgrade, else 200 and the raw stream. `stdin` False:
    what the client sends is dropped. `detach_keys` (bytes, see `agent.wire.detach`) are looked for
    in the input of a terminal only; empty = never detach. `logs_first` is sent before the live
    stream; its bytes are framed already. `stall_notice`: the output has other readers (a log), so a
    client that takes nothing for a while is let go rather than waited for; these are its last bytes.
    Empty = it is waited for, however long.
    """

    duplex: Duplex
    content_type: str = RAW_STREAM
    detach_keys: bytes = b"\x10\x11"
    stdin: bool = True
    logs_first: PullStream | None = None
    stall_notice: bytes = b""
    headers: Sequence[tuple[str, str]] = ()


Answer = Reply | Stream | BlockingStream | Hijack
Handler = Callable[[Request, Body], Answer]


@frozen(slots=True)
class Handling:
    """What the router found. `inline`: the handler never blocks (no disk, no lock, no process, well
    under 1 ms), so it is called on the event loop instead of a worker."""

    handler: Handler
    body: BodyKind = BodyKind.NONE
    inline: bool = False


class Application(Protocol):
    """What the server serves."""

    @property
    def common_headers(self) -> Sequence[tuple[str, str]]:
        """Added to every answer, errors too: Api-Version, Server, Ostype, ..."""

    def resolve(self, request: Request) -> Handling:
        """The route of a request. On the event loop: quick and without I/O. Raises EngineError."""


def parse_target(target: str) -> tuple[str, Query]:
    """Splits and decodes a request target in origin-form (RFC 9112 section 3.2.1).

    Raises EngineError: INVALID for other forms, bad escapes, bad UTF-8 and control characters;
    NOT_FOUND for `.` and `..` segments, which no client of ours sends and nothing here resolves.
    """
    if not target.startswith("/"):
        raise invalid("malformed request target")
    raw_path, _, raw_query = target.partition("?")
    if "%" in raw_path:
        if _BAD_ESCAPE.search(raw_path):
            raise invalid("malformed request target: bad escape")
        raw_path = _decoded(raw_path)
    if _CONTROL.search(raw_path):
        raise invalid("malformed request target: control character")
    if "/." in raw_path and not {".", ".."}.isdisjoint(raw_path.split("/")):
        raise not_found("page not found")
    return raw_path, parse_query(raw_query) if raw_query else _EMPTY_QUERY


_EMPTY_QUERY: Final = Query()


def parse_query(text: str) -> Query:
    """Decodes `a=1&b=2` as an HTML form does (`+` is a space). Raises EngineError (INVALID)."""
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS
        )
    except ValueError as error:
        raise invalid("malformed query") from error
    return Query(pairs)


def _decoded(text: str) -> str:
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError as error:
        raise invalid("malformed request target: not UTF-8") from error


def printable(text: str) -> str:
    """`text` for a log line or an error message: control and bidi characters escaped."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def public(url: str) -> str:
    """A URL for errors and records: without the password or token that may stand before its host."""
    return _USER.sub("", url)


def headers_from(fields: Mapping[str, str]) -> Headers:
    """A convenience for tests and clients."""
    return Headers(tuple(fields.items()))
