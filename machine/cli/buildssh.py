"""`machine build --ssh`: the user's SSH agent for RUN --mount=type=ssh, over a connection of its own.

The engine passes on what lists keys and what signs; the keys stay in the agent.
"""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from machine.engine import Engine, Hijacked
from machine.errors import MachineError

HEADER: Final = "X-Machine-Build-Ssh"
SESSION: Final = "X-Machine-Session"
_PIECE: Final = 64 << 10


@contextmanager
def forwarded(
    client: Engine, words: Iterable[str], env: Mapping[str, str]
) -> Iterator[dict[str, str]]:
    """The build's header, while agents are connected: `ID[=SOCKET]` each, by default the agent of
    SSH_AUTH_SOCK.  Raises MachineError."""
    with ExitStack() as stack:
        tokens = []
        for word in words:
            identity, _, path = word.partition("=")
            agent = stack.enter_context(_agent(identity, path or env.get("SSH_AUTH_SOCK", "")))
            # As a context manager it is closed last, when the threads have been told to end.
            token = secrets.token_hex(16)
            hijacked = client.hijack("/session", headers={SESSION: token})
            stack.callback(hijacked.stream.close)
            stack.callback(_shut, agent)
            for work in (_to_agent, _to_engine):
                threading.Thread(target=work, args=(hijacked, agent), daemon=True).start()
            tokens.append(f"{identity}={token}")
        yield {HEADER: ",".join(tokens)} if tokens else {}


def _agent(identity: str, path: str) -> socket.socket:
    if not identity or not path:
        raise MachineError(
            f"there is no SSH agent for --ssh {identity or '?'}",
            hint="Start one (`eval $(ssh-agent); ssh-add`), or name its socket: --ssh default=SOCKET",
        )
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise MachineError(
            f"can't reach the SSH agent at {path}: {error.strerror}",
            hint="--ssh takes an agent's socket"
            + (", not a key: add the key to an agent" if Path(path).is_file() else ""),
        ) from error
    return sock


def _to_agent(hijacked: Hijacked, agent: socket.socket) -> None:
    data = hijacked.early
    with suppress(OSError):
        while True:
            if data:
                agent.sendall(data)
            data = hijacked.stream.recv()
            if not data:
                break
    _shut(agent)


def _to_engine(hijacked: Hijacked, agent: socket.socket) -> None:
    with suppress(OSError):
        while data := agent.recv(_PIECE):
            hijacked.stream.send(data)
    with suppress(OSError):
        hijacked.stream.close_write()  # an agent that has ended: the build hears of it


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
