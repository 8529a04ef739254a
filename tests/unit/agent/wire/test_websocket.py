"""RFC 6455 frames: the RFC's own examples, whole and one byte at a time."""

import pytest

from agent.wire import websocket
from agent.wire.websocket import BINARY, CLOSE, PING, TEXT, Decoder, WebSocketError, accept, frame

MASK = b"\x37\xfa\x21\x3d"


def masked(kind: int, payload: bytes, *, fin: bool = True) -> bytes:
    plain = frame(kind, payload)
    size = 2 + {126: 2, 127: 8}.get(plain[1], 0)
    first = plain[0] if fin else plain[0] & 0x7F
    body = bytes(byte ^ MASK[at % 4] for at, byte in enumerate(payload))
    return bytes((first, plain[1] | 0x80)) + plain[2:size] + MASK + body


def decoded(data: bytes, step: int) -> list[tuple[int, bytes]]:
    """(kind, payload) of each frame."""
    decoder, found, rest = Decoder(), [], b""
    for start in range(0, len(data), step):
        rest += data[start : start + step]
        while rest:
            if not decoder.complete():
                rest = rest[decoder.header(rest) :]
                if decoder.complete():
                    found.append((decoder.kind, b""))
                    if not decoder.left:
                        decoder.advance(0)
                continue
            plain = decoder.peek(rest)[:3]
            decoder.advance(len(plain))
            found[-1] = (found[-1][0], found[-1][1] + plain)
            rest = rest[len(plain) :]
    return found


def test_accept():
    assert accept("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    with pytest.raises(WebSocketError):
        accept("short")


@pytest.mark.parametrize("step", [1, 2, 5, 100_000])
def test_frames(step):
    long = bytes(range(256)) * 300
    data = (
        masked(TEXT, b"Hello") + masked(PING, b"") + masked(BINARY, long[:200])
        + masked(BINARY, long, fin=False) + masked(CLOSE, b"\x03\xe8")
    )  # fmt: skip
    assert decoded(data, step) == [
        (TEXT, b"Hello"), (PING, b""), (BINARY, long[:200]), (BINARY, long), (CLOSE, b"\x03\xe8"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, b"unmasked"),
        b"\xc1\x80" + MASK,  # a reserved bit
        b"\x83\x80" + MASK,  # an unknown type
        b"\x09\x80" + MASK,  # a control frame in pieces
        b"\x89\xfe\x00\x7e" + MASK,  # a long one
    ],
)
def test_broken_ones(data):
    with pytest.raises(WebSocketError):
        decoded(data, 1)


def test_sizes():
    assert frame(BINARY, b"x" * 125)[:2] == b"\x82\x7d"
    assert frame(BINARY, b"x" * 126)[:4] == b"\x82\x7e\x00\x7e"
    assert frame(BINARY, b"x" * 65536)[:10] == b"\x82\x7f" + (65536).to_bytes(8, "big")
    assert websocket.close_frame(1000) == b"\x88\x02\x03\xe8"
