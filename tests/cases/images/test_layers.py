"""security.md 5.1: hostile layers, unpacked by the real worker.  Named by case number."""

from __future__ import annotations

import ctypes
import gzip
import io
import os
import random
import stat
import subprocess
import tarfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import EngineError, Kind
from agent.images.settings import Limits
from tests.cases.images.unpacking import Bench, bench
from tests.support.evilregistry import END, member, pad, raw_header, tar

LINK, HARD, CHAR, BLOCK, DIR, FIFO = (
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)


@pytest.fixture(name="lab")
def _lab() -> Iterator[Bench]:
    with bench() as found:
        yield found


def refused(lab: Bench, data: bytes, text: str = "", **kwargs: object) -> EngineError:
    began = time.monotonic()
    with pytest.raises(EngineError) as caught:
        lab.unpack(data, **kwargs)  # type: ignore[arg-type]
    assert caught.value.kind in (Kind.INVALID, Kind.DATA_LOSS), caught.value
    assert text in caught.value.message, caught.value.message
    assert "Traceback" not in caught.value.message
    assert time.monotonic() - began < 5
    return caught.value


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/../../../x", "..", "a/..", "/../x"])
def test_case_001_dot_dot_names_are_refused(lab: Bench, name: str) -> None:
    error = refused(lab, tar([member("ok", b"1"), member(name, b"evil")]), '".." in a name')
    assert name in error.message
    assert not (lab.diff / "x").exists()


def test_case_002_absolute_names_land_in_the_root(lab: Bench) -> None:
    lab.unpack(tar([member("/etc/x", b"1"), member("//etc/y", b"2"), member("./././etc/z", b"3")]))
    assert lab.listing() == ["etc", "etc/x", "etc/y", "etc/z"]


def test_case_003_file_through_an_absolute_symlink(lab: Bench) -> None:
    canary = str(lab.canary)
    attack = [member("d", kind=LINK, link=canary), member("d/f", b"evil")]
    refused(lab, tar(attack), "no directory")
    lab.unpack(tar([member(canary + "/", kind=DIR, mode=0o755), *attack]))
    assert (lab.diff / canary.lstrip("/") / "f").read_bytes() == b"evil"


def test_case_003_symlink_swapped_in_for_a_used_directory(lab: Bench) -> None:
    # The parent's descriptor is cached when the symlink comes.
    attack = [
        member("a/d/one", b"1"),
        member("a/d", kind=LINK, link=str(lab.canary)),
        member("a/d/two", b"2"),
    ]
    refused(lab, tar(attack), "no directory")
    attack[1:2] = [member("e/", kind=DIR, mode=0o755), member("a/d", kind=LINK, link="../e")]
    lab.unpack(tar(attack))
    assert (lab.diff / "e/two").read_bytes() == b"2"
    assert lab.listing() == ["a", "a/d", "e", "e/two"]


@pytest.mark.parametrize(
    "target",
    ["/etc/shadow", "../../../etc/shadow", "missing", "dir", "outward", "self", "/"],
)
def test_case_005_hard_links(lab: Bench, target: str) -> None:
    attack = [
        member("dir/", kind=DIR, mode=0o755),
        member("outward", kind=LINK, link="../../../../../../../../etc/shadow"),
        member("self", kind=HARD, link=target),
        member("missing", b"too late"),
    ]
    refused(lab, tar(attack))


def test_case_005_legal_hard_links(lab: Bench) -> None:
    lab.unpack(
        tar(
            [
                member("a/x", b"data"),
                member("s", kind=LINK, link="/a"),
                member("y", kind=HARD, link="/s/x"),
                member("z", kind=HARD, link="s"),
                member("y", kind=HARD, link="a/x"),
            ]
        )
    )
    assert (lab.diff / "y").stat().st_ino == (lab.diff / "a/x").stat().st_ino
    assert os.readlink(lab.diff / "z") == "/a"


@pytest.mark.parametrize("name", [".", "/", "./", "/./"])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, LINK, CHAR, FIFO])
def test_case_007_the_root_cannot_be_replaced(lab: Bench, name: str, kind: bytes) -> None:
    raw = raw_header(name.encode(), kind=kind, link=b"/etc") + END
    if name.endswith("/") and kind == tarfile.REGTYPE:
        lab.unpack(raw)  # "/" with type file is how old archives write a directory
    else:
        refused(lab, raw, "the root can only be a directory")
    assert lab.diff.is_dir()
    assert not lab.diff.is_symlink()


