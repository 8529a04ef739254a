"""The agent as a process: start, configuration mistakes, TLS files, signals, teardown.

Each test has a network namespace, data folders and a cgroup parent of its own.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from machine.pki import Authority, ServerNames, make_authority
from tests.lab.waiting import wait_until

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
REPOSITORY = Path(__file__).parents[3]


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self._path)


class Process:
    """An agent in a namespace of its own."""

    def __init__(self, folder: Path, namespace: str) -> None:
        self.folder = folder
        self.namespace = namespace
        self.run_folder = folder / "run"
        self.socket = str(folder / "run" / "docker.sock")
        self.file = folder / "agent.json"
        self.config = {
            "root": str(folder / "root"),
            "run": str(self.run_folder),
            "unix_socket": self.socket,
            "group": None,
            "bridge": {"name": "agtest0"},
            "nft_table": "agtest",
            "cgroup_parent": f"/agtest-{folder.name}",
        }
        self.started: list[subprocess.Popen[str]] = []

    def command(self, *arguments: str) -> list[str]:
        self.file.write_text(json.dumps(self.config))
        inside = ["nsenter", f"--net=/run/netns/{self.namespace}"]
        return [*inside, sys.executable, "-m", "agent", "--config", str(self.file), *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), cwd=REPOSITORY, capture_output=True, text=True, timeout=60
        )

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        with open(self.folder / "log", "a") as log:
            process = subprocess.Popen(
                self.command(*arguments),
                cwd=REPOSITORY,
                stderr=log,
                text=True,
                env={**os.environ, **environment},
            )
        self.started.append(process)
        wait_until(lambda: self.answers() or process.poll() is not None, 30, "agent")
        assert process.poll() is None, self.log()
        return process

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def answers(self) -> bool:
        try:
            return self.ask("GET", "/_ping")[0] == 200
        except OSError:
            return False

    def ask(self, method: str, path: str) -> tuple[int, bytes]:
        connection = UnixConnection(self.socket)
        try:
            connection.request(method, path)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def stop_all(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def agent():
    folder = Path(tempfile.mkdtemp(prefix="agtest-", dir="/var/tmp"))
    namespace = f"agtest-{secrets.token_hex(3)}"
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    process = Process(folder, namespace)
    try:
        yield process
    finally:
        process.stop_all()
        process.run("teardown")
        subprocess.run(["ip", "netns", "delete", namespace], check=True)
        shutil.rmtree(folder, ignore_errors=True)


def test_serves_and_stops_in_order(agent, tmp_path):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(path)
        notify.settimeout(20)
        process = agent.start(NOTIFY_SOCKET=path)
        assert notify.recv(100) == b"READY=1"
        assert int((agent.run_folder / "agent.pid").read_text()) == process.pid
        status, body = agent.ask("GET", "/v1.43/info")
        assert (status, json.loads(body)["DockerRootDir"]) == (200, agent.config["root"])
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert notify.recv(100) == b"STOPPING=1"
    assert not (agent.run_folder / "agent.pid").exists()
    assert not Path(agent.socket).exists()
    assert "Traceback" not in agent.log()


def test_the_engine_keeps_its_id(agent):
    seen = set()
    for _ in range(2):
        process = agent.start()
        seen.add(json.loads(agent.ask("GET", "/info")[1])["ID"])
        process.terminate()
        assert process.wait(20) == 0
    assert len(seen) == 1


def test_a_second_agent_is_refused(agent):
    agent.start()
    second = agent.run()
    assert second.returncode == 75
    assert second.stderr.startswith("agent: another agent (pid ")
    assert agent.run("teardown").returncode == 75
    assert agent.answers()


def test_only_root_may_look_into_the_folders(agent):
    agent.start()
    assert (agent.folder / "root").stat().st_mode & 0o777 == 0o710
    assert agent.run_folder.stat().st_mode & 0o777 == 0o711


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"rooot": 1}, 78, 'unknown key "rooot"'),
        ({"unix_socket": None}, 78, "nothing to listen on"),
        ({"tcp": {"ca": "/no/ca", "cert": "/no/c", "key": "/no/k"}}, 78, "/no/ca: No such file"),
        ({"runtime": "runc", "root": "/proc/nope/x"}, 1, "No such file"),
    ],
)
def test_case_098_one_clear_line(agent, change, code, says):
    agent.config.update(change)
    try:
        done = agent.run()
    finally:
        for key in change:
            agent.config.pop(key)
        agent.config["root"] = str(agent.folder / "root")
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("agent: ")


def test_usage_and_version(agent):
    assert agent.run("--bogus").returncode == 2
    done = agent.run("--version")
    assert (done.returncode, done.stdout.split()[:2]) == (0, ["machine", "agent"])
    assert agent.run("--check").returncode == 0
    assert not (agent.folder / "root").exists(), "--check makes nothing"


class Trust:
    """A store's CA and a server identity in files, as provisioning leaves them."""

    def __init__(self, folder: Path) -> None:
        key, cert = make_authority(time.time())
        loaded = serialization.load_pem_private_key(key, None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        self.authority = Authority(x509.load_pem_x509_certificate(cert), loaded)
        self.folder = folder
        self.write("ca.pem", cert)
        self.new_server()

    def write(self, name: str, data: bytes, mode: int = 0o600) -> str:
        path = self.folder / name
        path.write_bytes(data)
        path.chmod(mode)
        return str(path)

    def new_server(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        pem = csr.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        names = ServerNames("demo", ("demo",), ("127.0.0.1",))
        self.write("server.pem", self.authority.sign_server(pem, names, time.time()))
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self.write("server-key.pem", private)

    def client(self) -> None:
        key, cert = self.authority.issue_client("me", time.time())
        self.write("key.pem", key)
        self.write("cert.pem", cert)

    def config(self) -> dict[str, object]:
        names = {"ca": "ca.pem", "cert": "server.pem", "key": "server-key.pem"}
        return {
            "listen": "127.0.0.1",
            "port": 2376,
            **{key: str(self.folder / name) for key, name in names.items()},
        }


def curl_over_tls(agent, trust):
    return subprocess.run(
        [
            "nsenter", f"--net=/run/netns/{agent.namespace}", "curl", "-sS", "--max-time", "20",
            "--cacert", trust.folder / "ca.pem", "--cert", trust.folder / "cert.pem",
            "--key", trust.folder / "key.pem", "https://127.0.0.1:2376/v1.50/version",
        ],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip


def test_tls_serves_and_sighup_takes_up_new_files(agent, tmp_path):
    subprocess.run(["ip", "-n", agent.namespace, "link", "set", "lo", "up"], check=True)
    trust = Trust(tmp_path)
    trust.client()
    agent.config["tcp"] = trust.config()
    process = agent.start()
    done = curl_over_tls(agent, trust)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ApiVersion"] == "1.51"
    trust.new_server()
    agent.config["registry_mirrors"] = ["http://10.0.0.1:5000"]
    agent.command()  # writes the file
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: "read configuration and TLS files anew" in agent.log(), 10, "log line")
    assert curl_over_tls(agent, trust).returncode == 0
    info = json.loads(agent.ask("GET", "/info")[1])
    assert info["RegistryConfig"]["Mirrors"] == ["http://10.0.0.1:5000"]
    (tmp_path / "server.pem").write_text("broken")
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: "keeping the old configuration" in agent.log(), 10, "log line")
    assert agent.answers()


def test_case_098_bad_key_files_stop_the_start_but_not_without_tcp(agent, tmp_path):
    trust = Trust(tmp_path)
    agent.config["tcp"] = trust.config()
    key = tmp_path / "server-key.pem"

    def refused(says):
        for arguments in ((), ("--check",)):
            done = agent.run(*arguments)
            assert done.returncode == 78
            assert says in done.stderr
            assert done.stderr.count("\n") == 1
            assert "PRIVATE" not in done.stderr

    key.chmod(0o644)
    refused("others may read it (mode 0644)")
    good = key.read_bytes()
    key.chmod(0o600)
    other = ec.generate_private_key(ec.SECP256R1())
    key.write_bytes(
        other.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    refused("cannot use the TLS files")
    key.write_bytes(b"")
    refused("cannot use the TLS files")
    key.unlink()
    refused("No such file")
    agent.start("--no-tcp")
    assert agent.answers()
    key.write_bytes(good)


def test_teardown_leaves_nothing(agent):
    process = agent.start()
    process.terminate()
    assert process.wait(20) == 0
    assert agent.run("teardown").returncode == 0
    assert not agent.run_folder.exists()
    inside = ["nsenter", f"--net=/run/netns/{agent.namespace}"]
    links = subprocess.run([*inside, "ip", "link"], capture_output=True, text=True, check=True)
    assert "agtest0" not in links.stdout
    tables = subprocess.run([*inside, "nft", "list", "tables"], capture_output=True, text=True)
    assert "agtest" not in tables.stdout
    assert agent.run("teardown").returncode == 0, "idempotent"
