"""The header parser: fed with tarfile's and GNU's spellings, and with noise."""

from __future__ import annotations

import io
import tarfile
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.images import tarheader
from agent.images.extract import climbs_out, keeps_xattr, split
from agent.images.tarheader import Entry, Headers, TarError
from tests.support.evilregistry import END, member, pad, raw_header, tar


def entries(data: bytes) -> list[Entry]:
    stream = io.BytesIO(data)
    headers = Headers(stream.read)
    found: list[Entry] = []
    while (entry := headers.next()) is not None:
        stream.read(tarheader.padded(entry.size))
        found.append(entry)
    return found


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300
).filter(lambda name: not name.endswith("/"))


@given(
    NAMES,
    st.binary(max_size=700),
    st.integers(0, 0o7777),
    st.integers(0, 2**32 - 2),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_what_tarfile_writes(name: str, data: bytes, mode: int, uid: int, form: int) -> None:
    archive = tar([member(name, data, mode=mode, uid=uid), member("after", b"x")], form)
    first, second = entries(archive)
    assert (first.name, first.size, first.mode, first.uid) == (
        name.encode(),
        len(data),
        mode,
        uid,
    )
    assert second.name == b"after"


@given(st.binary(max_size=2000))
def test_noise_gives_tar_errors_only(noise: bytes) -> None:
    with suppress(TarError):
        entries(noise)


@given(st.binary(max_size=200), st.integers(0, 511), st.integers(0, 255))
def test_changed_bytes(body: bytes, position: int, value: int) -> None:
    archive = bytearray(raw_header(b"name", len(body)) + pad(body) + END)
    archive[position] = value
    archive[148:156] = b" " * 8
    archive[148:156] = b"%06o\0 " % sum(archive[:512])
    with suppress(TarError):
        entries(bytes(archive))


def test_long_names_and_pax_win() -> None:
    longname = raw_header(b"././@LongLink", 6, b"L") + pad(b"gnu/x\0")
    pax = raw_header(b"p", 14, b"x") + pad(b"14 path=pax/x\n")
    assert entries(longname + raw_header(b"short") + END)[0].name == b"gnu/x"
    assert entries(longname + pax + raw_header(b"short") + END)[0].name == b"pax/x"
    prefixed = bytearray(raw_header(b"name"))
    prefixed[345:351] = b"prefix"
    prefixed[148:156] = b" " * 8
    prefixed[148:156] = b"%06o\0 " % sum(prefixed)
    assert entries(bytes(prefixed) + END)[0].name == b"prefix/name"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"/a//./b/", [b"a", b"b"]),
        (b"./", []),
        (b"..a/b..", [b"..a", b"b.."]),
    ],
)
def test_split(name: bytes, expected: list[bytes]) -> None:
    assert split(name, 4096) == expected


def test_climbs_out() -> None:
    assert climbs_out([b"a"], b"../../x")
    assert not climbs_out([b"a"], b"../x")
    assert not climbs_out([], b"/a/../x")
    assert climbs_out([], b"/..")


def test_kept_xattrs() -> None:
    kept = [b"security.capability", b"user.x"]
    dropped = [
        b"user.overlay.opaque",
        b"trusted.x",
        b"security.selinux",
        b"system.posix_acl_access",
    ]
    assert [key for key in kept + dropped if keeps_xattr(key)] == kept