def test_case_007_the_roots_mode_is_the_images(lab: Bench) -> None:
    found = lab.unpack(tar([member("./", kind=DIR, mode=0o1750, uid=7, gid=8)]))
    assert found.root == (0o1750, 7, 8)
    assert stat.S_IMODE(lab.diff.stat().st_mode) == 0o1750
    assert lab.unpack(tar([member("x", b"")])).root is None
    assert stat.S_IMODE(lab.diff.stat().st_mode) == 0o755


def test_case_008_deferred_metadata_of_a_replaced_directory(lab: Bench) -> None:
    attack = [
        member("d/", kind=DIR, mode=0o700, mtime=1000, uid=5),
        member("e/", kind=DIR, mode=0o711, mtime=3000),
        member("d", kind=LINK, link=str(lab.canary)),
        member("f/", kind=DIR, mode=0o700, mtime=1000),
        member("f", kind=LINK, link="e"),
    ]
    lab.unpack(tar(attack))
    assert stat.S_IMODE((lab.diff / "e").stat().st_mode) == 0o711
    assert (lab.diff / "e").stat().st_mtime == 3000


def test_case_009_device_nodes_and_fifos(lab: Bench) -> None:
    lab.unpack(
        tar(
            [
                member("null", kind=CHAR, mode=0o666, devmajor=1, devminor=3, uid=3),
                member("disk", kind=BLOCK, mode=0o666, devmajor=8, devminor=0),
                member("fifo", kind=FIFO, mode=0o4666, gid=4),
            ]
        )
    )
    null = (lab.diff / "null").lstat()
    assert (stat.S_ISCHR(null.st_mode), null.st_rdev, null.st_uid) == (True, os.makedev(1, 3), 3)
    assert stat.S_IMODE(null.st_mode) == 0o666
    assert (lab.diff / "disk").lstat().st_rdev == os.makedev(8, 0)
    fifo = (lab.diff / "fifo").lstat()
    assert (stat.S_ISFIFO(fifo.st_mode), stat.S_IMODE(fifo.st_mode)) == (True, 0o4666)
    refused(lab, tar([member("wh", kind=CHAR)]), "overlay whiteout")


def test_case_010_setuid_sticky_and_file_capabilities(lab: Bench) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    info, data = member("ping", b"elf", mode=0o755, uid=3, gid=4)
    info.pax_headers = {
        "SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape"),
        "SCHILY.xattr.user.note": "kept",
    }
    lab.unpack(
        tar(
            [
                (info, data),
                member("su", b"x", mode=0o4755, uid=9),
                member("dir/", kind=DIR, mode=0o3777, gid=50),
                member("dir/file", b"", mode=0o2755),
            ]
        )
    )
    assert os.getxattr(lab.diff / "ping", "security.capability") == capability
    assert os.getxattr(lab.diff / "ping", "user.note") == b"kept"
    modes = {name: stat.S_IMODE((lab.diff / name).stat().st_mode) for name in ("su", "dir")}
    assert modes == {"su": 0o4755, "dir": 0o3777}
    assert (lab.diff / "dir/file").stat().st_gid == 0
    assert (lab.diff / "su").stat().st_uid == 9


def _takes(folder: Path, name: str, value: bytes) -> bool:
    """Whether the file system of that folder stores such an extended attribute."""
    try:
        os.setxattr(folder, name, value)
    except OSError:
        return False
    os.removexattr(folder, name)
    return True


def test_case_011_hostile_xattrs(lab: Bench) -> None:
    def with_xattrs(**values: str) -> bytes:
        info, data = member("d/", kind=DIR, mode=0o755)
        info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in values.items()}
        return tar([(info, data)])

    hostile = {
        "trusted.overlay.redirect": "/etc",
        "trusted.overlay.opaque": "y",
        "user.overlay.opaque": "y",
        "security.selinux": "x",
        "trusted.other": "x",
    }
    lab.unpack(with_xattrs(**hostile))
    assert os.listxattr(lab.diff / "d") == []
    refused(lab, with_xattrs(**{"user.big": "x" * 65537}), "too large")
    large = with_xattrs(**{"user.big": "x" * 60000})
    if _takes(lab.folder, "user.big", b"x" * 60000):  # tmpfs does, ext4 does not
        lab.unpack(large)
        assert len(os.getxattr(lab.diff / "d", "user.big")) == 60000
    else:
        refused(lab, large, "xtended attribute is too large")
    refused(lab, with_xattrs(**{f"user.n{n}": "x" for n in range(1000)}), "more than 100")


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", ".wh.../x", ".wh.a/b", ".wh.../../x"])
def test_case_012_malformed_whiteouts(lab: Bench, name: str) -> None:
    refused(lab, tar([member("b/x", b"1"), member("b/" + name)]))


