"""RUN --mount=type=ssh: a real ssh-agent of the client's, asked from inside a build."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cases.build.engine import REPOSITORY, Engine, UnixConnection
from tests.lab.waiting import wait_until


class Agent:
    """ssh-agent with one key."""

    def __init__(self, folder: Path) -> None:
        self.socket = str(folder / "agent.sock")
        self.process = subprocess.Popen(
            ["ssh-agent", "-D", "-a", self.socket], stdout=subprocess.DEVNULL
        )
        while not os.path.exists(self.socket):
            assert self.process.poll() is None
        self.key = folder / "key"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "planted", "-f", str(self.key)],
            check=True,
        )
        self.run("-q", str(self.key))

    def run(self, *words: str) -> str:
        done = subprocess.run(
            ["ssh-add", *words],
            env={**os.environ, "SSH_AUTH_SOCK": self.socket},
            capture_output=True,
            text=True,
        )
        return done.stdout

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


@pytest.fixture(name="agent")
def _agent(tmp_path: Path) -> Iterator[Agent]:
    found = Agent(tmp_path)
    try:
        yield found
    finally:
        found.close()


def build(
    engine: Engine, folder: Path, dockerfile: str, *words: str, **env: str
) -> subprocess.CompletedProcess[str]:
    context = folder / "context"
    context.mkdir(exist_ok=True)
    openssh(context)
    (context / "Dockerfile").write_text(dockerfile)
    return subprocess.run(
        [sys.executable, "-m", "machine", "build", "--no-cache", *words, str(context)],
        cwd=REPOSITORY,
        env={**os.environ, "DOCKER_HOST": f"unix://{engine.socket}", **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


def openssh(context: Path) -> None:
    """The host's ssh-add with its libraries, for an image of busybox."""
    words = subprocess.run(["ldd", "/usr/bin/ssh-add"], capture_output=True, text=True, check=True)
    paths = [word for word in words.stdout.split() if word.startswith("/")]
    for path in ("/usr/bin/ssh-add", *paths):
        target = context / "root" / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
        target.chmod(0o755)


BASE = "FROM busybox\nCOPY root /\n"


def test_keys_are_listed_and_nothing_is_changed(
    engine: Engine, agent: Agent, tmp_path: Path
) -> None:
    public = agent.key.with_suffix(".pub").read_text().split()[1]
    done = build(
        engine,
        tmp_path,
        f"{BASE}RUN --mount=type=ssh stat -c '%F %a %u' $SSH_AUTH_SOCK; ssh-add -L; "
        "ssh-add -D; ssh-add -X < /dev/null; echo pass | ssh-add -x; true\n"
        "RUN echo [$SSH_AUTH_SOCK]; ls -d /run || true\n",
        *("--ssh", "default"),
        SSH_AUTH_SOCK=agent.socket,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "socket 600 0" in done.stdout
    assert f"{public} planted" in done.stdout
    assert "Failed to remove all identities" in done.stdout
    assert "[]" in done.stdout.splitlines()
    assert "ls: /run: No such file" in done.stdout
    assert public in agent.run("-L")
    assert os.listdir(engine.folder / "run" / "build-secrets") == []


def test_a_signature(engine: Engine, agent: Agent, tmp_path: Path) -> None:
    """ssh-add -T signs with the agent's key and checks the signature with the public one."""
    context = tmp_path / "context"
    context.mkdir()
    shutil.copy(agent.key.with_suffix(".pub"), context / "key.pub")
    done = build(
        engine,
        tmp_path,
        f"{BASE}COPY key.pub /\n"
        "RUN --mount=type=ssh,required=true ssh-add -T /key.pub && echo signed\n"
        "RUN --mount=type=ssh --mount=type=ssh,id=two env | grep SSH; ls /run/buildkit\n",
        *("--ssh", f"default={agent.socket}", "--ssh", f"two={agent.socket}"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "signed" in done.stdout.splitlines()
    assert "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0" in done.stdout
    assert "ssh_agent.1" in done.stdout


def test_by_name_mode_owner_and_target(engine: Engine, agent: Agent, tmp_path: Path) -> None:
    done = build(
        engine,
        tmp_path,
        f"{BASE}USER web\n"
        "RUN --mount=type=ssh,id=other,target=/tmp/a,mode=0640,uid=33,gid=34 "
        "stat -c '%a %u %g' /tmp/a; ssh-add -l\n",
        *("--ssh", f"other={agent.socket}"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "640 33 34" in done.stdout
    assert "planted (ED25519)" in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--ssh", "default"], "there is no SSH agent"),
        (["--ssh", "default=/nonexistent"], "can't reach the SSH agent"),
    ],
)
def test_no_agent_on_the_client(
    engine: Engine, tmp_path: Path, words: list[str], says: str
) -> None:
    done = build(engine, tmp_path, "FROM busybox\n", *words, SSH_AUTH_SOCK="")
    assert done.returncode != 0
    assert says in done.stderr


def test_none_is_given(engine: Engine) -> None:
    said = engine.build("FROM busybox\nRUN --mount=type=ssh echo [$SSH_AUTH_SOCK]\n")
    assert "[]\n" in said.text
    said = engine.build("FROM busybox\nRUN --mount=type=ssh,required true\n")
    assert said.error.startswith("ssh default: not found")


def test_an_agent_that_dies_is_a_failure(engine: Engine, agent: Agent, tmp_path: Path) -> None:
    agent.close()
    listener = socket.socket(socket.AF_UNIX)
    path = str(tmp_path / "dead.sock")
    listener.bind(path)
    listener.listen()
    listener.settimeout(30)

    def hang_up() -> None:
        listener.accept()[0].close()

    threading.Thread(target=hang_up, daemon=True).start()
    done = build(
        engine,
        tmp_path,
        f"{BASE}RUN --mount=type=ssh ssh-add -l 2>/dev/null || echo failed\n",
        *("--ssh", f"default={path}"),
    )
    listener.close()
    assert "failed" in done.stdout.splitlines(), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("token", "status"), [("", 501), ("short", 400), ("A" * 32, 400), ("0" * 33, 400)]
)
def test_sessions_need_a_token(engine: Engine, token: str, status: int) -> None:
    headers = {"X-Machine-Session": token} if token else {}
    assert engine.ask("POST", "/session", b"", headers)[0] == status


def test_a_token_is_used_once(engine: Engine) -> None:
    token = os.urandom(16).hex()
    first = UnixConnection(engine.socket)
    first.request("POST", "/v1.51/session", headers={"X-Machine-Session": token})
    answer = first.getresponse()  # it holds the connection
    assert answer.status == 200
    assert engine.ask("POST", "/session", b"", {"X-Machine-Session": token})[0] == 409
    answer.close()
    first.close()

    def free() -> bool:
        again = UnixConnection(engine.socket)
        again.request("POST", "/v1.51/session", headers={"X-Machine-Session": token})
        with again.getresponse() as found:
            again.close()
            return found.status == 200

    wait_until(free, 5, "the session ends with its connection")
