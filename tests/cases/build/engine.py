"""A real agent in a network namespace of its own, with a busybox image, and builds on it."""

from __future__ import annotations

import http.client
import io
import json
import os
import secrets
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

from tests.lab.waiting import wait_until

REPOSITORY = Path(__file__).parents[3]
PRIVATE = "10.77.0.1"  # of the namespace: for servers that builds may reach
Files = Mapping[str, bytes | str]


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float = 60) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def tar(files: Files, *, links: Mapping[str, str] | None = None) -> bytes:
    """A context: names to contents; a name that ends with "/" is a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name.rstrip("/"))
            member.mtime = 1_700_000_000
            if name.endswith("/"):
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(member)
                continue
            data = content.encode() if isinstance(content, str) else content
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return buffer.getvalue()


class Built:
    """What a build said."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        self.text = "".join(str(line.get("stream", "")) for line in self.lines)

    @property
    def error(self) -> str:
        if self.status != 200:
            return str(self.lines[0]["message"])
        return str(self.lines[-1].get("error", ""))

    @property
    def image(self) -> str:
        found = [line["aux"]["ID"] for line in self.lines if "aux" in line]
        assert found, self.lines
        return str(found[-1])


class Engine:
    """An agent process and its folders."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bldtest-", dir="/var/tmp"))
        self.namespace = f"bldtest-{secrets.token_hex(3)}"
        self.root = self.folder / "root"
        self.socket = str(self.folder / "run" / "docker.sock")
        self.environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str) -> list[str]:
        config = {
            "root": str(self.root),
            "run": str(self.folder / "run"),
            "unix_socket": self.socket,
            "group": None,
            "bridge": {"name": "bldtest0"},
            "nft_table": "bldtest",
            "cgroup_parent": f"/{self.folder.name}",
        }
        file = self.folder / "agent.json"
        file.write_text(json.dumps(config))
        inside = ["nsenter", f"--net=/run/netns/{self.namespace}"]
        return [*inside, sys.executable, "-m", "agent", "--config", str(file), *arguments]

    def start(self) -> None:
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)
        subprocess.run(["ip", "-n", self.namespace, "link", "set", "lo", "up"], check=True)
        subprocess.run(
            ["ip", "-n", self.namespace, "address", "add", f"{PRIVATE}/32", "dev", "lo"], check=True
        )
        self.launch()
        self.load_busybox()

    def serve(self, program: str) -> subprocess.Popen[bytes]:
        """A Python program in the namespace; it prints a line when it listens."""
        inside = ["nsenter", f"--net=/run/netns/{self.namespace}"]
        server = subprocess.Popen([*inside, sys.executable, "-c", program], stdout=subprocess.PIPE)
        assert server.stdout is not None
        server.stdout.readline()
        return server

    def launch(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), cwd=REPOSITORY, env=self.environment, stdout=log, stderr=log
            )
        wait_until(self.answers, 20, "the agent answers")

    def answers(self) -> bool:
        try:
            return self.ask("GET", "/_ping")[0] == 200
        except OSError:
            return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)
        subprocess.run(
            self.command("teardown"), cwd=REPOSITORY, env=self.environment, check=False,
            capture_output=True,
        )  # fmt: skip
        subprocess.run(["ip", "netns", "delete", self.namespace], check=False)
        subprocess.run(["rm", "-rf", str(self.folder)], check=False)  # trees of any depth

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        extra: Mapping[str, str] | None = None,
        /,
        **query: object,
    ) -> tuple[int, bytes]:
        connection = UnixConnection(self.socket)
        try:
            target = f"/v1.51{path}" + (f"?{urlencode(query, doseq=True)}" if query else "")
            kind = "application/json" if (body or b"")[:1] == b"{" else "application/x-tar"
            headers = {**({"Content-Type": kind} if body else {}), **(extra or {})}
            connection.request(method, target, body, headers)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, document: object = None, **query: object):
        body = None if document is None else json.dumps(document).encode()
        status, raw = self.ask(method, path, body, **query)
        assert status < 300, (status, raw)
        return json.loads(raw) if raw.strip() else None

    def load_busybox(self) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.add("/bin/busybox", "bin/busybox")
            names = subprocess.run(["/bin/busybox", "--list"], capture_output=True, check=True)
            for name in names.stdout.decode().split():
                if name != "busybox":
                    member = tarfile.TarInfo(f"bin/{name}")
                    member.type, member.linkname = tarfile.SYMTYPE, "busybox"
                    archive.addfile(member)
            etc = {
                "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv:/bin/sh\n",
                "etc/group": "root:x:0:\nweb:x:34:\nstaff:x:50:\n",
            }
            for name, text in etc.items():
                member = tarfile.TarInfo(name)
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
            member = tarfile.TarInfo("tmp")
            member.type, member.mode = tarfile.DIRTYPE, 0o1777
            archive.addfile(member)
        status, raw = self.ask(
            "POST", "/images/create", buffer.getvalue(), fromSrc="-", repo="busybox", tag="latest"
        )
        assert status == 200, raw
        assert b"error" not in raw, raw

    def build(
        self,
        dockerfile: str,
        files: Files | None = None,
        *,
        links: Mapping[str, str] | None = None,
        **query: object,
    ) -> Built:
        context = tar({"Dockerfile": dockerfile, **(files or {})}, links=links)
        return self.send(context, **query)

    def send(self, context: bytes, **query: object) -> Built:
        return Built(*self.ask("POST", "/build", context, **query))

    def inspect(self, image: str):
        return self.json("GET", f"/images/{image}/json")

    def run(self, image: str, *command: str) -> str:
        """The output of a container of the image."""
        made = self.json(
            "POST", "/containers/create", {"Image": image, "Cmd": list(command) or None,
                                           "HostConfig": {"NetworkMode": "none"}},
        )["Id"]  # fmt: skip
        try:
            self.json("POST", f"/containers/{made}/start")
            self.json("POST", f"/containers/{made}/wait")
            raw = self.ask("GET", f"/containers/{made}/logs", stdout=1, stderr=1)[1]
        finally:
            self.ask("DELETE", f"/containers/{made}", force=1)
        out, position = b"", 0
        while position < len(raw):
            size = int.from_bytes(raw[position + 4 : position + 8])
            out += raw[position + 8 : position + 8 + size]
            position += 8 + size
        return out.decode(errors="replace")

    def shell(self, container: str, command: str) -> int:
        """Exit code of a shell command in a running container."""
        asked = {"Cmd": ["sh", "-c", command], "AttachStdout": True}
        made = self.json("POST", f"/containers/{container}/exec", asked)["Id"]
        self.ask("POST", f"/exec/{made}/start", b'{"Detach": false}')
        return int(self.json("GET", f"/exec/{made}/json")["ExitCode"])

    def leftovers(self) -> dict[str, object]:
        """What a build must not leave behind."""
        mounts = Path("/proc/self/mountinfo").read_text().count(str(self.folder))
        groups = [
            str(found)
            for top in Path("/sys/fs/cgroup").iterdir()
            for found in (top / self.folder.name).glob("*")
            if found.is_dir()
        ]
        return {
            "containers": sorted(os.listdir(self.root / "containers")),
            "work": sorted(os.listdir(self.root / "build" / "work")),
            "staged": [one for one in os.listdir(self.root / "layers") if one.startswith(".")],
            "layers": sorted(os.listdir(self.root / "layers")),
            "mounts": mounts,
            "groups": sorted(groups),
            "images": len(self.json("GET", "/images/json", all=1)),
        }


def timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
