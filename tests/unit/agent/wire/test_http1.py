from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import EngineError, Kind
from agent.wire.http1 import Head, RequestReader, _plain, chunk, response_head

GET = b"GET /_ping?x=1 HTTP/1.1\r\nHost: docker\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: d\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"PUT /b HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n"


def read_all(pieces: list[bytes]) -> tuple[list[tuple[str, str, bytes]], bytes]:
    """Every complete request of a stream, and what is left of it."""
    reader = RequestReader()
    found: list[tuple[str, str, bytes]] = []
    head: Head | None = None
    body = b""
    for piece in [*pieces, None]:
        if piece is not None:
            reader.feed(piece)
        while True:
            if head is None:
                head = reader.next_head()
                if head is None:
                    break
            data = reader.next_body()
            if data is None:
                break
            body += data
            if not data:
                assert reader.body_complete
                found.append((head.method, head.target, body))
                head, body = None, b""
                reader.next_request()
    return found, reader.leftover()


def test_requests_whole_and_byte_by_byte_and_with_a_tail():
    stream = GET + POST + CHUNKED + GET + b"GET /tail"
    expected = [
        ("GET", "/_ping?x=1", b""),
        ("POST", "/a", b"hello"),
        ("PUT", "/b", b"abcde"),
        ("GET", "/_ping?x=1", b""),
    ]
    assert read_all([stream]) == (expected, b"GET /tail")
    assert read_all([bytes([byte]) for byte in stream]) == (expected, b"GET /tail")


@pytest.mark.parametrize("blank", [b"\r\n", b"\r\n\r\n"])
def test_case_089_empty_lines_before_a_request_are_skipped_however_the_bytes_are_cut(blank):
    stream = blank + GET + blank + POST
    expected = ([("GET", "/_ping?x=1", b""), ("POST", "/a", b"hello")], b"")
    for cut in range(len(stream)):
        assert read_all([stream[:cut], stream[cut:]]) == expected, cut
    assert read_all([bytes([byte]) for byte in stream]) == expected


@given(st.lists(st.integers(0, len(GET + POST + CHUNKED)), max_size=8))
@settings(max_examples=60, deadline=None)
def test_requests_cut_anywhere(cuts):
    stream = GET + POST + CHUNKED
    marks = [0, *sorted(cuts), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(marks) if b > a]
    assert read_all(pieces) == read_all([stream])


def test_upgrade_leaves_what_follows():
    reader = RequestReader()
    head = b"POST /x/attach HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
    reader.feed(head + b"Content-Length: 2\r\n\r\n{}stdin\n\nbytes")
    assert reader.next_head() is not None
    assert reader.next_body() == b"{}"
    assert reader.next_body() == b""
    assert reader.leftover() == b"stdin\n\nbytes"
    reader = RequestReader()
    reader.feed(head + b"\r\nstdin")
    parsed = reader.next_head()
    assert parsed is not None
    assert not parsed.has_body
    assert reader.next_body() == b""
    assert reader.leftover() == b"stdin"


def test_flags_of_a_head():
    reader = RequestReader()
    reader.feed(b"POST /a HTTP/1.1\r\nHost: d\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n")
    head = reader.next_head()
    assert head is not None
    assert (head.expects_continue, head.has_body, head.keep_alive, head.http10) == (
        True, True, True, False,
    )  # fmt: skip
    reader = RequestReader()
    reader.feed(b"GET /a HTTP/1.0\r\n\r\n")
    head = reader.next_head()
    assert head is not None
    assert (head.has_body, head.keep_alive, head.http10) == (False, False, True)


