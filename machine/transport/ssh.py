"""SSH by paramiko: one connection, many commands; the host key is verified before anything is said.

Differences from paramiko.SSHClient, and why it is not used: there is no policy object that could
add a key, each phase (connect, banner, key exchange, login) has its own deadline, and only the keys
that are meant for this host are offered.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import paramiko
from paramiko.pkey import UnknownKeyType

from machine.errors import MachineError, UnreachableError, printable
from machine.hostkeys import HostKey, KnownHost
from machine.model import SshEndpoint
from machine.transport.api import Running

# CBC modes (plaintext recovery), SHA-1 and MD5 MACs, short groups; ChaCha20 is not in paramiko.
# GCM first: it is not touched by prefix truncation (Terrapin) even without strict key exchange.
CIPHERS: Final = ("aes256-gcm@openssh.com", "aes128-gcm@openssh.com", "aes256-ctr", "aes128-ctr")
MACS: Final = (
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
)
_DEFAULT_KEYS: Final = ("id_ed25519", "id_ecdsa", "id_rsa")
_STDERR_KEPT: Final = 65536
_SAME_BLOB: Final = {"rsa-sha2-256": "ssh-rsa", "rsa-sha2-512": "ssh-rsa"}


@dataclasses.dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that each phase of a connection may take (security.md case 143)."""

    connect: float = 15.0
    banner: float = 15.0
    key_exchange: float = 15.0
    login: float = 30.0


@dataclasses.dataclass(frozen=True)
class SshPorts:
    """What a connection asks its user about."""

    first_contact: Callable[[HostKey], None]  # called once, before the key is pinned
    passphrase: Callable[
        [str], str | None
    ]  # path of a key -> its passphrase, None when nobody knows
    home: Path


class SshTransport:
    """A logged-in connection. Made by `connect`."""

    def __init__(self, transport: paramiko.Transport) -> None:
        self._transport = transport

    def start(self, command: str) -> Running:
        try:
            channel = self._transport.open_session(timeout=30.0)
            channel.exec_command(command)
        except (paramiko.SSHException, OSError, EOFError) as err:
            raise MachineError("The SSH connection broke", details=_reason(err)) from err
        return SshRunning(channel)

    def close(self) -> None:
        self._transport.close()

    @property
    def paramiko_transport(self) -> paramiko.Transport:
        """For port forwarding and sftp."""
        return self._transport


