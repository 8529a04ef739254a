import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.runtime.loglines import (
    Renderer,
    View,
    docker_stamp,
    frame,
    stamp_ns,
    tail_offset,
)

T1, T2, T3 = (b"2026-11-23T18:51:1%d.000000001+00:00" % n for n in (1, 2, 3))
LOG = (
    T1 + b" stdout F one\n"
    + T1 + b" stdout P tw\n"
    + T2 + b" stdout F o\n"
    + T2 + b" stderr F err\n"
    + T3 + b" stdout F \n"
    + T3 + b" stdout P no end\n"
)  # fmt: skip


def unframe(data: bytes) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    while data:
        size = int.from_bytes(data[4:8], "big")
        found.append((data[0], data[8 : 8 + size]))
        data = data[8 + size :]
    return found


def streams(data: bytes) -> tuple[bytes, bytes]:
    pieces = unframe(data)
    return (
        b"".join(text for number, text in pieces if number == 1),
        b"".join(text for number, text in pieces if number == 2),
    )


def test_exact_bytes():
    assert streams(Renderer(View()).feed(LOG)) == (b"one\ntwo\n\nno end", b"err\n")
    assert Renderer(View(framed=False)).feed(LOG) == b"one\ntwo\nerr\n\nno end"
    assert Renderer(View(stderr=False, framed=False)).feed(LOG) == b"one\ntwo\n\nno end"
    assert Renderer(View(stdout=False, framed=False)).feed(LOG) == b"err\n"


@pytest.mark.parametrize("view", [View(), View(timestamps=True), View(since=0)])
def test_record_by_record_is_the_same(view: View):
    whole, single = Renderer(view), Renderer(view)
    records = LOG.splitlines(keepends=True)
    assert streams(b"".join(single.feed(record) for record in records)) == streams(whole.feed(LOG))


@pytest.mark.parametrize("view", [View(), View(stderr=False), View(stdout=False)])
def test_odd_stamps_take_the_general_way(view: View):
    odd = LOG.replace(b".000000001+00:00", b"Z")
    assert streams(Renderer(view).feed(odd)) == streams(Renderer(view).feed(LOG))


def test_one_stream_is_one_frame():
    block = T1 + b" stdout F a\n" + T1 + b" stdout P b\n" + T1 + b" stdout F c\n"
    assert unframe(Renderer(View()).feed(block)) == [(1, b"a\nbc\n")]


def test_timestamps_only_where_a_line_begins():
    text = Renderer(View(timestamps=True, framed=False)).feed(LOG).split(b"\n")
    stamp1, stamp3 = (s[:-6] + b"Z " for s in (T1, T3))
    assert text[0] == stamp1 + b"one"
    assert text[1] == stamp1 + b"two"
    assert text[-1] == stamp3 + b"no end"


def test_since_and_until():
    at2 = stamp_ns(T2)
    renderer = Renderer(View(since=at2, until=at2, framed=False))
    assert renderer.feed(LOG) == b"o\nerr\n"
    assert renderer.finished
    assert renderer.feed(LOG) == b""


def test_stamps():
    assert stamp_ns(b"1970-01-01T00:00:01.5Z") == 1_500_000_000
    assert stamp_ns(b"1970-01-01T01:00:01.5+01:00") == 1_500_000_000
    assert stamp_ns(b"nonsense") == 0
    assert docker_stamp(b"1970-01-01T01:00:01.500000000+01:00") == b"1970-01-01T00:00:01.500000000Z"


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=60)), max_size=20))
def test_case_059_any_bytes_come_back(written):
    log, expected = b"", {1: b"", 2: b""}
    for stream, data in written:
        name = {1: b"stdout", 2: b"stderr"}[stream]
        for piece in data.splitlines(keepends=True) if b"\r" not in data else [data]:
            for part in piece.split(b"\n")[:-1]:
                log += T1 + b" " + name + b" F " + part + b"\n"
                expected[stream] += part + b"\n"
            last = piece.split(b"\n")[-1]
            if last:
                log += T1 + b" " + name + b" P " + last + b"\n"
                expected[stream] += last
    assert streams(Renderer(View()).feed(log)) == (expected[1], expected[2])


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (0, b""),
        (1, b"no end"),
        (2, b"\nno end"),
        (3, b"err\n\nno end"),
        (4, b"two\nerr\n\nno end"),
        (5, b"one\ntwo\nerr\n\nno end"),
        (99, b"one\ntwo\nerr\n\nno end"),
    ],
)
def test_tail(lines: int, expected: bytes):
    offset, _ = tail_offset(LOG, lines)
    assert Renderer(View(framed=False)).feed(LOG[offset:]) == expected


def test_frame():
    assert frame(2, b"abc") == b"\x02\0\0\0\0\0\0\x03abc"
