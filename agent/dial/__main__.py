"""`docker system dial-stdio` for hosts without a docker client: DOCKER_HOST=ssh://USER@HOST ends here.

The docker client runs it over ssh and speaks HTTP through its standard input and output.
It is run as a file of its own (`python3 -I .../agent/dial`), so it imports nothing of the
agent: it starts in 15 ms.  Whatever else is asked goes to a real docker client, if there is one.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Sequence

CONFIG = "/etc/machine/agent.json"
DEFAULT = "/run/machine/docker.sock"
OTHERS = ("/usr/bin/docker", "/bin/docker", "/usr/sbin/docker", "/snap/bin/docker")
SUDO = ("/usr/bin/sudo", "/bin/sudo")
_PIECE = 1 << 16
NO_CLIENT = """\
docker: there is no docker client on this host, only what clients elsewhere need
to reach its engine (DOCKER_HOST=ssh://USER@HOST, `docker context`).
Run docker where you have it, or install the docker client here.
"""


class CannotDialError(Exception):
    """One line for the user."""


def wanted(arguments: Sequence[str]) -> str | None:
    """The socket to dial ("" = the engine's own), None when the arguments are for a real client.

    The client sends `[--host unix://PATH] system dial-stdio`, the host for ssh://USER@HOST/PATH.
    """
    words = list(arguments)
    path = ""
    if words and (words[0] in {"--host", "-H"} or words[0].startswith("--host=")):
        option = words.pop(0)
        given = option.partition("=")[2] or (words.pop(0) if words else "")
        if not given.startswith("unix://"):
            return None
        path = given.removeprefix("unix://")
    return path if words == ["system", "dial-stdio"] else None


def configured(path: str = CONFIG) -> str:
    """The engine's socket; only root can read the configuration, so others get the default."""
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        found = document.get("unix_socket", DEFAULT)
    except (OSError, ValueError, AttributeError):
        return DEFAULT
    return found if isinstance(found, str) else DEFAULT


def dial(path: str) -> socket.socket:
    """Raises PermissionError; CannotDialError for everything else."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except PermissionError:
        connection.close()
        raise
    except OSError as error:
        connection.close()
        raise CannotDialError(
            f"cannot connect to the engine at unix://{path}: {error.strerror}; is it running?"
        ) from error
    return connection


def pump(connection: socket.socket, reading: int, writing: int) -> None:
    """Until the engine ends its side; the client's end of input is passed on."""
    thread = threading.Thread(target=_feed, args=(connection, reading), daemon=True)
    thread.start()
    with contextlib.suppress(OSError):  # the client has gone
        while data := connection.recv(_PIECE):
            _write(writing, data)


def _feed(connection: socket.socket, reading: int) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(reading, _PIECE):
            connection.sendall(data)
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def run(arguments: Sequence[str]) -> int:
    """The exit code."""
    path = wanted(arguments)
    if path is None:
        return _real_client(arguments)
    try:
        connection = dial(path or configured())
    except PermissionError:
        return _as_root(arguments)
    except CannotDialError as error:
        sys.stderr.write(f"docker: {error}\n")
        return 1
    with connection:
        pump(connection, 0, 1)
    return 0


def _real_client(arguments: Sequence[str]) -> int:
    for program in OTHERS:
        with contextlib.suppress(OSError):
            os.execv(program, ["docker", *arguments])  # noqa: S606 - another's command line
    sys.stderr.write(NO_CLIENT)
    return 1


def _as_root(arguments: Sequence[str]) -> int:
    """The users that `machine` connects as may become root without a password."""
    if os.geteuid() != 0:
        again = [sys.executable, "-I", os.path.abspath(__file__), *arguments]
        for program in SUDO:
            with contextlib.suppress(OSError):
                os.execv(program, ["sudo", "-n", *again])  # noqa: S606
    sys.stderr.write("docker: permission denied: only root reaches this host's engine\n")
    return 1


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
