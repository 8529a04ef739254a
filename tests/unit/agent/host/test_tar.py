"""Writing, reading and unpacking tar streams: round trips, oddities, confinement."""

import io
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from agent.host import tarheader
from agent.host.inflate import inflated
from agent.host.tarheader import Headers, TarError
from agent.host.tarwriter import Member, header
from agent.host.treetar import TreeTar
from agent.host.untar import Rules, Untar


def pack(folder: Path, name: bytes = b".", shown: bytes = b"top", *, top: bool = True) -> bytes:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return b"".join(TreeTar(fd, name, shown, top=top).pieces())
    finally:
        os.close(fd)


def unpack(folder: Path, data: bytes, into: bytes = b"/", rules: Rules | None = None) -> None:
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    owner = Rules(owner=(os.getuid(), os.getgid()))
    try:
        # In small pieces: what comes from a socket has no respect for headers.
        pieces = (data[start : start + 700] for start in range(0, len(data), 700))
        Untar(fd, into, pieces, rules or owner).run()
    finally:
        os.close(fd)


def archive(*infos: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, data in infos:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mtime = kind, link, 1_700_000_000
    return info


@pytest.mark.parametrize(
    "member",
    [
        Member(b"plain", tarheader.REGULAR, 0o644, 0, 0, 5, 1_700_000_000),
        Member(b"a" * 300, tarheader.REGULAR, 0o4755, 3_000_000, 4_000_000_000, 1 << 34, -5),
        Member(b"d/" * 80, tarheader.DIRECTORY, 0o1777, 1, 2),
        Member("ü".encode(), tarheader.SYMLINK, 0o777, 0, 0, link=b"x" * 200),
        Member(b"\xff\n\x1b", tarheader.SYMLINK, 0o777, 0, 0, link=b"\xfe"),
        Member(b"c", tarheader.CHAR, 0o600, 0, 0, major=10, minor=200),
        Member(b"x", tarheader.REGULAR, 0, 0, 0, xattrs={b"security.capability": b"\1\0=\n"}),
    ],
)
def test_headers_are_read_back(member):
    source = io.BytesIO(header(member))
    found = Headers(source.read).next()
    assert found is not None
    assert found.name.rstrip(b"/") == member.name.rstrip(b"/")
    for name in ("kind", "mode", "uid", "gid", "link", "major", "minor", "xattrs"):
        assert getattr(found, name) == getattr(member, name), name
    assert found.mtime == member.mtime * 1_000_000_000
    assert found.size == member.size


def test_the_standard_library_reads_it_too(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / ("n" * 200)).write_bytes(b"x" * 5000)
    (tmp_path / "link").symlink_to("sub")
    os.link(tmp_path / "sub" / ("n" * 200), tmp_path / "hard")
    os.mkfifo(tmp_path / "fifo")
    with tarfile.open(fileobj=io.BytesIO(pack(tmp_path))) as tar:
        found = {one.name: one for one in tar.getmembers()}
    assert list(found) == ["top", "top/fifo", "top/hard", "top/link", "top/sub", *list(found)[5:]]
    assert found["top/fifo"].isfifo()
    assert found["top/link"].linkname == "sub"
    assert found["top/sub/" + "n" * 200].islnk()
    assert found["top/hard"].size == 5000


def test_a_very_deep_tree(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    before = len(os.listdir("/proc/self/fd"))
    data = pack(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames()[-1] == "top" + "/d" * 300 + "/leaf"


def test_contents_only(tmp_path):
    (tmp_path / "a").write_text("1")
    with tarfile.open(fileobj=io.BytesIO(pack(tmp_path, shown=b"", top=False))) as tar:
        assert tar.getnames() == ["a"]


def test_round_trip(tmp_path):
    source, target = tmp_path / "s", tmp_path / "t"
    (source / "d").mkdir(parents=True)
    target.mkdir()
    (source / "d/f").write_bytes(b"data" * 1000)
    (source / "d/f").chmod(0o751)
    (source / "d/l").symlink_to("/anywhere")
    (source / "d").chmod(0o1750)
    unpack(target, pack(source))
    assert (target / "top/d/f").read_bytes() == b"data" * 1000
    assert stat.S_IMODE((target / "top/d/f").stat().st_mode) == 0o751
    assert stat.S_IMODE((target / "top/d").stat().st_mode) == 0o1750
    assert (target / "top/d/l").readlink() == Path("/anywhere")


def test_links_mean_what_they_mean_inside(tmp_path):
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "to").mkdir()
    data = archive(
        (entry("abs", tarfile.SYMTYPE, "/etc"), b""),
        (entry("up", tarfile.SYMTYPE, "../../../../etc"), b""),
        (entry("abs/one"), b"1"),
        (entry("up/two"), b"2"),
    )
    unpack(root, data, b"/to")
    assert sorted(os.listdir(root / "etc")) == ["one", "two"]
    assert sorted(os.listdir(tmp_path)) == ["root"]


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/../x"])
def test_dots_are_refused(tmp_path, name):
    with pytest.raises(TarError, match=r'"\.\." in a name'):
        unpack(tmp_path, archive((entry(name), b"x")))


def test_kinds(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "f").write_text("old")
    keep = Rules(keep_kinds=True, owner=(os.getuid(), os.getgid()))
    with pytest.raises(TarError, match="cannot overwrite directory with non-directory"):
        unpack(tmp_path, archive((entry("d"), b"x")), rules=keep)
    with pytest.raises(TarError, match="cannot overwrite non-directory with directory"):
        unpack(tmp_path, archive((entry("f", tarfile.DIRTYPE), b"")), rules=keep)
    unpack(tmp_path, archive((entry("d"), b"x"), (entry("f", tarfile.DIRTYPE), b"")))
    assert (tmp_path / "d").read_text() == "x"
    assert (tmp_path / "f").is_dir()


def test_a_cut_archive(tmp_path):
    data = archive((entry("f"), b"x" * 2000))
    with pytest.raises(TarError, match="truncated"):
        unpack(tmp_path, data[:1500])


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_compressed(kind):
    buffer = io.BytesIO()
    mode: Any = f"w:{kind}"
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        tar.addfile(entry("f"), io.BytesIO(b""))
    source = io.BytesIO(buffer.getvalue())
    plain = b"".join(inflated(lambda: source.read(7)))
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        assert tar.getnames() == ["f"]
