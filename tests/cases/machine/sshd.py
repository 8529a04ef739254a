"""A real sshd on loopback, and servers that only pretend to be one."""

import contextlib
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from drivers.polling import NotYet, SystemClock, wait_until
from machine.transport.dial import dial


def keygen(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(path)], check=True)
    return path


@contextlib.contextmanager
def sshd(folder: Path, *options: str, host_key: Path | None = None) -> Iterator[int]:
    """Runs until the block ends; yields its port. `folder/id.pub` may log in as root."""
    key = host_key or (folder / "host" if (folder / "host").exists() else keygen(folder / "host"))
    if not (folder / "id").exists():
        keygen(folder / "id")
    port = free_port()
    config = folder / f"sshd-{port}.conf"
    lines = [
        f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {key}", "UsePAM no",
        f"AuthorizedKeysFile {folder}/id.pub", "StrictModes no", "PermitRootLogin yes",
        f"PidFile {folder}/sshd-{port}.pid", "LogLevel VERBOSE", *options,
    ]  # fmt: skip
    config.write_text("\n".join(lines) + "\n")
    Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "sshd.log").open("ab") as log:
        process = subprocess.Popen(
            ["/usr/sbin/sshd", "-D", "-e", "-f", str(config)], stderr=log, stdin=subprocess.DEVNULL
        )
    try:
        wait_until(
            lambda: NotYet() if dial("127.0.0.1", port, 1.0) else True,
            what="sshd", seconds=10, clock=SystemClock(),
        )  # fmt: skip
        yield port
    finally:
        process.terminate()
        process.wait(10)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def pretender(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Accepts connections and hands each to `serve` in a thread."""
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def loop() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            held.append(client)
            threading.Thread(target=_quietly, args=(serve, client), daemon=True).start()

    threading.Thread(target=loop, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.close()
        for client in held:
            client.close()


def _quietly(serve: Callable[[socket.socket], None], client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        serve(client)
