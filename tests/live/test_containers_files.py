"""docker cp, export and diff, and the hostile cases about copies (security.md 60 to 66)."""

import base64
import bz2
import gzip
import io
import json
import lzma
import tarfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.installed import Answer, Installed, _UnixConnection

_SLEEP = ("busybox", "sleep", "1000")


def archive(*members: tuple[str, bytes], **changes: object) -> bytes:
    """A tar of regular files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in changes.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def special(name: str, kind: bytes, link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        tar.addfile(info)
    return buffer.getvalue()


def put(box: Installed, container: str, path: str, data: bytes, **query: str) -> Answer:
    connection = _UnixConnection(box.socket, 60)
    words = "&".join(f"{key}={value}" for key, value in {"path": path, **query}.items())
    try:
        connection.request("PUT", f"/v1.51/containers/{container}/archive?{words}", data)
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def members(answer: Answer) -> Mapping[str, tarfile.TarInfo]:
    assert answer.status == 200, answer
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as tar:
        return {one.name: one for one in tar.getmembers()}


def get(box: Installed, container: str, path: str) -> Answer:
    return box.api("GET", f"/containers/{container}/archive?path={path}")


@pytest.fixture(params=["running", "stopped"])
def state(request: pytest.FixtureRequest) -> str:
    """The copies below are made with the container in both states."""
    return str(request.param)


def start(box: Installed, state: str, script: str, *options: str) -> None:
    box.docker(
        "run", "-d", "--name", "one", *options, "busybox", "sh", "-c", f"{script}; sleep 1000"
    )
    box.wait(
        lambda: any(
            line.endswith(" sleep 1000") and "sh -c" not in line
            for line in box.docker("top", "one").lines
        ),
        "the script is done",
    )
    if state == "stopped":
        box.docker("stop", "-t", "0", "one")


def test_cp_both_ways(box: Installed, folder: Path, state: str) -> None:
    start(
        box, state, "mkdir -p /d/sub; echo in > /d/sub/f; ln -s sub/f /d/link; chmod 4755 /d/sub/f"
    )
    box.docker("cp", "one:/d", f"{folder}/got")
    assert (folder / "got/sub/f").read_text() == "in\n"
    assert (folder / "got/link").is_symlink()
    (folder / "local").mkdir()
    (folder / "local/n").write_text("new")
    box.docker("cp", f"{folder}/local/.", "one:/d")
    assert members(get(box, "one", "/d/n"))["n"].size == 3
    assert members(get(box, "one", "/d"))["d/sub/f"].mode == 0o4755


def test_case_061_links(box: Installed, state: str) -> None:
    """Absolute and relative links in the image work, and the link itself can be copied."""
    start(
        box, state, "mkdir -p /run /real; ln -sfn /run /var/run; ln -s real /rel; echo 1 > /run/a"
    )
    assert put(box, "one", "/var/run", archive(("x", b"abs"))).status == 200
    assert members(get(box, "one", "/run/x"))["x"].size == 3
    assert put(box, "one", "/rel", archive(("y", b"rel"))).status == 200
    assert "real/y" in members(get(box, "one", "/real"))
    link = members(get(box, "one", "/var/run"))["run"]
    assert link.issym()
    assert link.linkname == "/run"
    stat = box.api("HEAD", "/containers/one/archive?path=/var/run")
    header = json.loads(base64.b64decode(stat.headers["X-Docker-Container-Path-Stat"]))
    assert header["name"] == "run"
    assert header["linkTarget"] == "/run"
    assert header["mode"] & 1 << 27
    assert "run/a" in members(get(box, "one", "/var/run/"))  # a slash follows it
    assert "./a" in members(get(box, "one", "/run/."))


def test_case_062_volumes_and_binds(box: Installed, state: str) -> None:
    """Data lands in the volume; the host gets no file, no folder, no mount."""
    start(box, state, "true", "-v", "vol:/vol", "-v", "/tmp/bound:/mnt/b")
    assert put(box, "one", "/vol", archive(("deep/f", b"volume"))).status == 200
    assert put(box, "one", "/mnt/b", archive(("g", b"bind"))).status == 200
    run = box.host.run
    assert run("cat", "/var/lib/machine/volumes/vol/_data/deep/f").stdout == "volume"
    assert run("cat", "/tmp/bound/g").stdout == "bind"
    assert run("sh", "-c", "ls -A /run/machine/views 2>/dev/null").stdout == ""
    assert "views" not in run("cat", "/proc/mounts").stdout


def test_case_063_compressed_by_our_own(box: Installed) -> None:
    """Fake inflaters in the container are never run."""
    start(box, "running", "for i in xz unpigz gzip zstd bzip2; do rm -f /bin/$i; "
          "printf '#!/bin/sh\\ntouch /ran\\n' > /bin/$i; chmod +x /bin/$i; done; mkdir /to")  # fmt: skip
    plain = archive(("f", b"x" * 100_000))
    for data in (plain, gzip.compress(plain), bz2.compress(plain), lzma.compress(plain)):
        assert put(box, "one", "/to", data).status == 200
        assert members(get(box, "one", "/to/f"))["f"].size == 100_000
        box.docker("exec", "one", "rm", "/to/f")
    assert put(box, "one", "/to", gzip.compress(plain)[:-60]).status == 400
    assert get(box, "one", "/ran").status == 404


@pytest.mark.parametrize(
    "data",
    [
        archive(("../../out", b"x")),
        archive(("/a/../../out", b"x")),
        special("dev", tarfile.CHRTYPE),
        archive(("f", b"x" * 1000))[:700],
        b"no archive at all" * 64,
        archive(("f", b"x"), uid=-2),
    ],
    ids=["dotdot", "absolute-dotdot", "whiteout", "cut", "garbage", "owner"],
)
def test_case_065_hostile_archives(box: Installed, data: bytes) -> None:
    start(box, "running", "mkdir /to")
    assert put(box, "one", "/to", data).status == 400
    assert box.host.run("sh", "-c", "ls / /tmp").stdout.count("out") == 0


def test_case_065_links_stay_inside(box: Installed, state: str) -> None:
    """A link in an archive that points at the host means the container's own file."""
    start(box, state, "mkdir /to; mkdir -p /etc/x")
    assert put(box, "one", "/to", special("l", tarfile.SYMTYPE, "/etc/x")).status == 200
    assert put(box, "one", "/to", special("up", tarfile.SYMTYPE, "../../../../etc/x")).status == 200
    assert put(box, "one", "/to", archive(("l/canary", b"1"), ("up/second", b"2"))).status == 200
    assert {"x/canary", "x/second"} <= set(members(get(box, "one", "/etc/x")))
    assert box.host.run("sh", "-c", "test -e /etc/x || echo none").stdout == "none\n"


