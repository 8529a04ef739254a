"""The incremental parsers: frames, JSON lines, detach keys; whole, byte by byte, with a tail."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Kind
from agent.wire import frames, jsonlines
from agent.wire.detach import DetachFilter, DetachKeysError, parse_detach_keys
from agent.wire.frames import Frame, FrameDecoder, FrameError
from agent.wire.jsonlines import JsonLinesDecoder, JsonLinesError


def cut(data: bytes, how: str) -> list[bytes]:
    return [data] if how == "whole" else [bytes([byte]) for byte in data]


both = pytest.mark.parametrize("how", ["whole", "bytes"])


@both
def test_frames(how):
    stream = frames.encode(1, b"out") + frames.encode(2, b"") + frames.encode(2, b"err")
    decoder = FrameDecoder()
    found = [frame for piece in cut(stream, how) for frame in decoder.feed(piece)]
    assert found == [Frame(1, b"out"), Frame(2, b""), Frame(2, b"err")]
    decoder.finish()
    assert decoder.feed(b"\x01\0\0\0\0\0\0\x03ab") == []
    with pytest.raises(FrameError):
        decoder.finish()


def test_frames_known_bytes():
    assert frames.encode(2, b"hi") == b"\x02\0\0\0\0\0\0\x02hi"
    assert frames.encode_all([(1, b"a"), (1, b""), (2, b"b")]) == (
        b"\x01\0\0\0\0\0\0\x01a\x02\0\0\0\0\0\0\x01b"
    )


@both
def test_partial_frames(how):
    stream = frames.encode(1, b"abcdef") + frames.encode(2, b"g")
    decoder = FrameDecoder(partial=True)
    found = [frame for piece in cut(stream, how) for frame in decoder.feed(piece)]
    assert b"".join(frame.data for frame in found if frame.stream == 1) == b"abcdef"
    assert found[-1] == Frame(2, b"g")
    decoder.finish()


@pytest.mark.parametrize(
    "junk", [b"HTTP/1.1", b"\x04\0\0\0\0\0\0\0", b"\x01\0\0\0\xff\xff\xff\xff"]
)
def test_not_frames(junk):
    with pytest.raises(FrameError):
        FrameDecoder().feed(junk)


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(min_size=1, max_size=40))), st.data())
def test_frames_cut_anywhere(pieces, data):
    stream = frames.encode_all(pieces)
    size = data.draw(st.integers(1, 17))
    decoder = FrameDecoder()
    found = []
    for start in range(0, len(stream), size):
        found += decoder.feed(stream[start : start + size])
    assert [(frame.stream, frame.data) for frame in found] == pieces


@both
def test_json_lines(how):
    stream = '{"a":"é"}\r\n\n [1]{"b":2}\n"tail"'.encode()
    decoder = JsonLinesDecoder()
    found = [item for piece in cut(stream, how) for item in decoder.feed(piece)]
    assert found == [{"a": "é"}, [1], {"b": 2}]
    assert decoder.finish() == ["tail"]
    assert decoder.finish() == []


def test_json_lines_errors():
    for junk in (b"{\n", b"\xff\n", b"nonsense\n", b"[" * 100_000 + b"\n"):
        with pytest.raises(JsonLinesError):
            JsonLinesDecoder().feed(junk)
    with pytest.raises(JsonLinesError):
        JsonLinesDecoder(limit=10).feed(b"[1,2,3,4,5,6")
    decoder = JsonLinesDecoder()
    decoder.feed(b'{"cut')
    with pytest.raises(JsonLinesError):
        decoder.finish()
    assert json.loads(jsonlines.encode({"a": 1})) == {"a": 1}
    assert jsonlines.encode({"a": 1}).endswith(b"\r\n")


def test_detach_specifications():
    assert parse_detach_keys("") == b"\x10\x11"
    assert parse_detach_keys("ctrl-p,ctrl-q") == b"\x10\x11"
    assert parse_detach_keys("ctrl-@,ctrl-a,ctrl-z,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_,DEL,x") == (
        b"\x00\x01\x1a\x1b\x1c\x1d\x1e\x1f\x7fx"
    )
    for spec in ("ctrl-", "ctrl-A", "ab", "ctrl-p,", "é", "del"):
        with pytest.raises(DetachKeysError) as caught:
            parse_detach_keys(spec)
        assert caught.value.kind is Kind.INVALID
        assert caught.value.message == f"Invalid detach keys ({spec}) provided"


@both
@pytest.mark.parametrize(
    ("keys", "data", "out", "detached"),
    [
        (b"\x10\x11", b"abc", b"abc", False),
        (b"\x10\x11", b"a\x10\x11b", b"a", True),
        (b"\x10\x11", b"a\x10b\x11", b"a\x10b\x11", False),
        (b"\x10\x11", b"\x10\x10\x11x", b"\x10", True),
        (b"aab", b"aaab", b"a", True),
        (b"aa", b"a", b"a", False),
        (b"x", b"yx", b"y", True),
        (b"", b"\x10\x11", b"\x10\x11", False),
    ],
)
def test_detach(how, keys, data, out, detached):
    scanner = DetachFilter(keys)
    got, seen = b"", False
    for piece in cut(data, how):
        passed, seen = scanner.feed(piece)
        got += passed
        if seen:
            break
    got += scanner.finish()
    assert (got, seen) == (out, detached)


@given(st.lists(st.sampled_from(b"ab\x10"), max_size=30), st.integers(1, 5))
def test_detach_loses_nothing(data, size):
    stream, keys = bytes(data), b"ab\x10a"
    scanner = DetachFilter(keys)
    got, seen = b"", False
    for start in range(0, len(stream), size):
        passed, seen = scanner.feed(stream[start : start + size])
        got += passed
        if seen:
            break
    got += scanner.finish()
    at = stream.find(keys)
    assert seen is (at >= 0)
    assert got == (stream[:at] if seen else stream)
