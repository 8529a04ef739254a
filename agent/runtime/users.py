"""Who a container's process runs as: USER and --group-add against the image's own files.

Parsing is pure.  The files are hostile (cases 48 to 50, 52): read by confined descriptors, regular
files only, at most 1 MiB; numbers are strict decimal uint32, since `int()` also takes "1_000",
"+1" and digits of other scripts.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence

from agent.errors import EngineError, invalid
from agent.host import openat
from agent.values import frozen

_LIMIT = 1 << 20
_NUMBER = re.compile(r"[0-9]{1,10}\Z", re.ASCII)
_HIGHEST = 2**32 - 2  # 2**32 - 1 is (uid_t) -1: "leave it as it is" to the kernel


@frozen
class Identity:
    """uid, gid, supplementary gids (the primary one included, as Docker does), home folder."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def number(text: str) -> int | None:
    """A uid or gid, or None when the text is not a strict decimal in range."""
    if not _NUMBER.match(text):
        return None
    value = int(text)
    return value if value <= _HIGHEST else None


def resolve(spec: str, group_add: Sequence[str], passwd: str, group: str) -> Identity:
    """USER `spec` ("", "name", "uid", "name:group", ...) with the two files' contents.

    Raises INVALID with Docker's text when it is neither listed nor a number.
    """
    user, colon, wanted_group = spec.partition(":")
    if spec and (not user or (colon and not wanted_group)):
        raise _no_user(spec)
    name, uid, gid, home = _find_user(user, passwd)
    members: list[int] = []
    if wanted_group:
        gid = _find_group(wanted_group, group)
    elif name:
        members = [int(row[2]) for row in _rows(group, 4) if name in row[3].split(",")]
    extra = [_find_group(text, group, added=True) for text in group_add]
    return Identity(uid, gid, tuple(dict.fromkeys([gid, *members, *extra])), home)


def _no_user(text: str) -> EngineError:
    return invalid(f"unable to find user {text}: no matching entries in passwd file")


def _find_user(user: str, passwd: str) -> tuple[str, int, int, str]:
    """(name or "", uid, gid, home)."""
    numeric = number(user or "0")
    if user and numeric is None and user.isdigit():
        raise _no_user(user)  # too large: a passwd line of that name must not make it root
    for row in _rows(passwd, 7):
        if (row[0] == user and numeric is None) or (int(row[2]) == numeric):
            return row[0], int(row[2]), int(row[3]), row[5] or "/"
    if numeric is None:
        raise _no_user(user)
    return "", numeric, 0, "/"


def _find_group(text: str, group: str, *, added: bool = False) -> int:
    numeric = number(text)
    for row in _rows(group, 4):
        if numeric is None and row[0] == text and not text.isdigit():
            return int(row[2])
    if numeric is not None:
        return numeric
    word = "Unable" if added else "unable"
    raise invalid(f"{word} to find group {text}: no matching entries in group file")


def _rows(text: str, fields: int) -> Iterator[list[str]]:
    """Well-formed lines only: enough fields, and every id field a strict number."""
    for line in text.split("\n"):
        row = line.split(":")
        if len(row) >= fields and number(row[2]) is not None:
            if fields >= 7 and number(row[3]) is None:
                continue
            yield row


def read_file(root_fd: int, path: bytes) -> str:
    """At most 1 MiB of a regular file below `root_fd`; "" when it is not there or not a file.

    A FIFO or device is looked at by O_PATH and never opened.  A cut last line is dropped.
    """
    try:
        handle = openat.open_in_root(root_fd, path, os.O_PATH)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return ""
        fd = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    finally:
        os.close(handle)
    with open(fd, "rb") as file:
        data = file.read(_LIMIT + 1)
    if len(data) > _LIMIT:
        data = data[:_LIMIT].rpartition(b"\n")[0]
    return data.decode("utf-8", "surrogateescape")


def check_files(root_fd: int) -> None:
    """INVALID when a user file is a FIFO, a device or a socket: runc 1.1 opens it and hangs."""
    for path in (b"etc/passwd", b"etc/group"):
        try:
            handle = openat.open_in_root(root_fd, path, os.O_PATH)
        except OSError:
            continue
        try:
            mode = os.fstat(handle).st_mode
        finally:
            os.close(handle)
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise invalid(f"the image's /{path.decode()} is not a regular file")


def look_up(root_fd: int, spec: str, group_add: Sequence[str]) -> Identity:
    """`resolve` against the files below `root_fd` (the mounted root file system)."""
    return resolve(
        spec, group_add, read_file(root_fd, b"etc/passwd"), read_file(root_fd, b"etc/group")
    )
