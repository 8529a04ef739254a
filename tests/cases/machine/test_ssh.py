"""security.md cases 141-144 and 146 against a real sshd on loopback, and against pretenders."""

import getpass
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from machine.errors import HostKeyError, MachineError, UnreachableError
from machine.hostkeys import HostKey, KnownHost
from machine.model import SshEndpoint
from machine.transport import ssh
from machine.transport.api import run
from tests.cases.machine.sshd import keygen, pretender, sshd

QUICK = ssh.Deadlines(connect=2.0, banner=1.0, key_exchange=1.0, login=2.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sshd")


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    with sshd(folder) as number:
        yield number


def ports(home: Path, seen: list[HostKey] | None = None, secret: str | None = None) -> ssh.SshPorts:
    return ssh.SshPorts((seen if seen is not None else []).append, lambda _: secret, home)


def endpoint(port: int, key: Path | None) -> SshEndpoint:
    return SshEndpoint("127.0.0.1", port, getpass.getuser(), str(key) if key else None)


def test_first_contact_is_shown_once_and_pinned(port: int, folder: Path, tmp_path: Path) -> None:
    known, seen = KnownHost(tmp_path, "web"), list[HostKey]()
    for _ in range(2):
        transport = ssh.connect(endpoint(port, folder / "id"), known, ports(tmp_path, seen))
        try:
            done = run(transport, "cat; echo err >&2; exit 3", stdin=b"in")
        finally:
            transport.close()
        assert (done.status, done.stdout, done.stderr) == (3, "in", "err\n")
    assert len(seen) == 1


def test_many_commands_on_one_connection(port: int, folder: Path, tmp_path: Path) -> None:
    transport = ssh.connect(
        endpoint(port, folder / "id"), KnownHost(tmp_path, "w"), ports(tmp_path)
    )
    try:
        payload = os.urandom(3 << 20)
        assert run(transport, "wc -c", stdin=payload).stdout.strip() == str(len(payload))
        assert run(transport, "echo $SSH_AUTH_SOCK").stdout == "\n", "no agent forwarding"
        with pytest.raises(MachineError, match="did not finish in time"):
            run(transport, "sleep 20", timeout=0.3)
        with pytest.raises(MachineError, match="more than it should"):
            run(transport, "yes", timeout=20)
    finally:
        transport.close()


def test_case_141_changed_host_key_is_refused(folder: Path, tmp_path: Path) -> None:
    known = KnownHost(tmp_path, "web")
    with sshd(folder) as port:
        ssh.connect(endpoint(port, folder / "id"), known, ports(tmp_path)).close()
    pinned = known.path.read_bytes()
    other = keygen(tmp_path / "other")
    with sshd(folder, host_key=other) as port, pytest.raises(HostKeyError) as caught:
        ssh.connect(endpoint(port, folder / "id"), known, ports(tmp_path))
    assert caught.value.details.count("SHA256:") == 2
    assert known.path.read_bytes() == pinned


def test_case_141_a_second_host_key_of_the_host_does_not_confuse(
    folder: Path, tmp_path: Path
) -> None:
    """The pinned type is asked for first, so a host that later gets an ed25519 key still works."""
    rsa = keygen(tmp_path / "rsa", "rsa")
    known = KnownHost(tmp_path, "web")
    with sshd(folder, host_key=rsa) as port:
        ssh.connect(endpoint(port, folder / "id"), known, ports(tmp_path)).close()
    with sshd(folder, f"HostKey {folder / 'host'}", host_key=rsa) as port:
        ssh.connect(endpoint(port, folder / "id"), known, ports(tmp_path)).close()


@pytest.mark.parametrize(
    "weak",
    [
        "Ciphers aes128-cbc,3des-cbc",
        "Ciphers chacha20-poly1305@openssh.com",
        "Ciphers aes128-ctr\nMACs hmac-sha1,hmac-md5",
        "KexAlgorithms diffie-hellman-group14-sha1,diffie-hellman-group1-sha1",
        "HostKeyAlgorithms ssh-rsa",
    ],
)
def test_case_142_weak_servers_are_refused(folder: Path, tmp_path: Path, weak: str) -> None:
    rsa = keygen(tmp_path / "rsa", "rsa") if "ssh-rsa" in weak else None
    known = KnownHost(tmp_path, "w")
    with (
        sshd(folder, weak, host_key=rsa) as port,
        pytest.raises(MachineError, match="weak algorithms"),
    ):
        ssh.connect(endpoint(port, folder / "id"), known, ports(tmp_path), QUICK)
    assert not (tmp_path / "known_hosts").exists()


def _silent(client: socket.socket) -> None:
    while client.recv(4096):
        pass


def _only_banner(client: socket.socket) -> None:
    client.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
    _silent(client)


def _noise(client: socket.socket) -> None:
    while True:
        client.sendall(b"\x1b]0;password:\x07" * 1000)


def _closes(client: socket.socket) -> None:
    client.close()


@pytest.mark.parametrize("serve", [_silent, _only_banner, _noise, _closes])
def test_case_143_hanging_servers_end_in_time(serve: object, folder: Path, tmp_path: Path) -> None:
    assert callable(serve)
    with pretender(serve) as port:
        began = time.monotonic()
        with pytest.raises(UnreachableError) as caught:
            ssh.connect(
                endpoint(port, folder / "id"), KnownHost(tmp_path, "w"), ports(tmp_path), QUICK
            )
        assert time.monotonic() - began < 6
    assert "\x1b" not in str(caught.value)


def test_nothing_listens(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="can't be reached"):
        ssh.connect(endpoint(1, folder / "id"), KnownHost(tmp_path, "w"), ports(tmp_path), QUICK)


def test_case_146_only_our_key_is_offered(folder: Path, tmp_path: Path) -> None:
    other = keygen(tmp_path / "other")
    (tmp_path / ".ssh").mkdir()
    keygen(tmp_path / ".ssh" / "id_ed25519")
    with sshd(folder) as port:
        with pytest.raises(MachineError, match="SSH login as"):
            ssh.connect(endpoint(port, other), KnownHost(tmp_path, "w"), ports(tmp_path))
        log = (folder / "sshd.log").read_text()
        section = log[log.rindex(f"Server listening on 127.0.0.1 port {port}") :]
        assert section.count("Failed publickey") == 1


def test_default_keys_without_a_key(port: int, folder: Path, tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519").symlink_to(folder / "id")
    ssh.connect(endpoint(port, None), KnownHost(tmp_path, "w"), ports(tmp_path)).close()


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_keys_with_a_passphrase(tmp_path: Path, folder: Path, kind: str) -> None:
    key = keygen(tmp_path / "locked", kind, "open sesame")
    with sshd(folder, f"AuthorizedKeysFile {key}.pub") as port:
        for secret, message in ((None, "has a passphrase"), ("wrong", "can't be opened")):
            with pytest.raises(MachineError, match=message):
                ssh.connect(
                    endpoint(port, key), KnownHost(tmp_path, "w"), ports(tmp_path, secret=secret)
                )


def test_key_that_is_none(port: int, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("not a key")
    with pytest.raises(MachineError, match="can't be read"):
        ssh.connect(endpoint(port, tmp_path / "bad"), KnownHost(tmp_path, "w"), ports(tmp_path))
