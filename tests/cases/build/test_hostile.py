"""security.md cases 70 to 79: hostile contexts, Dockerfiles and clients."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.cases.build.engine import PRIVATE, Built, Engine, UnixConnection, tar
from tests.lab.waiting import wait_until

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for member, data in members:
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, link
    return found


DOCKERFILE = (member("Dockerfile"), b"FROM scratch\nCOPY . /\n")


# ------------------------------------------------------------------------------------ 70, context


@pytest.mark.parametrize(
    "hostile",
    [
        member("../evil"),
        member("a/../../evil"),
        member("dev", tarfile.CHRTYPE),
        member("hard", tarfile.LNKTYPE, "../../etc/shadow"),
        member("hard2", tarfile.LNKTYPE, "/etc/shadow"),
    ],
    ids=lambda one: one.name,
)
def test_case_070_hostile_entries(engine: Engine, hostile: tarfile.TarInfo) -> None:
    said = engine.send(archive(DOCKERFILE, (hostile, b"")))
    assert said.status == 400, said.lines
    assert "Error processing tar file" in said.error
    assert not Path("/evil").exists()


@pytest.mark.parametrize("name", ["../../etc/passwd", "/../etc/passwd", "nowhere", "sub"])
def test_case_070_dockerfile_outside(engine: Engine, name: str) -> None:
    said = engine.send(tar({"Dockerfile": "FROM scratch\n", "sub/": ""}), dockerfile=name)
    assert said.status == 400
    assert "root:" not in said.error
    assert "Forbidden path" in said.error or "Cannot locate" in said.error


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../etc/passwd", "/proc/self/environ"])
def test_case_070_dockerfile_is_a_link(engine: Engine, target: str) -> None:
    context = archive((member("Dockerfile", tarfile.SYMTYPE, target), b""))
    said = engine.send(context)
    assert said.status == 400
    assert said.error == "Cannot locate specified Dockerfile: Dockerfile"


def test_case_070_dockerignore_bomb(engine: Engine) -> None:
    start = time.monotonic()
    for text in ("a*" * 2000 + "b\n", "**/" * 50 + "x\n", "[" * 1000, "x\n" * 20_000):
        said = engine.build("FROM busybox\n", {".dockerignore": text})
        assert said.status in (200, 400), said.lines
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("body", [b"not a tar", b"\x1f\x8b\x08junk", b"BZhjunk", b""])
def test_case_070_no_archive(engine: Engine, body: bytes) -> None:
    said = engine.send(body or b"\0" * 1024)
    assert said.status == 400


def test_case_070_deep_tree(engine: Engine) -> None:
    deep = "d/" * 1900 + "f"
    said = engine.send(archive(DOCKERFILE, (member(deep), b"x")))
    assert "nested deeper" in said.error, said.lines
    assert os.listdir(engine.root / "build" / "work") == []
    assert engine.answers()
    said = engine.build(
        "FROM busybox\nRUN i=0; while [ $i -lt 1500 ]; do mkdir d && cd d || exit 0; i=$((i+1)); done\n"
    )
    assert "Traceback" not in engine.log()


# ------------------------------------------------------------------------------ 71, COPY and ADD


@pytest.mark.parametrize("source", ["link", "link/", "dirlink/passwd", "up/etc/passwd", "../x"])
def test_case_071_copy_follows_nothing_out(engine: Engine, source: str) -> None:
    links = {"link": "/etc/passwd", "dirlink": "/etc", "up": "../../../../.."}
    said = engine.build(f"FROM scratch\nCOPY {source} /x\n", {"a": "1"}, links=links)
    assert "file does not exist" in said.error, said.lines


def test_case_071_destination_links_stay_inside(engine: Engine) -> None:
    said = engine.build(
        "FROM busybox\nRUN ln -s /../../../../var/tmp/bldevil /out && mkdir -p /real && "
        "ln -s /real /dir\nCOPY a /dir/\nCOPY a /out\nRUN cat /real/a && cat /out\n",
        {"a": "inside\n"},
    )
    assert said.text.count("inside\n") == 2, said.lines
    assert not Path("/var/tmp/bldevil").exists()


def test_case_071_from_image_links(engine: Engine) -> None:
    said = engine.build(
        "FROM busybox AS evil\nRUN ln -s /etc/shadow /s && ln -s ../../../../etc /e\n"
        "FROM scratch\nCOPY --from=evil /s /s\n"
    )
    assert "file does not exist" in said.error, said.lines
    said = engine.build(
        "FROM busybox AS evil\nRUN ln -s ../../../../etc /e && echo mine > /etc/shadow\n"
        "FROM busybox\nCOPY --from=evil /e/shadow /s\nRUN cat /s\n"
    )
    assert "mine\n" in said.text


@pytest.mark.parametrize(
    "hostile",
    [member("../evil"), member("x/../../evil"), member("h", tarfile.LNKTYPE, "/etc/hosts")],
    ids=lambda one: one.name,
)
def test_case_071_add_unpacks_confined(engine: Engine, hostile: tarfile.TarInfo) -> None:
    inner = archive((hostile, b""), (member("ok"), b"1"))
    said = engine.build("FROM busybox\nADD a.tar /in/\n", {"a.tar": inner})
    assert "Error processing tar file" in said.error, said.lines


def test_case_071_add_through_links(engine: Engine) -> None:
    inner = archive(
        (member("l", tarfile.SYMTYPE, "/../../../../var/tmp"), b""), (member("l/bldevil2"), b"1")
    )
    engine.build("FROM busybox\nADD a.tar /\n", {"a.tar": inner})
    assert not Path("/var/tmp/bldevil2").exists()


# ------------------------------------------------------------------------------ 72, RUN --mount


@pytest.mark.parametrize("source", ["../../etc", "/../../etc/passwd", "link", "link/passwd"])
def test_case_072_sources_stay_inside(engine: Engine, source: str) -> None:
    said = engine.build(
        f"FROM busybox\nRUN --mount=type=bind,source={source},target=/m ls -l /m; cat /m/passwd\n",
        {"a": "1"},
        links={"link": "/etc"},
    )
    assert "root:x:0:0:root:/root:/bin/bash" not in said.text
    assert said.error


def test_case_072_targets_and_their_mount_points(engine: Engine) -> None:
    said = engine.build(
        "FROM busybox\nRUN mkdir -p /keep/sub && ln -s /keep /link\n"
        "RUN --mount=type=tmpfs,target=/link/sub touch /link/sub/x\n"
        "RUN --mount=type=tmpfs,target=/new/deep/point true\n"
        "RUN --mount=type=tmpfs,target=/a/../../../b true\n"
        "RUN ls -d /keep/sub /link && ! ls -d /new && ! ls -d /b\n"
    )
    assert said.error == "", said.lines
    assert "point" not in said.text.rpartition("Step 6/6")[2].partition("\n")[2]
    assert "/keep/sub" in said.text
    assert not Path("/b").exists()


def test_case_072_proc_is_no_target(engine: Engine) -> None:
    said = engine.build("FROM busybox\nRUN --mount=type=tmpfs,target=/proc/sys true\n")
    assert "cannot be mounted" in said.error


def test_case_072_cache_and_bind(engine: Engine) -> None:
    said = engine.build(
        "FROM busybox AS s\nRUN mkdir /d && echo stage > /d/f\nFROM busybox\n"
        "RUN --mount=type=cache,id=../../x,target=/c echo 1 >> /c/n; wc -l < /c/n\n"
        "RUN --mount=type=bind,from=s,source=d,target=/d cat /d/f; touch /d/w || echo read-only\n"
        "RUN --mount=type=bind,source=a,target=/w,rw echo more >> /w && cat /w\n"
        "RUN ls /c /d /w 2>&1 || true\n",
        {"a": "first\n"},
        nocache=1,
    )
    assert said.error == "", said.lines
    assert "stage\n" in said.text
    assert "read-only\n" in said.text
    assert "first\nmore\n" in said.text
    assert all(len(one.split(".")[0]) == 64 for one in os.listdir(engine.root / "build" / "mounts"))


# ---------------------------------------------------------------------------- 73, git contexts


@pytest.mark.parametrize(
    "remote",
    [
        "ext::sh -c touch% /canary/x",
        "file:///etc",
        "/etc/passwd",
        "--upload-pack=touch /canary/x",
        "https://example.invalid/a.git#--output=/canary/x",
        "https://example.invalid/a.git#main:../../etc",
        "https://-oProxyCommand=x/a.git",
        "git@-oProxyCommand=touch:a.git",
        "https://example.invalid/a.git#a..b",
    ],
)
def test_case_073_git_urls(engine: Engine, remote: str) -> None:
    status, raw = engine.ask("POST", "/build", b"", remote=remote)
    assert status == 400, raw
    assert not Path("/canary").exists()


# ------------------------------------------------------------------------------- 74, the cache


def test_case_074_hits_and_misses(engine: Engine) -> None:
    text = "FROM busybox\nCOPY a /a\nRUN cat /a\nENV X=1\n"
    first = engine.build(text, {"a": "one"})
    again = engine.build(text, {"a": "one"})
    assert again.text.count("Using cache") == 3
    assert again.image == first.image
    other = engine.build(text, {"a": "two"})  # same size, same mtime
    assert "Using cache" not in other.text
    assert "two" in other.text
    assert "Using cache" not in engine.build(text, {"a": "one"}, nocache=1).text


def test_case_074_other_parent(engine: Engine) -> None:
    engine.build("FROM busybox\nENV P=1\nRUN echo $P > /p; cat /p\n")
    said = engine.build("FROM busybox\nENV P=2\nRUN echo $P > /p; cat /p\n")
    assert "Using cache" not in said.text
    assert "\n2\n" in said.text


def test_case_074_base_moved(engine: Engine) -> None:
    for number in ("1", "2"):
        engine.build(f"FROM busybox\nRUN echo base{number} > /b\n", t="moving:latest")
        said = engine.build("FROM moving\nRUN cat /b\n")
        assert f"base{number}\n" in said.text


def test_case_074_build_args_count(engine: Engine) -> None:
    text = "FROM busybox\nARG V\nRUN echo got-$V\n"
    for value in ("a", "b"):
        said = engine.build(text, buildargs=json.dumps({"V": value}))
        assert f"got-{value}\n" in said.text
    said = engine.build(text, buildargs=json.dumps({"V": "a"}))
    assert said.text.count("Using cache") == 2


def test_case_074_modes_count(engine: Engine) -> None:
    for mode in (0o644, 0o755):
        info = member("a")
        info.mode = mode
        dockerfile = (member("Dockerfile"), b"FROM busybox\nCOPY a /a\nRUN stat -c %a /a\n")
        assert f"{mode:o}\n" in engine.send(archive(dockerfile, (info, b"x"))).text


# -------------------------------------------------------------------------------- 75, secrets


def test_case_075_environment(engine: Engine) -> None:
    said = engine.build(
        "FROM busybox\nARG TOKEN\nRUN env\n",
        buildargs=json.dumps({"TOKEN": "t0k3n", "HTTP_PROXY": "http://u:pr0xy@h:1"}),
        nocache=1,
    )
    names = {line.partition("=")[0] for line in said.text.splitlines() if "=" in line}
    assert names <= {"PATH", "HOME", "HOSTNAME", "TOKEN", "HTTP_PROXY", "SHLVL", "PWD"}, names
    history = json.dumps(engine.json("GET", f"/images/{said.image}/history"))
    assert "|1 TOKEN=t0k3n" in history
    assert "pr0xy" not in history + json.dumps(engine.inspect(said.image)) + engine.log()


# ------------------------------------------------------------------------- 76, gone in the middle


class Client:
    """A build whose client can go away."""

    def __init__(self, engine: Engine, dockerfile: str) -> None:
        self.connection = UnixConnection(engine.socket)
        body = tar({"Dockerfile": dockerfile})
        query = urlencode({"nocache": 1})
        self.connection.request(
            "POST", f"/v1.51/build?{query}", body, {"Content-Type": "application/x-tar"}
        )
        self.answer = self.connection.getresponse()

    def read_until(self, text: bytes) -> None:
        seen = b""
        while text not in seen:
            piece = self.answer.read1(65536)
            assert piece, seen
            seen += piece

    def leave(self) -> None:
        self.answer.close()
        self.connection.close()


@pytest.mark.parametrize(
    ("dockerfile", "mark"),
    [
        ("FROM busybox\nRUN echo first > /x\nRUN echo there; sleep 600\n", b"there"),
        ("FROM busybox\nRUN echo there; yes > /dev/null\n", b"there"),
        ("FROM busybox\nRUN trap '' TERM INT; echo there; while :; do sleep 1; done\n", b"there"),
    ],
)
def test_case_076_client_goes(engine: Engine, dockerfile: str, mark: bytes) -> None:
    before = engine.leftovers()
    client = Client(engine, dockerfile)
    client.read_until(mark)
    client.leave()
    wait_until(lambda: engine.leftovers() == before, 5, "nothing of the build is left")


def test_case_076_agent_killed(engine: Engine) -> None:
    before = engine.leftovers()
    client = Client(engine, "FROM busybox\nRUN echo first > /x\nRUN echo there; sleep 600\n")
    client.read_until(b"there")
    engine.kill()
    client.leave()
    engine.launch()
    wait_until(lambda: engine.leftovers() == before, 5, "nothing of the build is left")


def test_case_076_half_a_context(engine: Engine) -> None:
    before = engine.leftovers()
    connection = UnixConnection(engine.socket)
    body = tar({"Dockerfile": "FROM busybox\n", "big": b"x" * 1_000_000})
    connection.connect()
    head = f"POST /v1.51/build HTTP/1.1\r\nHost: d\r\nContent-Length: {len(body)}\r\n"
    connection.sock.sendall(head.encode() + b"Content-Type: application/x-tar\r\n\r\n")
    connection.sock.sendall(body[:600_000])
    connection.close()
    wait_until(lambda: engine.leftovers() == before, 5, "nothing of the build is left")


# ------------------------------------------------------------------------- 77, RUN's confinement


def test_case_077_as_confined_as_run(engine: Engine) -> None:
    script = (
        "grep -E 'Cap(Eff|Bnd)|NoNewPrivs|Seccomp:' /proc/self/status; ls /dev; "
        "mount -t tmpfs x /mnt 2>&1; cat /proc/kcore 2>&1 | head -c 1 | wc -c; ls /proc/acpi"
    )
    said = engine.build(f"FROM busybox\nRUN mkdir /mnt; {script}; true\n", nocache=1)
    ran = engine.run("busybox", "/bin/sh", "-c", f"mkdir /mnt; {script}; true")
    lines = [one for one in said.text.splitlines() if one.startswith(("Cap", "Secc", "NoNew"))]
    assert lines
    assert lines == [one for one in ran.splitlines() if one.startswith(("Cap", "Secc", "NoNew"))]
    assert "Seccomp:\t2" in lines


@pytest.mark.parametrize("syntax", ["evil.example/frontend", "docker/dockerfile-evil:1", "x"])
def test_case_077_frontends(engine: Engine, syntax: str) -> None:
    said = engine.build(f"# syntax={syntax}\nFROM busybox\n")
    assert said.status == 501
    assert "unsupported syntax directive" in said.error


def test_case_077_own_language(engine: Engine) -> None:
    assert engine.build("# syntax=docker/dockerfile:1.7\nFROM busybox\n").error == ""


def test_case_077_insecure(engine: Engine) -> None:
    assert "not allowed" in engine.build("FROM busybox\nRUN --security=insecure id\n").error


# ---------------------------------------------------------------------------------- 78, bombs


@pytest.mark.parametrize(
    "dockerfile",
    [
        "FROM scratch\nENV A=" + "x" * 100_000_000,
        "FROM scratch\n" + "ENV A=1\n" * 1_000_000,
        "FROM scratch\nENV A=" + "${a:-" * 5000 + "x" + "}" * 5000,
        "FROM scratch\nENV A=xxxxxxxxxx\n" + "".join("ENV A=$A$A$A$A$A$A$A$A\n" for _ in range(12)),
        "FROM scratch\nRUN <<EOF\n" + "x\n" * 100_000,
        "FROM scratch\nENV A=" + "a" * 60_000 + "\nENV B=${A##" + "*a" * 5000 + "b}",
        "FROM scratch\nCMD " + "[" * 100_000,
    ],
    ids=["line", "instructions", "nested", "doubling", "heredoc", "pattern", "json"],
)
def test_case_078_bombs(engine: Engine, dockerfile: str) -> None:
    start = time.monotonic()
    said = engine.build(dockerfile)
    spent = time.monotonic() - start
    assert said.error or "[[[" in dockerfile
    assert spent < 5, spent
    assert engine.answers()
    assert "Traceback" not in engine.log()


def test_case_078_onbuild_chain(engine: Engine) -> None:
    assert "Chaining ONBUILD" in engine.build("FROM busybox\nONBUILD ONBUILD RUN x\n").error
    engine.build("FROM busybox\nONBUILD RUN echo triggered\n", t="trigger")
    said = engine.build("FROM trigger\n", t="trigger")  # its own base: once, not for ever
    assert "# Executing 1 build trigger\n" in said.text
    assert "triggered\n" in said.text
    assert not engine.inspect("trigger")["Config"].get("OnBuild")


# ------------------------------------------------------------------------------------ 79, ADD URL


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://169.254.169.254/latest/meta-data", "private address"),
        ("http://127.0.0.1:9/x", "private address"),
        ("http://[::1]:9/x", "private address"),
        ("http://localhost/x", "private address"),
        ("http://[fd00:ec2::254]/latest/meta-data", "private address"),
        ("http://[/x", "invalid url"),
    ],
)
def test_case_079_add_url(engine: Engine, url: str, says: str) -> None:
    said = engine.build(f"FROM scratch\nADD {url} /x\n")
    assert says in said.error, said.lines


def test_case_079_other_schemes(engine: Engine) -> None:
    for url in ("file:///etc/passwd", "ftp://h/x", "gopher://h/x"):
        assert "file does not exist" in engine.build(f"FROM scratch\nADD {url} /x\n").error


SERVER = """
import http.server, io, tarfile
buffer = io.BytesIO()
with tarfile.open(fileobj=buffer, mode="w:gz") as out:
    for name, data in (("Dockerfile", b"FROM busybox\\nRUN echo remote context\\n"), ("f", b"1")):
        one = tarfile.TarInfo(name); one.size = len(data); out.addfile(one, io.BytesIO(data))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        where = {"/file": "file:///etc/passwd", "/meta": "http://169.254.169.254/",
                 "/home": "http://127.0.0.1:8077/good"}
        self.send_response(302 if self.path in where else 404 if self.path == "/no" else 200)
        if self.path in where:
            self.send_header("Location", where[self.path])
        if self.path == "/text":
            self.send_header("Content-Type", "text/plain")
        self.send_header("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT")
        self.end_headers()
        if self.path == "/endless":
            while True:
                self.wfile.write(bytes(1 << 20))
        body = {"/c.tgz": buffer.getvalue(), "/text": b"FROM busybox\\nRUN echo text\\n"}
        self.wfile.write(body.get(self.path, b"good"))
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("0.0.0.0", 8077), Handler)
print("ready", flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def web(engine: Engine) -> Iterator[str]:
    server = engine.serve(SERVER)
    try:
        yield f"http://{PRIVATE}:8077"
    finally:
        server.kill()
        server.wait()
        assert server.stdout is not None
        server.stdout.close()


@pytest.mark.parametrize(
    ("path", "says"),
    [("/file", "refusing"), ("/meta", "private address"), ("/home", "private address"),
     ("/no", "with status 404")],
)  # fmt: skip
def test_case_079_redirects(engine: Engine, web: str, path: str, says: str) -> None:
    said = engine.build(f"FROM scratch\nADD {web}{path} /x\n")
    assert says in said.error, said.lines


def test_case_079_checksums(engine: Engine, web: str) -> None:
    good = hashlib.sha256(b"good").hexdigest()
    text = "FROM busybox\nADD --checksum=sha256:{} {}/good /d/\nRUN cat /d/good; stat -c %a-%Y /d/good\n"
    said = engine.build(text.format(good, web))
    assert "good600-1700000000\n" in said.text, said.lines
    assert "digest mismatch" in engine.build(text.format("0" * 64, web)).error


def test_case_079_endless_body(engine: Engine, web: str) -> None:
    before = engine.leftovers()
    client = Client(engine, f"FROM scratch\nADD {web}/endless /x\n")
    client.read_until(b"Downloading")
    client.leave()
    wait_until(lambda: engine.leftovers() == before, 5, "nothing of the build is left")


def test_case_151_what_stands_before_a_host_is_in_no_answer_and_no_record(
    engine: Engine, web: str
) -> None:
    signed = web.replace("://", "://user:c4nary@")
    status, raw = engine.ask(
        "POST", "/images/create", b"", fromSrc=f"{signed}/c.tgz", repo="by", tag="signed"
    )
    assert status == 200
    assert b"c4nary" not in raw
    assert engine.inspect("by:signed")["Comment"] == f"Imported from {web}/c.tgz"
    for source in (f"{signed}/no", "ftp://user:c4nary@h/x", "http://user:c4nary@h:0/", "http://["):
        raw = engine.ask("POST", "/images/create", b"", fromSrc=source, repo="no")[1]
        assert b"error" in raw or b"message" in raw, source
        assert b"c4nary" not in raw, source
        assert b"internal" not in raw, source


def test_import_from_a_url(engine: Engine, web: str) -> None:
    status, raw = engine.ask(
        "POST", "/images/create", b"", fromSrc=f"{web}/c.tgz", repo="by", tag="url", changes="CMD x"
    )
    assert status == 200
    assert f"Downloading from {web}/c.tgz".encode() in raw
    found = engine.inspect("by:url")
    assert found["Comment"] == f"Imported from {web}/c.tgz"
    assert found["Config"]["Cmd"] == ["/bin/sh", "-c", "x"]
    for url, says in (("http://127.0.0.1:8077/c.tgz", b"private address"), (f"{web}/no", b"404")):
        assert says in engine.ask("POST", "/images/create", b"", fromSrc=url, repo="no")[1]
    assert engine.ask("GET", "/images/no/json")[0] == 404


def test_remote_contexts(engine: Engine, web: str) -> None:
    for path, says in (("/c.tgz", "remote context\n"), ("/text", "text\n")):
        status, raw = engine.ask("POST", "/build", b"", remote=web + path, nocache=1)
        assert says in Built(status, raw).text, raw
    status, raw = engine.ask("POST", "/build", b"", remote="http://127.0.0.1:8077/c.tgz")
    assert (status, b"private address" in raw) == (403, True)
