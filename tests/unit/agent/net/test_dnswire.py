"""The DNS codec: whole messages in and out, and whatever bytes."""

from __future__ import annotations

import contextlib
import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.net.dnswire import (
    AAAA,
    FORMERR,
    NOTIMP,
    NXDOMAIN,
    OK,
    PTR,
    A,
    BadQueryError,
    NotAQueryError,
    answer,
    answers_to,
    parse,
    pointed,
    rdata,
    refusal,
)


def message(
    name: bytes = b"\x03www\x07example\x03com\0",
    kind: int = A,
    *,
    flags: int = 0x0100,
    counts: tuple[int, int, int, int] = (1, 0, 0, 0),
    tail: bytes = b"",
) -> bytes:
    head = struct.pack(">HHHHHH", 0x1234, flags, *counts)
    return head + name + struct.pack(">HH", kind, 1) + tail


OPT = b"\0" + struct.pack(">HHIH", 41, 1232, 0, 0)


def test_a_question() -> None:
    query = parse(message())
    assert (query.id, query.name, query.type, query.klass) == (0x1234, "www.example.com", A, 1)
    assert (query.size, query.edns, query.end) == (512, False, len(message()))
    query = parse(message(counts=(1, 0, 0, 1), tail=OPT))
    assert (query.size, query.edns) == (1232, True)
    assert parse(message(b"\0")).name == ""
    assert parse(message(b"\x03a.b\0")).name == "a\\.b"
    assert parse(message(b"\x02\xff\x00\0")).name == "\\xff\x00"


@pytest.mark.parametrize(
    ("data", "rcode"),
    [
        (message(b"\xc0\x0c"), FORMERR),  # a pointer to itself
        (message(b"\x40" + b"a" * 64 + b"\0"), FORMERR),
        (message((b"\x3f" + b"a" * 63) * 4 + b"\0"), FORMERR),  # 256 bytes
        (message(counts=(2, 0, 0, 0)), FORMERR),
        (message(counts=(0, 0, 0, 0)), FORMERR),
        (message(counts=(1, 1, 0, 0)), FORMERR),
        (message()[:-1], FORMERR),
        (message()[:14], FORMERR),
        (message(flags=0x2800), NOTIMP),  # an update
    ],
)
def test_what_is_refused(data: bytes, rcode: int) -> None:
    with pytest.raises(BadQueryError) as caught:
        parse(data)
    assert caught.value.rcode == rcode
    reply = refusal(data, rcode)
    assert reply[:2] == data[:2]
    assert (reply[3] & 15, reply[2] & 0x80) == (rcode, 0x80)


@pytest.mark.parametrize("data", [b"", b"x" * 11, message(flags=0x8180)])
def test_what_is_not_answered(data: bytes) -> None:
    with pytest.raises(NotAQueryError):
        parse(data)


@given(st.binary(max_size=80))
def test_case_108_any_bytes(data: bytes) -> None:
    for one in (data, message()[:12] + data):
        try:
            query = parse(one)
        except NotAQueryError:
            continue
        except BadQueryError as error:
            refusal(one, error.rcode)
            continue
        answer(query, one, NXDOMAIN)


def test_answers() -> None:
    data = message(counts=(1, 0, 0, 1), tail=OPT)
    records = [ip_address(f"10.0.0.{n}").packed for n in range(1, 4)]
    reply = answer(parse(data), data, records=records, limit=1232)
    assert struct.unpack_from(">HHHHHH", reply) == (0x1234, 0x8180, 1, 3, 0, 1)
    assert reply.count(b"\xc0\x0c\0\x01\0\x01") == 3
    assert reply.endswith(b"\0" + struct.pack(">HHIH", 41, 4096, 0, 0))
    assert answer(parse(message()), message(), NXDOMAIN)[3] & 15 == NXDOMAIN
    assert answers_to(reply, 0x1234)
    assert not answers_to(reply, 0x1235)
    assert not answers_to(data, 0x1234)


def test_too_many_for_a_datagram() -> None:
    records = [ip_address(0x0A000000 + n).packed for n in range(100)]
    reply = answer(parse(message()), message(), records=records, limit=512)
    assert len(reply) <= 512
    assert reply[2] & 0x02  # TC
    assert struct.unpack_from(">H", reply, 6)[0] == (512 - len(message())) // 16
    whole = answer(parse(message()), message(), records=records)
    assert struct.unpack_from(">H", whole, 6)[0] == 100


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("4.3.2.1.in-addr.arpa", "1.2.3.4"),
        ("4.3.2.1.IN-ADDR.ARPA", "1.2.3.4"),
        ("1." + "0." * 30 + "f.ip6.arpa", "f000::1"),
        ("3.2.1.in-addr.arpa", None),
        ("400.3.2.1.in-addr.arpa", None),
        ("x." + "0." * 31 + "ip6.arpa", None),
        ("www.example.com", None),
    ],
)
def test_pointed(name: str, address: str | None) -> None:
    assert pointed(name) == (ip_address(address) if address else None)


def test_names_as_data() -> None:
    assert rdata("web.front") == b"\x03web\x05front\0"
    for wrong in ("a..b", "x" * 64, ""):
        with pytest.raises(ValueError, match="not a domain name"):
            rdata(wrong)
    with contextlib.suppress(ValueError):
        rdata("n\u00e4me")
    assert (OK, PTR, AAAA) == (0, 12, 28)
