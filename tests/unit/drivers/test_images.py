"""Which image is the newest, and a download that breaks."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.api import DriverContext
from drivers.errors import DriverError, GoneError, InvalidError, TransientError
from drivers.images import Images, checksums, is_url, releases
from drivers.testkit import TurnedClock, context

INDEX = "https://images.example/cloud/"
LISTING = """<a href="/images/">Parent</a> <a href="bookworm-backports/">b</a>
<a href="bookworm/">x</a><a href="bullseye/">x</a><a href="forky/">x</a><a href="sid/">x</a>
<a href="trixie/">x</a><a href="OpenStack/">x</a>"""
NEWEST = b"trixie's image" * 1000
URL = f"{INDEX}trixie/latest/debian-13-generic-amd64.qcow2"


def sha(data: bytes, kind: str = "sha512") -> str:
    return hashlib.new(kind, data).hexdigest()


def sums(number: int, data: bytes) -> bytes:
    name = f"debian-{number}-generic"
    rows = [f"{name}-arm64.qcow2", f"{name}cloud-amd64.qcow2", f"{name}-amd64.tar.xz"]
    other = "\n".join(f"{sha(row.encode())}  {row}" for row in rows)
    return f"{other}\n{sha(data)}  {name}-amd64.qcow2\n".encode()


class FakeWeb:
    """Pages by URL; `breaks` are the lengths after which the next bodies end too early."""

    def __init__(self) -> None:
        self.pages = {
            INDEX: LISTING.encode(),
            f"{INDEX}bookworm/latest/SHA512SUMS": sums(12, b"old"),
            f"{INDEX}bullseye/latest/SHA512SUMS": sums(11, b"older"),
            f"{INDEX}trixie/latest/SHA512SUMS": sums(13, NEWEST),
            URL: NEWEST,
        }
        self.breaks: list[int] = []
        self.starts: list[int] = []
        self.ranges = True
        self.asked: list[str] = []
        self.down = False

    def read(self, url: str, *, limit: int) -> bytes:
        self.asked.append(url)
        if self.down:
            raise TransientError(f"{url}: no route")
        if url not in self.pages:
            raise GoneError(f"{url}: 404")
        assert len(self.pages[url]) < limit
        return self.pages[url]

    @contextlib.contextmanager
    def stream(self, url: str, *, start: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        start = start if self.ranges else 0
        self.starts.append(start)
        yield start, self._chunks(self.read(url, limit=1 << 30)[start:])

    def _chunks(self, body: bytes) -> Iterator[bytes]:
        size = self.breaks.pop(0) if self.breaks else len(body)
        for at in range(0, size, 100):
            yield body[at : min(at + 100, size)]
        if size < len(body):
            raise TransientError("the connection ended early")


@pytest.fixture
def web() -> FakeWeb:
    return FakeWeb()


@pytest.fixture
def images(web: FakeWeb) -> Images:
    return Images(web, INDEX)


@pytest.fixture
def ctx(tmp_path: Path) -> DriverContext:
    return context(tmp_path, (), {})


def test_the_newest_release_is_found_by_asking(images: Images, ctx: DriverContext) -> None:
    image = images.fetch(ctx, "")
    assert image.name == "debian-13-generic-amd64.qcow2"
    assert image.path.read_bytes() == NEWEST
    assert image.digest == sha(NEWEST)
    assert image.path.is_relative_to(ctx.cache)
    assert not list(ctx.cache.rglob("*.part*"))


def test_it_is_downloaded_once_and_asked_for_once_a_day(
    images: Images, web: FakeWeb, ctx: DriverContext
) -> None:
    first = images.fetch(ctx, "")
    before = len(web.asked)
    assert images.fetch(ctx, "") == first
    assert len(web.asked) == before
    ctx.clock.wait(25 * 3600)
    assert images.fetch(ctx, "") == first
    assert web.starts == [0]
    assert len(web.asked) > before


def test_without_a_network_the_cached_one_does(
    images: Images, web: FakeWeb, ctx: DriverContext
) -> None:
    first = images.fetch(ctx, "")
    ctx.clock.wait(25 * 3600)
    web.down = True
    assert images.fetch(ctx, "") == first
    first.path.unlink()
    with pytest.raises(TransientError, match="no route"):
        images.fetch(ctx, "")


def test_a_damaged_memo_is_no_matter(images: Images, ctx: DriverContext) -> None:
    folder = ctx.cache / "images"
    folder.mkdir(parents=True)
    for text in ("", "{}", "[1]", '{"url": 1, "sha512": 2, "at": "x"}'):
        (folder / "newest-amd64.json").write_text(text)
        assert images.fetch(ctx, "").digest == sha(NEWEST)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on_where_it_stopped(
    *, images: Images, web: FakeWeb, ctx: DriverContext, ranges: bool
) -> None:
    web.breaks, web.ranges = [3000, 4000], ranges
    assert images.fetch(ctx, "").path.read_bytes() == NEWEST
    assert web.starts == ([0, 3000, 7000] if ranges else [0, 0, 0])


def test_a_killed_download_goes_on_in_the_next_command(
    images: Images, web: FakeWeb, ctx: DriverContext
) -> None:
    class Killed(BaseException):
        pass

    class Deadly(TurnedClock):
        def wait(self, seconds: float) -> None:
            raise Killed

    web.breaks = [5000]
    with pytest.raises(Killed):
        images.fetch(dataclasses.replace(ctx, clock=Deadly()), "")
    assert images.fetch(ctx, "").path.read_bytes() == NEWEST
    assert web.starts == [0, 5000]


def test_other_bytes_than_announced_are_never_used(
    images: Images, web: FakeWeb, ctx: DriverContext
) -> None:
    web.pages[URL] = b"evil"
    with pytest.raises(InvalidError, match="its sha512 is not the one"):
        images.fetch(ctx, "")
    assert [p.name for p in (ctx.cache / "images").iterdir() if "debian" in p.name] == []
    web.pages[URL] = NEWEST
    assert images.fetch(ctx, "").path.read_bytes() == NEWEST


def test_a_part_of_another_file_is_dropped_and_all_is_read_again(
    images: Images, web: FakeWeb, ctx: DriverContext
) -> None:
    part = ctx.cache / "images" / f"{sha(NEWEST)[:16]}-debian-13-generic-amd64.qcow2.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"something else")
    assert images.fetch(ctx, "").path.read_bytes() == NEWEST
    assert web.starts == [14, 0]


def test_an_architecture_that_debian_has_not_is_told(images: Images, ctx: DriverContext) -> None:
    with pytest.raises(GoneError, match="no Debian cloud image for vax"):
        images.fetch(ctx, "", arch="vax")


def test_a_file_of_the_users_is_used_as_it_is(images: Images, ctx: DriverContext) -> None:
    own = ctx.folder / "own.img"
    assert images.problems(str(own)) == [f"{own}: no such image file"]
    with pytest.raises(GoneError, match="no such image file"):
        images.fetch(ctx, str(own))
    own.write_bytes(b"x")
    assert images.problems(str(own)) == []
    assert images.fetch(ctx, str(own)).path == own
    assert not ctx.cache.exists()


@pytest.mark.parametrize("kind", ["sha512", "sha256"])
def test_a_url_with_its_checksum(
    images: Images, web: FakeWeb, ctx: DriverContext, kind: str
) -> None:
    web.pages["https://other.example/a/b.img?x=1"] = b"mine"
    given = f"https://other.example/a/b.img?x=1#{kind}={sha(b'mine', kind).upper()}"
    assert images.problems(given) == []
    image = images.fetch(ctx, given)
    assert image.path.read_bytes() == b"mine"
    assert image.name == "b.img"


def test_a_url_with_sums_beside_it(images: Images, web: FakeWeb, ctx: DriverContext) -> None:
    url = "https://other.example/noble/current/noble-server-cloudimg-amd64.img"
    web.pages[url] = b"ubuntu"
    row = f"{sha(b'ubuntu', 'sha256')} *noble-server-cloudimg-amd64.img\n"
    web.pages["https://other.example/noble/current/SHA256SUMS"] = row.encode()
    assert images.fetch(ctx, url).path.read_bytes() == b"ubuntu"


def test_a_url_without_any_checksum_is_refused(images: Images, ctx: DriverContext) -> None:
    with pytest.raises(InvalidError, match="no SHA512SUMS or SHA256SUMS") as told:
        images.fetch(ctx, "https://other.example/a.img")
    assert "#sha512=HEX" in told.value.hint


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("http://other.example/a.img", "https:// only"),
        ("ftp://other.example/a.img", "https:// only"),
        ("https://other.example/a.img#sha512=12", "must be #sha512=HEX"),
        ("https://other.example/a.img#md5=" + "0" * 32, "must be #sha512=HEX"),
        ("https://other.example/a.img#", ""),
        ("http://127.0.0.1:1/a.img", ""),
        ("", ""),
    ],
)
def test_problems_of_a_url(images: Images, given: str, problem: str) -> None:
    found = images.problems(given)
    assert (problem in found[0]) if problem else found == []


def test_a_full_cache_folder_is_told(images: Images, ctx: DriverContext) -> None:
    ctx.cache.write_text("a file where a folder should be")
    with pytest.raises(DriverError, match="cannot"):
        images.fetch(ctx, "")


def test_listing_and_sums() -> None:
    assert releases(LISTING) == ["bookworm", "bullseye", "forky", "trixie"]
    assert checksums("zz  a\n" + "A" * 128 + " *b\n" + "1" * 64 + "  c\n", "sha512") == {
        "b": "a" * 128
    }
    assert not is_url("/a/b")
    assert not is_url("C:\\disk.img")
    assert is_url("HTTPS://x/y")