def is_whiteout(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def test_case_012_whiteouts_and_opaque_directories(lab: Bench) -> None:
    found = lab.unpack(
        tar(
            [
                member("a/.wh.gone"),
                member("a/.wh.before"),
                member("a/before", b"new"),
                member("a/after", b"new"),
                member("a/.wh.after"),
                member("a/.wh.tree"),
                member("a/tree/x", b"new"),
                member("a/late/y", b"new"),
                member("a/.wh.late"),
                member("o/.wh..wh..opq"),
                member("o/kept", b"1"),
                member(".wh..wh.plnk/", kind=DIR),
                member(".wh..wh.plnk/1.2", b"aufs"),
                member("p/", kind=DIR, mode=0o755),
                member("p", kind=LINK, link=str(lab.canary)),
                member("q/.wh..wh..opq"),
                member("q/x", b"1"),
                member("q", kind=LINK, link=str(lab.canary)),
            ]
        )
    )
    assert is_whiteout(lab.diff / "a/gone")
    assert (lab.diff / "a/before").read_bytes() == (lab.diff / "a/after").read_bytes() == b"new"
    opaque = [name for name in ("a/tree", "a/late", "o") if _opaque(lab.diff / name)]
    assert opaque == ["a/tree", "a/late", "o"]
    assert not _opaque(lab.diff / "a")
    assert b"q" in found.opaque  # reported, then found to be no directory any more
    assert not (lab.diff / ".wh..wh.plnk").exists()
    refused(
        lab,
        tar([member("x", kind=LINK, link=str(lab.canary)), member("x/.wh..wh..opq")]),
        "no directory",
    )
    assert b"" in lab.unpack(tar([member(".wh..wh..opq"), member("x", b"")])).opaque


def _opaque(path: Path) -> bool:
    return "trusted.overlay.opaque" in os.listxattr(path)


def test_case_013_odd_names_times_and_duplicates(lab: Bench) -> None:
    names = [b"\xff\xfe\x80", b"new\nline", b"esc\x1b[31m", b"n" * 255, b" ", b"\\"]
    body = b"".join(raw_header(name) if len(name) < 100 else b"" for name in names)
    long_name = tar([member("n" * 255)], tarfile.GNU_FORMAT).removesuffix(b"\0" * 1024)
    lab.unpack(body + long_name.rstrip(b"\0").ljust(-(-len(long_name) // 512) * 512, b"\0") + END)
    assert {os.fsencode(name) for name in os.listdir(lab.diff)} == set(names)
    times = {"minus": -1, "far": 2**40}
    lab.unpack(tar([member(name, mtime=value) for name, value in times.items()]))
    assert (lab.diff / "minus").stat().st_mtime == 0
    assert (lab.diff / "far").stat().st_mtime > 2**32
    info, data = member("x", b"1")
    info.pax_headers = {"path": "renamed/é", "mtime": "1.123456789"}
    lab.unpack(tar([(info, data)]))
    assert (lab.diff / "renamed/é").stat().st_mtime_ns == 1123456789
    lab.unpack(
        tar(
            [
                member("t", b"first"),
                member("t/", kind=DIR, mode=0o755),
                member("t/in", b"1"),
                member("t", kind=LINK, link="x"),
                member("t", b"last"),
            ]
        )
    )
    assert (lab.diff / "t").read_bytes() == b"last"


@pytest.mark.parametrize(
    "ids", [{"uid": 2**32}, {"gid": 2**32}, {"uid": 2**32 - 1}, {"gid": -1}, {"uid": 2**40}]
)
def test_case_013_owners_outside_uint32(lab: Bench, ids: dict[str, int]) -> None:
    info, data = member("x", b"1")
    info.pax_headers = {key: str(value) for key, value in ids.items()}
    refused(lab, tar([(info, data)]))
    number = next(iter(ids.values()))
    field = b"\x80" + number.to_bytes(8, "big", signed=True)[1:] if number >= 0 else b"\xff" * 8
    raw = raw_header(b"x", uid=field) if "uid" in ids else raw_header(b"x", gid=field)
    refused(lab, raw + END, "owner")


def zstd(data: bytes, *options: str) -> bytes:
    return subprocess.run(["zstd", "-qc", *options], input=data, stdout=-1, check=True).stdout


def test_case_015_decompression_bombs(lab: Bench) -> None:
    zeros = tar([member("x", bytes(64 << 20))])
    small = Limits(ratio_floor=8 << 20)
    refused(lab, zeros, "limit of", blob=gzip.compress(zeros), limits=small)
    refused(lab, zeros, "limit of", blob=zstd(zeros), limits=small)
    plain = tar([member("x", b"1")])
    skippable = (0x184D2A50).to_bytes(4, "little") + (1 << 20).to_bytes(4, "little")
    lab.unpack(plain, blob=(skippable + bytes(1 << 20)) * 8 + zstd(plain))
    frames = b"".join(zstd(plain[at : at + 512]) for at in range(0, len(plain), 512))
    empty = zstd(b"")
    lab.unpack(plain, blob=empty * 20000 + frames + empty * 20000)
    window = bytes.fromhex("28b52ffd00a8") + b"\x01\x00\x00"  # window log 31
    refused(lab, plain, "zstd", blob=window)


def test_case_015_many_gzip_members(lab: Bench) -> None:
    plain = tar([member("x", random.Random(1).randbytes(5000))])
    nothing = gzip.compress(b"", mtime=0)
    parts = [gzip.compress(plain[at : at + 100], mtime=0) for at in range(0, len(plain), 100)]
    lab.unpack(plain, blob=nothing * 20000 + b"".join(parts) + nothing + bytes(700))
    assert (lab.diff / "x").stat().st_size == 5000
    refused(lab, plain, "garbage", blob=gzip.compress(plain) + b"garbage")
    refused(lab, plain, "truncated", blob=gzip.compress(plain)[:-3])
    refused(lab, plain, "damaged", blob=gzip.compress(plain)[:-8] + bytes(8))


def test_case_016_entry_and_depth_limits(lab: Bench) -> None:
    many = tar([member(f"f{number}") for number in range(3000)])
    refused(lab, many, "more than 1000 entries", limits=Limits(entries=1000))
    deep = "d/" * 2040
    lab.unpack(tar([member(deep + "f", b"1")]))
    refused(lab, tar([member("d/" * 2048 + "f", b"1")]), "longer than")
    lab.clean()  # what the agent cleans up with: no recursion
    assert not lab.stage.exists()
    lab.stage.mkdir()


def base256(value: int) -> bytes:
    return b"\x80" + value.to_bytes(11, "big")


@pytest.mark.parametrize(
    "data",
    [
        raw_header(b"PaxHeaders/x", 2 << 30, b"x"),
        raw_header(b"PaxHeaders/x", 30, b"x") + pad(b"2147483648 path=" + b"x" * 14),
        raw_header(b"PaxHeaders/x", 30, b"x") + pad(b"30 path" + b"x" * 22 + b"\n"),
        raw_header(b"PaxHeaders/x", 30, b"x") + pad(b"-1 path=x\n"),
        raw_header(b"././@LongLink", 1 << 30, b"L"),
        raw_header(b"x", size=base256(2**63)),
        raw_header(b"x", size=b"\xff" * 12),
        raw_header(b"x", size=b"-0000000001\0"),
        raw_header(b"x", size=b"0x1F\0\0\0\0\0\0\0\0"),
        raw_header(b"x")[:300],
        raw_header(b"x", 5000) + b"x" * 100,
        raw_header(b"x", chksum=b"0000000\0") + END,
        b"not a tar at all" * 100,
        raw_header(b"x", kind=b"M") + END,
        raw_header(b"", kind=b"0") + END,
    ],
)
def test_case_017_malformed_headers(lab: Bench, data: bytes) -> None:
    refused(lab, data)


def test_case_017_tolerated_endings(lab: Bench) -> None:
    whole = raw_header(b"x", 3) + pad(b"abc")
    lab.unpack(whole)  # no end-of-archive blocks
    assert (lab.diff / "x").read_bytes() == b"abc"
    lab.unpack(raw_header(b"x", 3) + b"abc")  # not even padding
    lab.unpack(whole + END + b"garbage after the end")
    with pytest.raises(EngineError, match="diffID"):
        lab.unpack(whole + END, blob=gzip.compress(whole + END + b"more"))


def test_case_018_compression_is_sniffed(lab: Bench) -> None:
    plain = tar([member("x", b"1")])
    for blob in (plain, gzip.compress(plain), zstd(plain)):
        lab.unpack(plain, blob=blob)
        assert lab.listing() == ["x"]
    import bz2
    import lzma

    refused(lab, plain, "xz layers", blob=lzma.compress(plain))
    refused(lab, plain, "bzip2 layers", blob=bz2.compress(plain))
    refused(lab, plain, blob=zlib.compress(plain))


def test_worker_is_confined(lab: Bench) -> None:
    from agent.images.workerpool import Worker

    lab.diff.mkdir(parents=True)
    worker = Worker(str(lab.stage), "sha256:" + "0" * 64, 1 << 20, Limits())
    try:
        worker.feed(raw_header(b"big", 1 << 19) + bytes(1 << 18))
        deadline = time.monotonic() + 10
        while not (lab.diff / "big").exists() and time.monotonic() < deadline:
            os.sched_yield()
        status = Path(f"/proc/{worker.pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        mask = sum(1 << number for number in (0, 1, 3, 4, 27, 31))
        for name in ("CapEff", "CapPrm", "CapBnd"):
            assert int(fields[name], 16) == mask, name
        assert int(fields["CapInh"], 16) == 0
        assert fields["NoNewPrivs"].strip() == "1"
        assert fields["Seccomp"].strip() == "2"
        assert os.readlink(f"/proc/{worker.pid}/root") == str(lab.stage)
        for space in ("mnt", "net", "ipc"):
            mine = os.readlink(f"/proc/self/ns/{space}")
            assert os.readlink(f"/proc/{worker.pid}/ns/{space}") != mine
        descriptors = {os.readlink(path) for path in Path(f"/proc/{worker.pid}/fd").iterdir()}
        outside = {path for path in descriptors if path.startswith("/")}
        own = {str(lab.stage / name) for name in ("diff", "diff/big", "recipe", "kept")}
        assert outside <= {"/dev/null"} | own
        worker.kill()
        with pytest.raises(EngineError, match="worker died"):
            worker.finish()
    finally:
        worker.close()


def test_legal_archives_unpack_as_gnu_tar_does(lab: Bench) -> None:
    source = lab.folder / "source"
    expected = lab.folder / "expected"
    source.mkdir()
    expected.mkdir()
    make_tree(source, random.Random(7))
    for form in ("gnu", "pax", "ustar"):
        made = subprocess.run(
            ["tar", "-C", str(source), f"--format={form}", "-cf", "-", "."], stdout=-1, check=True
        ).stdout
        subprocess.run(["tar", "-C", str(expected), "-xpf", "-"], input=made, check=True)
        lab.unpack(made)
        assert describe(lab.diff) == describe(expected)
        with tarfile.open(fileobj=io.BytesIO(made)) as archive:
            names = {os.path.normpath(info.name) for info in archive} - {"."}
        assert set(lab.listing()) == names


def make_tree(root: Path, rng: random.Random) -> None:
    for number in range(150):
        name = "".join(rng.choices("abc é.-", k=rng.randint(1, 40))).strip(". ") or "x"
        folder = root.joinpath(*[f"dir{rng.randint(0, 3)}" for _ in range(rng.randint(0, 4))])
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}{number}"
        kind = rng.randint(0, 5)
        if kind == 0:
            path.symlink_to("../" * rng.randint(0, 2) + "target")
        elif kind == 1:
            os.mkfifo(path, rng.randrange(0o1000))
        else:
            path.write_bytes(rng.randbytes(rng.choice([0, 1, 511, 512, 513, 70000])))
            path.chmod(rng.randrange(0o10000))
            os.utime(path, (rng.randrange(2**31), rng.randrange(2**31)))
        if kind == 2:
            os.link(path, folder / f"hard{number}")
        os.chown(path, rng.randrange(3), rng.randrange(70000), follow_symlinks=False)
    for found, _, _ in os.walk(root):
        os.chmod(found, rng.choice([0o755, 0o1777, 0o2750]))
        os.utime(found, (1, rng.randrange(2**31)))


def describe(root: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in [root, *root.rglob("*")]:
        info = path.lstat()
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(root))] = (
            info.st_mode,
            info.st_uid,
            info.st_gid,
            int(info.st_mtime),
            info.st_nlink if not path.is_dir() else 0,
            content,
        )
    return found


def test_kernel_has_openat2() -> None:
    from agent.host import openat

    assert openat.supported()
    assert ctypes.sizeof(ctypes.c_long) == 8
