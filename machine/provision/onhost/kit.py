"""What both remote runs need: talking to the laptop, running programs, whole files.

Runs on the host as root, under `python3 -I`, from memory: nothing is written to /tmp. Talks JSON
lines: one object a line out, answers (to `ask`) one object a line in.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "HOME": "/root",
    "DEBIAN_FRONTEND": "noninteractive",
}
ETC = Path("/etc/machine")
OPT = Path("/opt/machine")
RUN = Path("/run/machine")
MANIFEST = ETC / "manifest.json"
DOCKER = Path("/usr/local/bin/docker")
DOCKER_MARK = b"# of the machine agent: docker system dial-stdio\n"


class HostError(Exception):
    """Provisioning can't go on: a line for the user, and what a program said."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.details = details


def tell(**fields: object) -> None:
    """One JSON line to the laptop."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def ask(**fields: object) -> dict[str, object]:
    """One JSON line to the laptop, and its answer."""
    tell(**fields)
    line = sys.stdin.buffer.readline()
    if not line:
        raise HostError("the connection ended")
    answer = json.loads(line)
    if not isinstance(answer, dict):
        raise HostError("the laptop's answer makes no sense")
    return answer


def run(
    argv: Sequence[str], *, stdin: bytes = b"", check: bool = True, timeout: float = 120
) -> str:
    """Run a program to its end; returns what it printed. Raises HostError when it fails."""
    try:
        with subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=ENV,
            cwd="/",
        ) as child:
            try:
                out, _ = child.communicate(stdin, timeout)
            except subprocess.TimeoutExpired:
                child.kill()
                raise HostError(f"{argv[0]} took longer than {timeout:.0f} s") from None
    except OSError as err:
        if not check:
            return ""
        raise HostError(f"cannot run {argv[0]}: {err.strerror}") from err
    text = out.decode("utf-8", "replace")
    if check and child.returncode:
        raise HostError(f"{' '.join(argv)} failed (status {child.returncode})", text[-4000:])
    return text


def write(path: Path, data: bytes, mode: int) -> bool:
    """Replace a file as a whole; True when it changed. Nothing is done when it is as wanted."""
    try:
        if path.read_bytes() == data and path.stat().st_mode & 0o7777 == mode:
            return False
    except OSError:
        pass
    temp = path.with_name(f".{path.name}.{os.getpid()}")
    temp.unlink(missing_ok=True)
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, mode)
        file.write(data)
        file.flush()
        os.fsync(fd)
    temp.replace(path)
    sync(path.parent)
    return True


def sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def folder(path: Path, mode: int) -> None:
    """The folder exists with that mode and belongs to root."""
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    if path.is_symlink():
        raise HostError(f"{path} is a symbolic link")
    if path.stat().st_mode & 0o7777 != mode:
        path.chmod(mode)


def have(program: str) -> str:
    """The program's path, "" when it is missing."""
    return shutil.which(program, path=ENV["PATH"]) or ""


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Ask every 20 ms until `condition` holds; False when `seconds` are over."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(0.02)
    return True


def manifest() -> dict[str, list[str]]:
    """What we have put on the host besides our own folders, for the uninstallation."""
    try:
        doc = json.loads(MANIFEST.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(doc, dict):
        return {}
    return {str(k): [str(i) for i in v] for k, v in doc.items() if isinstance(v, list)}


def remember(kind: str, *items: str) -> None:
    """Add to the manifest, before the thing is made."""
    doc = manifest()
    known = doc.setdefault(kind, [])
    known.extend(item for item in items if item not in known)
    write(MANIFEST, json_bytes(doc), 0o600)


def ours(path: Path) -> bool:
    """Whether it is the small docker command that we have put there."""
    try:
        return DOCKER_MARK in path.read_bytes()[:512]
    except OSError:
        return False


def json_bytes(doc: Mapping[str, object]) -> bytes:
    return (json.dumps(doc, indent=2) + "\n").encode()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One run at a time: that of a laptop which was killed goes on until it notices.

    The lock is an abstract socket: it leaves no file and ends with the process.
    """
    with socket.socket(socket.AF_UNIX) as lock:

        def taken() -> bool:
            try:
                lock.bind("\0machine-provision")
            except OSError:
                return False
            return True

        if not until(taken, 120.0):
            raise HostError("another provisioning of this host does not end")
        yield


def perform(body: Callable[[], None]) -> None:
    """Run the whole thing; an expected failure is told in one line, with status 1."""
    try:
        with _alone():
            body()
    except HostError as err:
        tell(error=err.message, details=err.details)
    except OSError as err:
        tell(error=f"{err.filename or 'system call'}: {err.strerror}", details="")