class SshRunning:
    """One command on its own channel."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        self._stderr = bytearray()

    def send(self, data: bytes) -> None:
        try:
            self._channel.settimeout(120.0)
            self._channel.sendall(data)
        except (OSError, EOFError) as err:
            raise MachineError(
                "The host stopped listening", details=self.stderr() or _reason(err)
            ) from err

    def close_stdin(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            self._channel.shutdown_write()

    def read(self, timeout: float) -> bytes:
        self._channel.settimeout(max(0.01, timeout))
        try:
            data = self._channel.recv(65536)
        except TimeoutError:
            self._drain()
            raise
        self._drain()
        return data

    def wait(self, timeout: float) -> int:
        if not self._channel.status_event.wait(max(0.01, timeout)):
            raise TimeoutError
        self._drain()
        return self._channel.exit_status

    def stderr(self) -> str:
        return self._stderr.decode("utf-8", "replace")

    def close(self) -> None:
        self._channel.close()

    def _drain(self) -> None:
        while self._channel.recv_stderr_ready():
            data = self._channel.recv_stderr(65536)
            if not data:
                return
            self._stderr += data[: _STDERR_KEPT - len(self._stderr)]


def connect(
    endpoint: SshEndpoint, known: KnownHost, ports: SshPorts, deadlines: Deadlines = Deadlines()
) -> SshTransport:
    """Connect, verify the host's key, log in.

    Raises UnreachableError while nothing answers properly (worth a retry while a host boots),
    HostKeyError for a changed key, MachineError for a refused login or weak server.
    """
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # it logs a traceback a failed banner
    transport = _transport(_socket(endpoint, deadlines), known, deadlines, endpoint)
    try:
        _verify(transport, known, ports)
        _login(transport, endpoint, ports)
    except BaseException:
        transport.close()
        raise
    return SshTransport(transport)


def _socket(endpoint: SshEndpoint, deadlines: Deadlines) -> socket.socket:
    try:
        return socket.create_connection((endpoint.host, endpoint.port), deadlines.connect)
    except OSError as err:
        raise UnreachableError(
            f"SSH at {endpoint.host} port {endpoint.port} can't be reached",
            details=err.strerror or str(err),
        ) from err


def _transport(
    sock: socket.socket, known: KnownHost, deadlines: Deadlines, endpoint: SshEndpoint
) -> paramiko.Transport:
    """A transport with its keys exchanged but nobody logged in."""
    try:
        transport = paramiko.Transport(sock)
        options = transport.get_security_options()
        options.ciphers = CIPHERS
        options.digests = MACS
        options.key_types = _key_types(known, tuple(options.key_types))
        transport.banner_timeout = deadlines.banner
        transport.handshake_timeout = deadlines.key_exchange
        transport.auth_timeout = deadlines.login
        transport.set_keepalive(30)
    except BaseException:
        sock.close()
        raise
    try:
        transport.start_client(timeout=deadlines.banner + deadlines.key_exchange)
    except paramiko.ssh_exception.IncompatiblePeer as err:
        transport.close()
        raise MachineError(
            f"SSH at {endpoint.host} offers only weak algorithms",
            details=_reason(err),
            hint="Upgrade the host's OpenSSH.",
        ) from err
    except (paramiko.SSHException, OSError, EOFError) as err:
        transport.close()
        raise UnreachableError(
            f"SSH at {endpoint.host} port {endpoint.port} does not answer properly",
            details=_reason(err),
        ) from err
    except BaseException:
        transport.close()
        raise
    return transport


def _key_types(known: KnownHost, offered: tuple[str, ...]) -> tuple[str, ...]:
    """The pinned types first: a host with several keys then shows the one that we know."""
    kinds = {key.kind for key in known.pinned()}
    return tuple(sorted(offered, key=lambda t: _SAME_BLOB.get(t, t) not in kinds))


def _verify(transport: paramiko.Transport, known: KnownHost, ports: SshPorts) -> None:
    try:
        key = transport.get_remote_server_key()
    except paramiko.SSHException as err:  # the connection ended right after the key exchange
        raise UnreachableError("SSH does not answer properly", details=_reason(err)) from err
    offered = HostKey(key.get_name(), key.asbytes())
    if not known.verify(offered):
        ports.first_contact(offered)
        known.pin([offered])


def _login(transport: paramiko.Transport, endpoint: SshEndpoint, ports: SshPorts) -> None:
    reasons: list[str] = []
    for label, key in _identities(endpoint, ports):
        try:
            transport.auth_publickey(endpoint.user, key)
        except paramiko.BadAuthenticationType as err:
            reasons.append(f"{label}: the host takes only {', '.join(err.allowed_types)}")
            break
        except paramiko.AuthenticationException:
            reasons.append(f"{label}: refused")
        except (paramiko.SSHException, OSError, EOFError) as err:
            raise UnreachableError("The SSH login did not finish", details=_reason(err)) from err
        else:
            return
    raise MachineError(
        f"SSH login as {endpoint.user} at {endpoint.host} failed",
        details="\n".join(reasons) or "There is no key to log in with.",
        hint=f"Add one of them to {endpoint.user}'s ~/.ssh/authorized_keys on the host, or give the "
        "right one when you create the machine: --ssh-key."
        if reasons
        else "Give the key with --ssh-key, or add it to the SSH agent.",
    )


def _identities(endpoint: SshEndpoint, ports: SshPorts) -> Iterator[tuple[str, paramiko.PKey]]:
    if endpoint.key_path:
        path = Path(endpoint.key_path)
        public = public_part(path)
        # As OpenSSH: a key that the agent holds needs no passphrase. No other key is offered (146).
        for held in _agent_keys() if public else ():
            if held.asbytes() == public:
                yield _labelled("SSH agent", held)
        yield _labelled(path.name, _load(path, ports))
        return
    for held in _agent_keys():
        yield _labelled("SSH agent", held)
    for name in _DEFAULT_KEYS:
        path = ports.home / ".ssh" / name
        if path.is_file():
            yield _labelled(str(path), _load(path, ports))


def _agent_keys() -> tuple[paramiko.PKey, ...]:
    try:
        return paramiko.Agent().get_keys()
    except (paramiko.SSHException, OSError):
        return ()


def public_part(path: Path) -> bytes:
    """The public key inside an OpenSSH private key file, locked or not; b"" in other formats.

    PROTOCOL.key of OpenSSH: magic, then strings cipher, kdf, kdf options; a count; the public key.
    """
    try:
        words = path.read_text("ascii").split("-----")
        data = base64.b64decode("".join(words[2].split()), validate=True)
    except (OSError, ValueError, IndexError):
        return b""
    magic, _, rest = data.partition(b"\0")
    if magic != b"openssh-key-v1":
        return b""
    message = paramiko.Message(rest)
    for _ in range(3):
        message.get_string()
    return message.get_string() if message.get_int() == 1 else b""


def _labelled(source: str, key: paramiko.PKey) -> tuple[str, paramiko.PKey]:
    """By its fingerprint a user finds the key again: in `ssh-add -l`, in authorized_keys."""
    shown = HostKey(key.get_name(), key.asbytes()).fingerprint
    return f"{source} ({key.get_name()} {shown})", key


def _load(path: Path, ports: SshPorts) -> paramiko.PKey:
    """Raises MachineError for a missing, foreign or locked key."""
    try:
        return paramiko.PKey.from_path(path)
    except (
        paramiko.PasswordRequiredException,
        TypeError,
    ):  # TypeError: cryptography's way to say it
        return _unlock(path, ports)
    except (OSError, ValueError, paramiko.SSHException, UnknownKeyType) as err:
        raise _bad_key(path, err) from err


def _unlock(path: Path, ports: SshPorts) -> paramiko.PKey:
    secret = ports.passphrase(str(path))
    if secret is None:
        raise MachineError(
            f"The SSH key {path.name} has a passphrase",
            hint="Add it to the SSH agent (ssh-add), or run this on a terminal to be asked.",
        )
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            return kind.from_private_key_file(str(path), password=secret)
        except (ValueError, TypeError, paramiko.SSHException):
            continue  # another type of key, or the wrong passphrase
    raise MachineError(f"The SSH key {path.name} can't be opened with that passphrase")


def _bad_key(path: Path, err: Exception) -> MachineError:
    return MachineError(f"The SSH key {path} can't be read", details=_reason(err))


def _reason(err: BaseException) -> str:
    return printable(str(err) or type(err).__name__, 500)
