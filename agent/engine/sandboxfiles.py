"""A container's own /etc files below $ROOT/containers/<id>/, and the host files that they follow."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from typing import Final

from agent.errors import EngineError, internal, invalid
from agent.values import frozen

FOLDER: Final = "containers"
_HOSTS, _HOSTNAME, _RESOLV = "hosts", "hostname", "resolv.conf"
_NAMES: Final = (_HOSTS, _HOSTNAME, _RESOLV)
_LIMIT: Final = 1 << 20
# systemd-resolved: /etc/resolv.conf names only its loopback stub, the real servers are here.
_STUB: Final = "127.0.0.53"
_BEHIND_STUB: Final = "/run/systemd/resolve/resolv.conf"


@frozen
class EtcPaths:
    """Absolute host paths of one container's files."""

    hosts: str
    hostname: str
    resolv_conf: str


class SandboxFiles:
    """All file access of the use cases.  `host_etc` is the host's /etc."""

    def __init__(self, root: str, host_etc: str = "/etc") -> None:
        self._folder = os.path.join(root, FOLDER)
        self._host_etc = host_etc

    def paths(self, identity: str) -> EtcPaths:
        folder = os.path.join(self._folder, identity)
        return EtcPaths(*(os.path.join(folder, name) for name in _NAMES))

    def write(self, identity: str, *, hosts: str, hostname: str, resolv_conf: str) -> EtcPaths:
        """Writes them in place (not durable: each start writes them anew)."""
        found = self.paths(identity)
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.join(self._folder, identity), 0o700)
        _write(found.hosts, hosts)
        _write(found.hostname, f"{hostname}\n")
        _write(found.resolv_conf, resolv_conf)
        return found

    def rewrite_resolv_conf(self, identity: str, text: str) -> None:
        """In place: a running container sees it."""
        _write(self.paths(identity).resolv_conf, text)

    def amend_hosts(
        self,
        identity: str,
        *,
        add: str = "",
        without: Iterable[str] = (),
        without_names: Iterable[str] = (),
    ) -> None:
        """In place: lines of these addresses, and those whose first name is one of these, go; `add`
        comes at the end; what the container itself has written stays."""
        path, gone, names = self.paths(identity).hosts, set(without), set(without_names)
        kept = [
            one
            for one in _read(path).splitlines(keepends=True)
            if _word(one, 0) not in gone and _word(one, 1) not in names
        ]
        if kept and not kept[-1].endswith("\n"):
            kept.append("\n")
        _write(path, "".join(kept) + add)

    def remove(self, identity: str) -> None:
        """Idempotent.  The folder goes when nobody else keeps a file (a log) in it."""
        folder = os.path.join(self._folder, identity)
        for name in _NAMES:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(os.path.join(folder, name))
        with contextlib.suppress(OSError):
            os.rmdir(folder)

    def reconcile(self, known: Iterable[str]) -> None:
        """Removes the files of containers that are not in `known`."""
        keep = set(known)
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._folder):
                if name not in keep:
                    self.remove(name)

    def host_hosts(self) -> str:
        return _read(os.path.join(self._host_etc, "hosts"))

    def host_resolv_conf(self) -> str:
        text = _read(os.path.join(self._host_etc, "resolv.conf"))
        if _STUB not in text:
            return text
        return _read(_BEHIND_STUB) or text

    def require_source(self, path: str) -> None:
        """A --mount bind's source must exist.  INVALID with docker's text."""
        if not os.path.lexists(path):
            raise invalid(
                f'invalid mount config for type "bind": bind source path does not exist: {path}'
            )

    def make_source(self, path: str) -> None:
        """A -v bind's source is made as a folder when it is missing, as docker does."""
        if os.path.exists(path):
            return
        try:
            os.makedirs(path, mode=0o755, exist_ok=True)
        except OSError as error:
            raise _source_error(path, error) from error

    def usage(self, folder: str) -> int:
        """Bytes of all files below, hard links counted once; links are not followed."""
        total, seen = 0, set[tuple[int, int]]()
        for _path, folders, files, fd in os.fwalk(folder):
            for name in (*files, *folders):
                with contextlib.suppress(OSError):
                    found = os.lstat(name, dir_fd=fd)
                    key = (found.st_dev, found.st_ino)
                    if key not in seen and not stat.S_ISDIR(found.st_mode):
                        seen.add(key)
                        total += found.st_size
        return total


def _word(line: str, number: int) -> str:
    words = line.split()
    return words[number] if number < len(words) else ""


def _source_error(path: str, error: OSError) -> EngineError:
    return internal(f"error while creating mount source path '{path}': {error.strerror}")


def _write(path: str, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o644)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        os.fchmod(fd, 0o644)
        file.write(text)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_LIMIT)
    except OSError:
        return ""
