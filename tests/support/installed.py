"""A machine made by `machine create` on a lab host, and the clients that a user points at it."""

import http.client
import json
import os
import pty
import select
import shlex
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlencode

from tests.lab.host import Host
from tests.lab.registry import Registry
from tests.lab.waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
MACHINE = REPOSITORY / ".venv/bin/machine"
PATIENCE = 20.0  # seconds; generous, because CI machines are slow: no test waits for nothing


@dataclass(frozen=True)
class Done:
    """What a command said."""

    status: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        """Standard output, without the newline at its end."""
        return self.out.decode(errors="replace").rstrip("\n")

    @property
    def lines(self) -> list[str]:
        """Standard output's lines."""
        return self.text.splitlines()

    @property
    def complaint(self) -> str:
        """Standard error."""
        return self.err.decode(errors="replace").strip()


@dataclass(frozen=True)
class Answer:
    """What the API said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> object:
        """The decoded body."""
        return json.loads(self.body)

    @property
    def document(self) -> dict[str, object]:
        """The decoded body, an object."""
        found = json.loads(self.body)
        assert isinstance(found, dict), found
        return found

    @property
    def message(self) -> str:
        """An error's text."""
        return str(self.document["message"])


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def request(
    socket_path: str,
    method: str,
    path: str,
    body: object = None,
    *,
    version: str = "v1.51",
    headers: Mapping[str, str] | None = None,
    timeout: float = 60,
    **query: object,
) -> Answer:
    """One API request on a connection of its own. Raises OSError, http.client.HTTPException."""
    connection = _UnixConnection(socket_path, timeout)
    payload = None if body is None else json.dumps(body).encode()
    sent = {"Content-Type": "application/json"} if payload else {}
    target = f"/{version}{path}" + (f"?{urlencode(query)}" if query else "")
    try:
        connection.request(method, target, payload, sent | dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


class Installed:
    """One created machine; see `create`. Everything runs with the environment of `machine env`."""

    def __init__(
        self, name: str, host: Host, folder: Path, docker: Path, registry: Registry
    ) -> None:
        self.name = name
        self.host = host
        self.folder = folder
        self.store = folder / "store"
        self.registry = registry
        self._docker = docker
        (folder / "home").mkdir(parents=True, exist_ok=True)
        self.plain_environment = {
            "PATH": f"{MACHINE.parent}:{docker.parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(folder / "home"),
            "LANG": "C.UTF-8",
            "SHELL": "/bin/bash",
            "TERM": "xterm",
            "MACHINE_STORAGE_PATH": str(self.store),
        }
        self.environment = dict(self.plain_environment)

    def create(self) -> "Installed":
        """`machine create --driver ssh`, and its environment as a shell takes it."""
        host = ["--generic-ip-address", self.host.ip, "--generic-ssh-key", str(self.host.key)]
        mirror = ["--engine-registry-mirror", self.registry.url]
        self.machine("create", "--driver", "ssh", *host, *mirror, self.name)
        script = f'said="$({MACHINE} env {self.name})" && eval "$said" && env -0'
        taken = self.run("bash", "-c", script)
        pairs = (item.split("=", 1) for item in taken.out.decode().split("\0") if item)
        self.environment |= {k: v for k, v in pairs if k.startswith("DOCKER_")}
        return self

    def run(
        self,
        *argv: str,
        data: bytes = b"",
        check: bool = True,
        timeout: float = 60,
        extra: Mapping[str, str] | None = None,
    ) -> Done:
        """A program to its end with `data` on its standard input."""
        done = subprocess.run(
            argv,
            input=data,
            capture_output=True,
            env=self.environment | dict(extra or {}),
            cwd=self.folder,
            timeout=timeout,
        )
        if check and done.returncode != 0:
            said = (done.stdout + done.stderr).decode(errors="replace")[-2000:]
            raise AssertionError(f"status {done.returncode}: {shlex.join(argv)}\n{said}")
        return Done(done.returncode, done.stdout, done.stderr)

    def docker(self, *arguments: str, data: bytes = b"", **more: object) -> Done:
        """The docker client."""
        return self.run(str(self._docker), *arguments, data=data, **more)  # type: ignore[arg-type]

    def fails(self, *arguments: str, status: int = 1, says: str = "") -> Done:
        """The docker client, which must end with `status` and complain with `says`."""
        done = self.docker(*arguments, check=False)
        assert done.status == status, (arguments, done)
        assert says.lower() in done.complaint.lower(), (arguments, done.complaint)
        return done

    def machine(self, *arguments: str, data: bytes = b"", **more: object) -> Done:
        """Our own command."""
        return self.run(str(MACHINE), *arguments, data=data, **more)  # type: ignore[arg-type]

    def begin(self, *argv: str, **more: object) -> subprocess.Popen[bytes]:
        """A program left running; pipes on all three."""
        program = [str(self._docker), *argv[1:]] if argv[0] == "docker" else list(argv)
        if argv[0] == "machine":
            program[0] = str(MACHINE)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        options = {**pipes, "env": self.environment, "cwd": self.folder, **more}
        return subprocess.Popen(program, **options)  # type: ignore[call-overload,no-any-return]

    def terminal(self, *argv: str) -> "Terminal":
        """A program on a pseudo-terminal."""
        program = str(self._docker) if argv[0] == "docker" else str(MACHINE)
        return Terminal([program, *argv[1:]], self.environment, self.folder)

    @property
    def socket(self) -> str:
        """The agent's unix socket, as seen from here. Short, as sockaddr_un wants it."""
        return f"/proc/{self.host.init_pid}/root/run/machine/docker.sock"

    def api(self, method: str, path: str, body: object = None, **more: object) -> Answer:
        """A raw request on the unix socket."""
        return request(self.socket, method, path, body, **more)  # type: ignore[arg-type]

    def inspect(self, container: str) -> dict[str, object]:
        """A container's document."""
        answer = self.api("GET", f"/containers/{container}/json")
        assert answer.status == 200, answer
        return answer.document

    def state(self, container: str) -> dict[str, object]:
        """`.State` of it."""
        found = self.inspect(container)["State"]
        assert isinstance(found, dict)
        return found

    def wait_status(self, container: str, *wanted: str, seconds: float = PATIENCE) -> None:
        """Return when the container's status is one of these."""
        self.wait(
            lambda: self.state(container)["Status"] in wanted, f"{container} {wanted}", seconds
        )

    def wait(self, predicate: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        """Return when it is so. Raises LabError naming `what`."""
        wait_until(predicate, seconds, what, interval=0.02)

    def answers(self) -> bool:
        """Whether the agent answers /_ping now."""
        try:
            return self.api("GET", "/_ping", timeout=5).status == 200
        except (OSError, http.client.HTTPException):
            return False

    def agent_pid(self) -> int:
        """The agent's process id as the host sees it."""
        return int(self.host.run("cat", "/run/machine/agent.pid").stdout)

    def restart_wait(self, before: int, seconds: float = PATIENCE) -> None:
        """Return when an agent other than process `before` answers."""

        def back() -> bool:
            return self.answers() and self.agent_pid() != before

        self.wait(back, "the agent is back", seconds)

    def sweep(self) -> None:
        """Remove all containers and volumes, so that the next test finds an empty machine."""
        containers = self.api("GET", "/containers/json", all="true").json()
        assert isinstance(containers, list)
        for one in containers:
            self.api("DELETE", f"/containers/{one['Id']}", force="true", v="true")
        volumes = self.api("GET", "/volumes").document["Volumes"]
        assert isinstance(volumes, list)
        for one in volumes:
            self.api("DELETE", f"/volumes/{one['Name']}", force="true")

    def tls_context(self) -> ssl.SSLContext:
        """The client's side of mutual TLS, with this machine's files."""
        place = Path(self.environment["DOCKER_CERT_PATH"])
        context = ssl.create_default_context(cafile=str(place / "ca.pem"))
        context.load_cert_chain(str(place / "cert.pem"), str(place / "key.pem"))
        return context


class Terminal:
    """A program on a pseudo-terminal: what it prints is read until it shows what is awaited."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self._fd, inner = pty.openpty()
        self.seen = b""
        self.process = subprocess.Popen(
            ["setsid", "-c", *argv],  # the pseudo-terminal becomes its controlling one
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env=dict(environment),
            cwd=folder,
        )
        os.close(inner)

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._fd, text.encode())

    def expect(self, text: str, seconds: float = PATIENCE) -> None:
        """Read until `text` has been printed; forget what came up to it."""
        wanted, end = text.encode(), time.monotonic() + seconds
        while wanted not in self.seen:
            left = end - time.monotonic()
            in_time = left > 0 and self._read(left)
            assert in_time, f"no {text!r} in {self.seen[-2000:]!r}"
        self.seen = self.seen.partition(wanted)[2]

    def finish(self, seconds: float = PATIENCE) -> int:
        """Its exit status; everything that it printed is in `seen`."""
        end = time.monotonic() + seconds
        while self._read(max(0.0, end - time.monotonic())):
            pass
        return self.process.wait(max(0.1, end - time.monotonic()))

    def close(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, seconds: float) -> bool:
        """False at the end of what it prints, or when there was nothing in time."""
        if not select.select([self._fd], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # EIO: the other side is closed
            return False
        self.seen += data
        return bool(data)
