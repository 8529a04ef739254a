"""Git repositories as contexts and as sources of ADD, from real servers (security.md case 73)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.cases.build.engine import PRIVATE, Built, Engine, UnixConnection, tar
from tests.lab.waiting import wait_until

# What /login asks for, in no argument of this server either.
SECRET = "terces-yranac"[::-1]
# git's own CGI program below a small server; /stall never answers, /login asks for a password and
# says no when it sees that in an argument of any process.
SERVER = """
import base64, glob, http.server, os, subprocess, sys, threading
SECRET = "terces-yranac"[::-1]
LOGIN = "Basic " + base64.b64encode(f"user:{SECRET}".encode()).decode()
def seen():
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as file:
                if SECRET.encode() in file.read():
                    return True
        except OSError:
            continue
    return False
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/stall"):
            threading.Event().wait()
        if self.path.startswith("/login"):
            status = 401 if self.headers.get("Authorization") != LOGIN else 500 if seen() else 0
            if status:
                return self.send_error(status)
            self.path = self.path.removeprefix("/login")
        elif "Authorization" in self.headers:
            return self.send_error(500)
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/moved"))
            return self.end_headers()
        path, _, query = self.path.partition("?")
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        if self.headers.get("Transfer-Encoding") == "chunked":
            while (length := int(self.rfile.readline(), 16)):
                body += self.rfile.read(length); self.rfile.readline()
        env = {"PATH": "/usr/bin:/bin", "GIT_PROJECT_ROOT": ROOT, "GIT_HTTP_EXPORT_ALL": "1",
               "PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": self.command,
               "CONTENT_TYPE": self.headers.get("Content-Type") or "", "CONTENT_LENGTH": str(len(body)),
               "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding") or "",
               "GIT_PROTOCOL": self.headers.get("Git-Protocol") or "", "HOME": ROOT}
        done = subprocess.run(["/usr/lib/git-core/git-http-backend"], input=body,
                              capture_output=True, env=env)
        head, _, rest = done.stdout.partition(b"\\r\\n\\r\\n")
        fields = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest)
    do_POST = do_GET
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("0.0.0.0", 8078), Handler)
print("ready", flush=True)
server.serve_forever()
"""


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.invalid"]
    done = subprocess.run(
        ["git", *identity, "-c", "protocol.file.allow=always", "-C", str(folder), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Repository:
    """Two commits, a tag, a branch, a folder, and links that lead out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        work = root / "a.git"
        work.mkdir()
        git(work, "init", "--quiet", "--initial-branch=main")
        (work / "Dockerfile").write_text("FROM busybox\nCOPY . /got\nRUN cat /got/file\n")
        (work / "file").write_text("first commit\n")
        (work / "sub").mkdir()
        (work / "sub" / "Dockerfile").write_text("FROM busybox\nRUN echo folder of it\n")
        (work / "sub" / "inner").write_text("inner\n")
        (work / "out").symlink_to("/etc")
        self.first = self.commit(work, "first")
        git(work, "tag", "v1")
        (work / "file").write_text("second commit\n")
        self.second = self.commit(work, "second")
        git(work, "checkout", "--quiet", "-b", "side")
        (work / "file").write_text("side branch\n")
        self.commit(work, "side")
        git(work, "checkout", "--quiet", "main")
        deep = root / "deep.git"
        deep.mkdir()
        git(deep, "init", "--quiet", "--initial-branch=main")
        (deep / "sub").mkdir()
        (deep / "sub" / "file").write_text("of sub\n")
        git(deep, "add", "--all")
        blob = git(deep, "rev-parse", ":sub/file")
        git(deep, "update-index", "--add", "--cacheinfo", f"100644,{blob},{'d/' * 1300}file")
        git(deep, "commit", "--quiet", "-m", "deeper than Python's stack")
        hostile = root / "h.git"
        hostile.mkdir()
        git(hostile, "init", "--quiet", "--initial-branch=main")
        git(hostile, "submodule", "--quiet", "add", f"file://{work}", "module")
        self.commit(hostile, "a submodule by file URL")

    def commit(self, work: Path, text: str) -> str:
        git(work, "add", "--all")
        git(work, "commit", "--quiet", "-m", text)
        return git(work, "rev-parse", "HEAD")


@pytest.fixture(scope="module", name="repository")
def _repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository(tmp_path_factory.mktemp("git"))


@pytest.fixture(scope="module", name="url")
def _url(engine: Engine, repository: Repository) -> Iterator[str]:
    server = engine.serve(f"ROOT = {str(repository.root)!r}\n{SERVER}")
    try:
        yield f"http://{PRIVATE}:8078"
    finally:
        server.kill()
        server.wait()
        assert server.stdout is not None
        server.stdout.close()


def context(engine: Engine, remote: str) -> Built:
    return Built(*engine.ask("POST", "/build", b"", remote=remote, nocache=1))


@pytest.mark.parametrize(
    ("fragment", "says"),
    [
        ("", "second commit\n"),
        ("#main", "second commit\n"),
        ("#v1", "first commit\n"),
        ("#side", "side branch\n"),
        ("#{first}", "first commit\n"),
        ("#main:sub", "folder of it\n"),
        ("#:sub", "folder of it\n"),
    ],
)
def test_contexts(
    engine: Engine, url: str, repository: Repository, fragment: str, says: str
) -> None:
    said = context(engine, f"{url}/a.git{fragment.format(first=repository.first)}")
    assert said.error == "", said.lines
    assert says in said.text