def test_case_065_refusals(box: Installed, state: str) -> None:
    start(box, state, "true", "--read-only", "--tmpfs", "/t", "-v", "vol:/ro:ro", "-v", "wv:/w")
    small = archive(("f", b"1"))
    assert put(box, "one", "/etc", small).message == "container rootfs is marked read-only"
    assert put(box, "one", "/ro", small).message == "mounted volume is marked read-only"
    assert put(box, "one", "/w", small).status == 200
    missing = put(box, "one", "/none", small)
    assert missing.status == 404
    assert missing.message == "Could not find the file /none in container one"
    assert put(box, "one", "/bin/busybox", small).message == "extraction point is not a directory"
    assert get(box, "one", "/none").status == 404
    assert box.api("HEAD", "/containers/one/archive?path=/none").status == 404


def test_case_065_kinds(box: Installed) -> None:
    start(box, "running", "mkdir -p /to/d; echo keep > /to/f")
    folder = special("f", tarfile.DIRTYPE)
    assert put(box, "one", "/to", archive(("d", b"1")), noOverwriteDirNonDir="1").status == 400
    assert put(box, "one", "/to", folder, noOverwriteDirNonDir="1").status == 400
    assert put(box, "one", "/to", archive(("d", b"1"))).status == 200
    assert put(box, "one", "/to", folder).status == 200
    found = members(get(box, "one", "/to"))
    assert found["to/d"].isfile()
    assert found["to/f"].isdir()


def test_case_065_owner_of_the_user(box: Installed) -> None:
    start(box, "running", "true", "-u", "1234:55")
    assert put(box, "one", "/tmp", archive(("f", b"1")), copyUIDGID="1").status == 200
    found = members(get(box, "one", "/tmp/f"))["f"]
    assert (found.uid, found.gid) == (1234, 55)


@pytest.mark.parametrize("path", ["/proc", "/sys/kernel", "/dev"])
def test_case_066_kernel_trees(box: Installed, path: str) -> None:
    """No hang; devices, FIFOs and sockets as headers only, or not at all."""
    start(box, "running", "mkfifo /dev/fifo")
    found = members(get(box, "one", path))
    if path == "/dev":
        assert found["dev/zero"].ischr()
        assert found["dev/fifo"].isfifo()
    if path == "/proc":
        assert found["proc/version"].size == 0