def test_body_that_ends_too_early():
    reader = RequestReader()
    reader.feed(POST[:-2])
    reader.next_head()
    assert reader.next_body() == b"hel"
    assert reader.next_body() is None
    reader.feed(b"")
    with pytest.raises(EngineError) as caught:
        reader.next_body()
    assert caught.value.kind is Kind.INVALID


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (b"GET / HTTP/1.1\nHost: d\n\n", Kind.INVALID),
        (b"GET / HTTP/1.1\r\nHost: d\r\nX: a\r\n b\r\n\r\n", Kind.INVALID),
        (b"GET / HTTP/1.1\r\nHost: d\r\n" + b"X: a\r\n" * 101 + b"\r\n", Kind.HEADERS_TOO_LARGE),
        (b"GET /" + b"a" * 40000, Kind.HEADERS_TOO_LARGE),
        (b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\nHost: d\r\n\r\n", Kind.HEADERS_TOO_LARGE),
        (b"\x16\x03\x01\x02\n", Kind.INVALID),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_refusals(payload, kind, whole):
    reader = RequestReader()

    def feed():
        for piece in [payload] if whole else [bytes([byte]) for byte in payload]:
            reader.feed(piece)
            if reader.next_head() is not None:
                return

    with pytest.raises(EngineError) as caught:
        feed()
    assert caught.value.kind is kind


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_junk_never_does_anything_else_than_refuse(junk):
    reader = RequestReader()
    reader.feed(b"GET / HTTP/1.1\r\n" + junk + b"\r\n\r\n")
    try:
        reader.next_head()
    except EngineError as error:
        assert error.kind in {Kind.INVALID, Kind.HEADERS_TOO_LARGE}  # noqa: PT017


def test_response_head():
    assert response_head(404, [("A", "b")]) == b"HTTP/1.1 404 Not Found\r\nA: b\r\n\r\n"
    for value in ("a\r\nX: y", "a\n", "a\0"):
        with pytest.raises(ValueError, match="control character"):
            response_head(200, [("A", value)])
    assert chunk(b"x" * 17) == b"11\r\n" + b"x" * 17 + b"\r\n"


_NAMES = st.sampled_from(
    [
        "Host",
        "host",
        "Content-Length",
        "content-length",
        "Connection",
        "Expect",
        "X-A",
        "X b",
        "",
        "TE",
    ]
)
_VALUES = st.sampled_from(
    ["d", "0", "5", "05", "+5", "5, 5", "close", "Upgrade, close", "keep-alive", "100-continue", "",
     " spaced  out ", "\ttab", "\xe9", "a\x00b", "a\x7fb", "1" * 19]
)  # fmt: skip
_FIRST = st.sampled_from(
    ["GET / HTTP/1.1", "POST /a?b=%20 HTTP/1.1", "GET  / HTTP/1.1", "GET / HTTP/1.0", "GET /",
     "get / HTTP/1.1", "GET /a b HTTP/1.1", "GET / HTTP/1.1 ", "TRACE / HTTP/1.1", "GET /\xe9 HTTP/1.1"]
)  # fmt: skip


def _judged_by_h11(raw: bytes) -> Head | None:
    try:
        return RequestReader()._judged(raw)
    except EngineError:
        return None


@given(
    _FIRST, st.lists(st.tuples(_NAMES, st.sampled_from([":", ": ", " : "]), _VALUES), max_size=5)
)
@settings(max_examples=600, deadline=None)
def test_a_head_read_without_h11_is_what_h11_reads(first, fields):
    lines = [first, "Host: d", *("".join(one) for one in fields)]
    raw = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    plain = None if b"\x00" in raw else _plain(raw)
    if plain is not None:
        judged = _judged_by_h11(raw)
        assert judged is not None, "what h11 refuses was taken"
        assert plain.headers.items() == judged.headers.items()
        told = (plain.method, plain.target, plain.keep_alive, plain.has_body)
        assert told == (judged.method, judged.target, judged.keep_alive, judged.has_body)
        assert plain.expects_continue == judged.expects_continue
        assert plain.http10 == judged.http10


def test_what_clients_send_is_read_without_h11():
    for raw in (
        GET,
        (
            b"POST /v1.51/exec/a/start HTTP/1.1\r\nHost: api.moby.localhost\r\nUser-Agent: D/1 (l)\r\n"
            b"Content-Length: 29\r\nConnection: Upgrade\r\nContent-Type: application/json\r\n"
            b"Upgrade: tcp\r\n\r\n"
        ),
    ):
        assert _plain(raw) is not None


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX\t: b\r\n\r\n",
    ],
)
def test_everything_else_is_left_to_h11(raw):
    assert _plain(raw) is None
