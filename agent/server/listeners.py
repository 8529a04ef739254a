"""Where the server listens: unix sockets and mutual TLS. There is no plaintext TCP (C15)."""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import stat
import struct
from collections.abc import Mapping
from typing import Final

from agent.server.tls import TlsConfig
from agent.values import frozen
from agent.wire.http import Client, Transport

BACKLOG: Final = 1024
_FIRST_INHERITED: Final = 3  # SD_LISTEN_FDS_START
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid


class ListenError(Exception):
    """A socket cannot be opened. The text says which and why."""


@frozen(slots=True)
class UnixListener:
    """A socket file. `group` may use it besides root; when there is no such group, root's does."""

    path: str
    group: str | None = "docker"
    mode: int = 0o660


@frozen(slots=True)
class TlsListener:
    """Mutual TLS on a TCP port. `host` is a numeric address; port 0 = any free one.

    `hosts`: names that a Host header may have besides any numeric address; None = the names in the
    server's certificate.
    """

    host: str
    port: int
    tls: TlsConfig
    hosts: frozenset[str] | None = None


@frozen(slots=True)
class InheritedListener:
    """A unix socket that the service manager opened (systemd socket activation)."""

    fd: int


Listener = UnixListener | TlsListener | InheritedListener


def inherited_fds(environ: Mapping[str, str], pid: int) -> tuple[int, ...]:
    """The descriptors that systemd handed to this process (sd_listen_fds(3))."""
    try:
        count = int(environ.get("LISTEN_FDS", "0"))
        mine = int(environ.get("LISTEN_PID", "0")) == pid
    except ValueError:
        return ()
    return tuple(range(_FIRST_INHERITED, _FIRST_INHERITED + count)) if mine else ()


def open_unix(listener: UnixListener) -> socket.socket:
    """Listens, with its final owner and mode before the name appears; replaces a dead socket.

    Raises ListenError.
    """
    path = listener.path
    if _answers(path):
        raise ListenError(f"{path}: another engine listens there")
    fresh = f"{path}.{os.getpid()}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh)
        sock.bind(fresh)
        os.chown(fresh, -1, _group_id(listener.group))
        os.chmod(fresh, listener.mode)
        sock.listen(BACKLOG)
        os.rename(fresh, path)
    except OSError as error:
        sock.close()
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise ListenError(f"cannot listen on {path}: {error.strerror or error}") from error
    return sock


def _answers(path: str) -> bool:
    """True when a living server accepts there. Raises ListenError when it is no socket at all."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return False
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"{path}: exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except BlockingIOError:  # its backlog is full: alive
            return True
        except OSError:
            return False
    return True


def _group_id(name: str | None) -> int:
    if name is None:
        return -1
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return 0 if os.geteuid() == 0 else -1


def open_inherited(listener: InheritedListener) -> socket.socket:
    """Raises ListenError for anything but a listening unix socket: TCP would be plaintext."""
    try:
        sock = socket.socket(fileno=listener.fd)
        accepting = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ListenError(f"inherited descriptor {listener.fd} is not a socket") from error
    if sock.family != socket.AF_UNIX or not accepting:
        sock.detach()
        raise ListenError(f"inherited descriptor {listener.fd} is not a listening unix socket")
    sock.settimeout(0.0)
    return sock


def open_tcp(listener: TlsListener) -> socket.socket:
    """Raises ListenError."""
    family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # "::" takes IPv4 too, as a Docker host's tcp://[::]:2376 does.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((listener.host, listener.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        where = f"{listener.host} port {listener.port}"
        raise ListenError(f"cannot listen on {where}: {error.strerror or error}") from error
    return sock


def remove_unix(path: str, inode: int) -> None:
    """Removes our socket file, unless another server has put its own there."""
    with contextlib.suppress(OSError):
        if os.lstat(path).st_ino == inode:
            os.unlink(path)


def unix_client(sock: socket.socket) -> Client:
    """The peer by the kernel's word (SO_PEERCRED)."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _gid = _CREDENTIALS.unpack(raw)
    return Client(Transport.UNIX, uid=uid, pid=pid)


def tune_tcp(sock: socket.socket) -> None:
    """A client whose computer has gone is noticed within about a minute."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
