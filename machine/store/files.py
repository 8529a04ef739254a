"""Files that are either whole or not there, and readable by their owner only (security.md C1, C3)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from machine.errors import CorruptRecordError, MachineError

DIR_MODE: Final = 0o700
FILE_MODE: Final = 0o600
_PRIVATE: Final = ("key.pem", "config.json", "config.json.bak", "known_hosts")


def ensure_dir(path: Path) -> None:
    """Make the folder (and its parents) for the owner only; an existing one is left as it is."""
    path.mkdir(mode=DIR_MODE, parents=True, exist_ok=True)


def write_atomic(path: Path, data: bytes, *, mode: int = FILE_MODE, backup: bool = False) -> None:
    """Replace `path` by `data`, or leave it as it was: temp file, fsync, rename, fsync of the folder.

    With `backup` the old content stays as `<name>.bak`. Raises MachineError when the disk is full
    or read-only; nothing is ever replaced by an empty file (case 165).
    """
    temp = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        with _created(temp, mode) as fd:
            _write_all(fd, data)
            os.fsync(fd)
        if backup and path.exists():
            _keep_backup(path)
        temp.replace(path)
        sync_dir(path.parent)
    except OSError as err:
        temp.unlink(missing_ok=True)
        raise MachineError(f"Cannot write {path}", details=err.strerror or str(err)) from err


def create_exclusive(path: Path, data: bytes, *, mode: int = FILE_MODE) -> None:
    """Write a file that must not exist yet. Raises FileExistsError."""
    with _created(path, mode) as fd:
        _write_all(fd, data)
        os.fsync(fd)
    sync_dir(path.parent)


def read_limited(path: Path, limit: int) -> bytes:
    """The file's bytes; CorruptRecordError when it is no regular file or longer than `limit`."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise CorruptRecordError(f"{path} is not a regular file")
        with os.fdopen(os.dup(fd), "rb") as file:
            data = file.read(limit + 1)
    finally:
        os.close(fd)
    if len(data) > limit:
        raise CorruptRecordError(f"{path} is larger than {limit} bytes")
    return data


@contextlib.contextmanager
def _created(path: Path, mode: int) -> Iterator[int]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _keep_backup(path: Path) -> None:
    saved = path.with_name(path.name + ".bak")
    spare = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.bak")
    os.link(path, spare)
    spare.replace(saved)
    spare.unlink(missing_ok=True)  # rename(2) of two links to one file leaves both


def sync_dir(path: Path) -> None:
    """Make a rename or a new name in the folder outlive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def problems_with_modes(path: Path, *, uid: int) -> list[str]:
    """What is too open about a folder of the store and the files right in it (case 166)."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return []
    if stat.S_ISLNK(found.st_mode):
        return [f"{path} is a symbolic link"]
    if found.st_uid != uid:
        return [f"{path} belongs to user {found.st_uid}, not to you ({uid})"]
    out = []
    if found.st_mode & 0o077:
        out.append(f"{path} is open to others (mode {stat.S_IMODE(found.st_mode):04o}, not 0700)")
    for entry in os.scandir(path):
        if entry.name.endswith(_PRIVATE) and entry.is_file(follow_symlinks=False):
            out.extend(_file_problems(Path(entry.path), entry.stat(follow_symlinks=False), uid))
    return out


def _file_problems(path: Path, found: os.stat_result, uid: int) -> list[str]:
    out = []
    if found.st_uid != uid:
        out.append(f"{path} belongs to user {found.st_uid}, not to you ({uid})")
    if found.st_mode & 0o077:
        out.append(f"{path} is open to others (mode {stat.S_IMODE(found.st_mode):04o}, not 0600)")
    # the backup of a record is a hard link for the moment that a replacement takes
    if found.st_nlink > 1 and path.name.endswith("key.pem"):
        out.append(f"{path} has {found.st_nlink} hard links: a copy of the key is elsewhere")
    return out


def fix_modes(root: Path, *, uid: int) -> list[Path]:
    """Give every folder 0700 and every private file 0600; returns what was changed.

    Only what belongs to `uid` is touched, and no symbolic link is followed.
    """
    changed = []
    for folder, _, names in os.walk(root, followlinks=False):
        here = Path(folder)
        wanted = [(here, DIR_MODE)]
        wanted += [(here / n, FILE_MODE) for n in names if n.endswith(_PRIVATE)]
        for path, mode in wanted:
            found = path.lstat()
            if found.st_uid == uid and not stat.S_ISLNK(found.st_mode) and found.st_mode & 0o077:
                path.chmod(mode)
                changed.append(path)
    return changed


@contextlib.contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold an exclusive flock on a file that is never deleted; its content is the holder's pid.

    With `wait` False, raises BlockingIOError whose `strerror` names the other pid.
    """
    ensure_dir(path.parent)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
            raise BlockingIOError(err.errno, holder) from err
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)
