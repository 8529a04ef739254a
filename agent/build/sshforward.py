"""RUN --mount=type=ssh: the client's SSH agent for one RUN, over a connection that the client keeps.

`machine build --ssh` opens POST /session with a token of its own and names the token in the build's
request.  In the step lies a socket of ours; what a program there asks is passed on a question at a
time.  Only listing keys and signing go through: a build can't add, remove or lock keys, and no key
ever leaves the client (draft-ietf-sshm-ssh-agent, section 3).
"""

from __future__ import annotations

import os
import posixpath
import socket
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress

from agent.build import owners
from agent.build.instructions import Mount
from agent.build.mountoptions import flag, number
from agent.engine.model import MountPoint
from agent.errors import conflict, invalid, unavailable
from agent.host import tree
from agent.wire.streams import STDOUT, Duplex

_TARGET = "/run/buildkit/ssh_agent.{}"
_PASSED = frozenset({11, 13})  # SSH_AGENTC_REQUEST_IDENTITIES, SSH_AGENTC_SIGN_REQUEST
_FAILURE = b"\0\0\0\x01\x05"
_FRAME_LIMIT = 256 << 10
_PATIENCE = 120.0  # seconds for an answer: somebody may have to touch a key
_PIECE = 64 << 10
_MOST = 64  # sessions, and connections of a step


class Sessions:
    """The connections that clients keep, by token.  Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._upstreams: dict[str, Upstream] = {}

    def offer(self, token: str) -> Duplex:
        """A client's connection for the builds that name the token.  CONFLICT when it is taken."""
        with self._lock:
            if token in self._upstreams:
                raise conflict("this session exists already")
            if len(self._upstreams) >= _MOST:
                raise unavailable("too many sessions")
            ours, loops = socket.socketpair()
            self._upstreams[token] = Upstream(ours)
        return _Kept(loops, lambda: self._forget(token))

    def find(self, token: str) -> Upstream | None:
        with self._lock:
            return self._upstreams.get(token)

    def _forget(self, token: str) -> None:
        with self._lock:
            gone = self._upstreams.pop(token, None)
        if gone is not None:
            gone.close()


class _Kept:
    """`agent.wire.streams.Duplex` over a socket pair: raw bytes both ways."""

    tty = True

    def __init__(self, sock: socket.socket, closed: Callable[[], None]) -> None:
        sock.settimeout(0)
        self._socket = sock
        self._closed = closed

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> list[tuple[int, bytes]] | None:
        try:
            data = self._socket.recv(_PIECE)
        except BlockingIOError:
            return None
        except OSError:
            return []
        return [(STDOUT, data)] if data else []

    def write(self, data: bytes) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)

    def write_fileno(self) -> int | None:
        return self._socket.fileno()

    def close_write(self) -> None:
        self._closed()  # nobody answers any more: the output ends too, and with it the connection

    def close(self) -> None:
        self._socket.close()
        self._closed()


class Upstream:
    """The way to one client's agent; one question at a time."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(_PATIENCE)
        self._socket = sock
        self._lock = threading.Lock()

    def ask(self, question: bytes) -> bytes:
        """The answer, framed as the question is; a failure when the client has gone."""
        if question[4:5] == b"" or question[4] not in _PASSED:
            return _FAILURE
        with self._lock:
            try:
                self._socket.sendall(question)
                return frame(self._socket) or _FAILURE
            except OSError:
                self.close()  # an answer that comes too late must not be taken for another's
                return _FAILURE

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def frame(sock: socket.socket) -> bytes:
    """One message with its length; b"" at the end of the connection.  OSError for nonsense."""
    head = _exactly(sock, 4)
    if not head:
        return b""
    size = int.from_bytes(head, "big")
    if not 0 < size <= _FRAME_LIMIT:
        raise OSError(90, "message too long")
    return head + _exactly(sock, size)


def _exactly(sock: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = sock.recv(size - len(found))
        if not piece:
            if found:
                raise OSError(104, "cut off")
            return b""
        found += piece
    return found


class _Step:
    """The socket that lies in one RUN."""

    def __init__(self, path: str, upstream: Upstream) -> None:
        self._upstream = upstream
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(_MOST)
        threading.Thread(target=self._accept, name="build-ssh", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if len(self._open) >= _MOST:
                    connection.close()
                    continue
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            while question := frame(connection):
                connection.sendall(self._upstream.ask(question))
        with self._lock:
            self._open.discard(connection)
        connection.close()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class SshMounts:
    """The agents of one RUN; their sockets go with `stack`."""

    def __init__(
        self,
        find: Callable[[str], Upstream | None],
        folder: str,
        expand: Callable[[str], str],
        stack: ExitStack,
    ) -> None:
        """`find`: the way to the client's agent of that id."""
        self._find = find
        self._secrets = folder
        self._expand = expand
        self._stack = stack
        self._count = 0
        self.env: dict[str, str] = {}

    def add(self, one: Mount, target_of: Callable[[str], str]) -> tuple[list[MountPoint], str]:
        """The mounts that it takes, and what the cache is told.  INVALID."""
        options = {name: self._expand(value) for name, value in one.options.items()}
        identity = options.get("id") or options.get("source") or "default"
        target = target_of(options.get("target") or _TARGET.format(self._count))
        self._count += 1
        required = flag(options, "required")
        said = f"ssh {identity} {target}"
        upstream = self._find(identity)
        if upstream is None:
            if required:
                raise invalid(
                    f"ssh {identity}: not found (give it with `machine build --ssh {identity}`; "
                    "docker's classic client can't forward an agent)"
                )
            return [], said
        self.env.setdefault("SSH_AUTH_SOCK", target)
        path = self._socket(options, upstream)
        return [MountPoint("bind", target, path)], said

    def _socket(self, options: Mapping[str, str], upstream: Upstream) -> str:
        mode = owners.mode(options.get("mode", ""))
        uid, gid = number(options, "uid"), number(options, "gid")
        folder = tempfile.mkdtemp(dir=self._secrets)
        self._stack.callback(_forget, folder)
        path = posixpath.join(folder, "agent")
        step = _Step(path, upstream)
        self._stack.callback(step.close)
        os.chown(path, uid, gid)
        os.chmod(path, 0o600 if mode is None else mode)
        return path


def _forget(folder: str) -> None:
    with tree.opened(os.path.dirname(folder)) as parent:
        tree.remove_tree(parent, os.path.basename(folder))