def test_git_protocol(engine: Engine, repository: Repository) -> None:
    inside = ["nsenter", f"--net=/run/netns/{engine.namespace}"]
    words = ["git", "daemon", "--export-all", f"--base-path={repository.root}"]
    words += [f"--listen={PRIVATE}", "--reuseaddr"]
    daemon = subprocess.Popen([*inside, *words], stderr=subprocess.DEVNULL)
    try:
        ask = [*inside, "git", "ls-remote", f"git://{PRIVATE}/a.git"]

        def answers() -> bool:
            return subprocess.run(ask, capture_output=True).returncode == 0

        wait_until(answers, 10, "git daemon answers")
        assert "second commit\n" in context(engine, f"git://{PRIVATE}/a.git").text
    finally:
        daemon.terminate()
        daemon.wait()


@pytest.mark.parametrize(
    ("remote", "says"),
    [
        ("{url}/no.git", "failed to fetch the git repository"),
        ("{url}/a.git#nosuch", "failed to fetch the git repository"),
        ("{url}/a.git#:nosuch", "path not found"),
        ("{url}/a.git#:out", "path not found"),
        ("{url}/a.git#" + "0" * 40, "failed to fetch the git repository"),
    ],
)
def test_what_is_not_there(engine: Engine, url: str, remote: str, says: str) -> None:
    said = context(engine, remote.format(url=url))
    assert says in said.error, said.lines
    assert "root:" not in str(said.lines)


def test_case_070_a_repository_deeper_than_the_stack(engine: Engine, url: str) -> None:
    text = f"FROM busybox\nADD {url}/deep.git#:sub /s/\nRUN cat /s/file\n"
    said = engine.build(text)
    assert said.error == "", said.lines
    assert "of sub\n" in said.text
    before = engine.leftovers()
    assert engine.build(f"{text}RUN exit 3\n").error != ""
    wait_until(lambda: engine.leftovers() == before, 5, "nothing of the second build is left")


@pytest.mark.parametrize(
    "remote",
    ["http://127.0.0.1:8078/a.git", "http://x@169.254.169.254/a.git", "git://[::1]/a.git", "git@localhost:a"],
)  # fmt: skip
def test_case_079_git_reaches_no_service_of_the_host(engine: Engine, remote: str) -> None:
    for said in (context(engine, remote), engine.build(f"FROM scratch\nADD {remote} /x/\n")):
        assert "private address" in said.error, said.lines


def test_case_151_a_token_in_the_url_reaches_its_host_and_no_argument(
    engine: Engine, url: str
) -> None:
    signed = url.replace("://", f"://user:{SECRET}@")
    said = context(engine, f"{signed}/login/a.git")
    assert said.error == "", said.lines
    assert "second commit\n" in said.text
    kept = engine.build(
        f"FROM busybox\nADD --keep-git-dir=true {signed}/login/a.git /kept/\n"
        f"RUN ! grep -r {SECRET[:6]}[-]{SECRET[7:]} /kept\n"
    )
    assert kept.error == "", kept.lines
    for remote in ("/login/no.git", "/login/a.git#:nosuch", "/login/moved/a.git", "/a.git"):
        wrong = context(engine, f"{signed}{remote}")
        assert wrong.error != "", remote
        assert SECRET not in str(wrong.lines), remote


def test_case_073_submodules_by_file_are_refused(engine: Engine, url: str) -> None:
    said = context(engine, f"{url}/h.git")
    assert "'file' not allowed" in said.error, said.lines


def test_add(engine: Engine, url: str, repository: Repository) -> None:
    said = engine.build(
        f"FROM busybox\nADD {url}/a.git /whole/\nADD {url}/a.git#v1 /tag/\n"
        f"ADD {url}/a.git#main:sub /part/\nADD --keep-git-dir=true {url}/a.git /kept/\n"
        f"ADD --checksum={repository.second} {url}/a.git#main /sum/\n"
        "RUN cat /whole/file /tag/file /part/inner /sum/file; ls -d /*/.git\n"
    )
    assert said.error == "", said.lines
    assert "second commit\nfirst commit\ninner\nsecond commit\n/kept/.git\n" in said.text
    wrong = engine.build(f"FROM scratch\nADD --checksum={'0' * 40} {url}/a.git /x/\n")
    assert "the commit is not 000" in wrong.error
    assert "no folder 'out'" in engine.build(f"FROM scratch\nADD {url}/a.git#:out /x/\n").error


def test_add_uses_the_cache(engine: Engine, url: str) -> None:
    text = f"FROM busybox\nADD {url}/a.git#v1 /cached/\nRUN echo after\n"
    engine.build(text)
    assert engine.build(text).text.count("Using cache") == 2


@pytest.mark.parametrize("how", ["context", "add"])
def test_case_076_a_client_goes_while_git_works(engine: Engine, url: str, how: str) -> None:
    before = engine.leftovers()
    stall = f"{url}/stall.git"
    query = urlencode({"remote": stall if how == "context" else "", "nocache": 1})
    body = tar({"Dockerfile": f"FROM scratch\nADD {stall} /x\n"}) if how == "add" else b""
    client = UnixConnection(engine.socket)
    client.request("POST", f"/v1.51/build?{query}", body, {"Content-Type": "application/x-tar"})
    wait_until(lambda: stall in running(), 10, "git has begun")
    client.close()
    wait_until(lambda: engine.leftovers() == before, 5, "nothing of the build is left")
    wait_until(lambda: stall not in running(), 5, "git has ended")


def running() -> str:
    """The command lines of all programs."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                found.append(Path("/proc", name, "cmdline").read_bytes())
            except OSError:
                continue  # it has ended
    return b" ".join(found).decode(errors="replace").replace("\0", " ")