def test_case_066_growing_file(box: Installed) -> None:
    start(box, "running", "yes > /grow & sleep 1")
    assert members(get(box, "one", "/grow"))["grow"].size > 0


def test_case_066_a_client_that_goes(box: Installed) -> None:
    """A terabyte of zeros is begun, and ends with its client."""
    start(box, "running", "truncate -s 1024G /big")
    connection = _UnixConnection(box.socket, 60)
    connection.request("GET", "/v1.51/containers/one/archive?path=/big")
    response = connection.getresponse()
    assert len(response.read(1 << 20)) == 1 << 20
    pid = box.agent_pid()
    count = f"ls -l /proc/{pid}/fd | grep -c big || true"
    assert box.host.run("sh", "-c", count).stdout.strip() != "0"
    connection.close()
    response.close()
    box.wait(lambda: box.host.run("sh", "-c", count).stdout.strip() == "0", "it is closed", 2)


def test_case_060_links_exchanged_meanwhile(box: Installed) -> None:
    """A container that exchanges a folder for a link to / never gets a copy out of its root."""
    box.host.run("sh", "-c", "mkdir -p /canary; rm -f /canary/*")
    swap = "mkdir -p /d/real /canary; while :; do rm -rf /d/x; ln -s /canary /d/x; rm /d/x; mkdir /d/x; done"
    box.docker("run", "-d", "--name", "one", "busybox", "sh", "-c", swap)
    end = time.monotonic() + 3
    statuses = set()
    while time.monotonic() < end:
        statuses.add(put(box, "one", "/d", archive(("x/f", b"1"))).status)
        statuses.add(get(box, "one", "/d/x").status)
    assert statuses <= {200, 400, 404, 500}
    assert 200 in statuses
    assert box.host.run("ls", "-A", "/canary").stdout == ""


def test_case_064_nothing_is_imported_from_a_container(box: Installed) -> None:
    """A root full of Python modules does not change what the agent runs."""
    modules = [("encodings/__init__.py", b"1/0"), ("pwd.py", b"1/0"), ("tarfile.py", b"1/0")]
    start(box, "running", "true")
    for place in ("/", "/usr/lib/python3", "/tmp"):
        put(box, "one", place, archive(*modules))
    assert get(box, "one", "/etc/passwd").status == 200
    assert box.answers()


def test_many_copies_at_once(box: Installed) -> None:
    start(box, "stopped", "head -c 3000000 /dev/urandom > /blob")
    found: list[int] = []

    def one() -> None:
        found.append(len(get(box, "one", "/blob").body))

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {3000000 + 512 + 512 * 2 + (-3000000 % 512)}
    assert box.host.run("sh", "-c", "ls -A /run/machine/views").stdout == ""


def test_export_and_diff(box: Installed) -> None:
    start(box, "running", "echo new > /new; rm /etc/group; echo more >> /etc/passwd; mkdir /opt")
    wanted = ["C /etc", "D /etc/group", "C /etc/passwd", "A /new", "A /opt"]
    assert box.docker("diff", "one").lines == wanted
    with tarfile.open(fileobj=io.BytesIO(box.docker("export", "one").out)) as tar:
        names = tar.getnames()
    assert "new" in names
    assert "etc/passwd" in names
    assert "etc/group" not in names
    assert not [name for name in names if name.startswith(("/", ".")) and name != ".dockerenv"]


def test_a_broken_connection_leaves_nothing(box: Installed) -> None:
    start(box, "stopped", "true")
    connection = _UnixConnection(box.socket, 60)
    connection.putrequest("PUT", "/v1.51/containers/one/archive?path=/tmp")
    connection.putheader("Content-Length", "100000")
    connection.endheaders()
    connection.send(archive(("f", b"x" * 50000))[:20000])
    connection.close()
    box.wait(
        lambda: box.host.run("sh", "-c", "ls -A /run/machine/views").stdout == "", "view closed"
    )
    box.docker("start", "one")  # its lock is free


def test_a_container_that_never_ran(box: Installed, folder: Path) -> None:
    """Its mount points exist for a copy, and its volumes are written to."""
    box.docker(
        "create", "--name", "one", "-v", "vol:/new/place", "-v", "/tmp/nb:/bind/mnt", "busybox"
    )
    (folder / "x").write_text("x")
    for place in ("/new/place/", "/bind/mnt/"):
        box.docker("cp", f"{folder}/x", f"one:{place}")
        assert "x" in members(get(box, "one", f"{place}x"))
    assert box.host.run("cat", "/var/lib/machine/volumes/vol/_data/x").stdout == "x"
