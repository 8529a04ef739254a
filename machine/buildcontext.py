"""A build context as a tar stream: a folder without what its .dockerignore names.

Owners are root's, as the docker client sends them: who builds must not show in the image.
"""

from __future__ import annotations

import os
import secrets
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.wire.ignorefile import PatternError, Patterns, lines
from machine.errors import MachineError

_PIECE = 1 << 20
_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")


@dataclass(frozen=True)
class Context:
    """What is sent: pieces of a tar, and the name of the Dockerfile in it."""

    pieces: Iterator[bytes]
    dockerfile: str


def of_folder(folder: Path, dockerfile: str) -> Context:
    """`dockerfile`: a path, "" = `folder`/Dockerfile.  Raises MachineError."""
    if not folder.is_dir():
        raise MachineError(f'path "{folder}" not found')
    path = Path(dockerfile) if dockerfile else folder / "Dockerfile"
    if not dockerfile and not path.exists() and (folder / "dockerfile").exists():
        path = folder / "dockerfile"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise MachineError(
            f"unable to prepare context: unable to evaluate symlinks in Dockerfile path: "
            f"{path}: {error.strerror}"
        ) from error
    name = _inside(folder, path)
    extra = {} if name else {f".dockerfile.{secrets.token_hex(10)}": raw}
    name = name or next(iter(extra))
    return Context(_tar(folder, _ignored(folder, path), {name, ".dockerignore"}, extra), name)


def with_dockerfile(folder: Path, raw: bytes) -> Context:
    """A folder, and a Dockerfile from elsewhere (standard input)."""
    if not folder.is_dir():
        raise MachineError(f'path "{folder}" not found')
    name = f".dockerfile.{secrets.token_hex(10)}"
    ignored = _ignored(folder, folder / "Dockerfile")
    return Context(_tar(folder, ignored, {".dockerignore"}, {name: raw}), name)


def of_stream(data: bytes) -> Context:
    """Standard input: an archive as it is, or a Dockerfile without a context."""
    if data.startswith(_MAGIC) or data[257:262] == b"ustar":
        return Context(iter((data,)), "")
    return Context(_pieces({"Dockerfile": data}), "Dockerfile")


def _inside(folder: Path, path: Path) -> str:
    """The path below the folder, "" when it is not in it."""
    try:
        return path.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        return ""


def _ignored(folder: Path, dockerfile: Path) -> Patterns:
    own = dockerfile.with_name(f"{dockerfile.name}.dockerignore")
    for path in (own, folder / ".dockerignore"):
        try:
            return Patterns(lines(path.read_text(encoding="utf-8", errors="replace")))
        except FileNotFoundError:
            continue
        except (OSError, PatternError) as error:
            raise MachineError(f"error reading {path}: {error}") from error
    return Patterns(())


def _pieces(extra: dict[str, bytes]) -> Iterator[bytes]:
    for name, data in extra.items():
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), 0o644
        yield _header(member)
        yield data + bytes(-len(data) % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _tar(
    folder: Path, ignored: Patterns, kept: set[str], extra: dict[str, bytes]
) -> Iterator[bytes]:
    """The Dockerfile and .dockerignore are sent even when they are ignored: the engine reads them,
    and hides them from COPY."""
    pending = [""]
    while pending:
        below = pending.pop()
        for entry in sorted(os.scandir(folder / below), key=lambda one: one.name):
            name = f"{below}/{entry.name}" if below else entry.name
            out = ignored.matches(name) and name not in kept
            directory = entry.is_dir(follow_symlinks=False)
            if directory and (not out or ignored.inverts or _holds(name, kept)):
                pending.append(name)
            if not out:
                yield from _member(Path(entry.path), name)
    yield from _pieces(extra)


def tree_pieces(path: Path, name: str) -> Iterator[bytes]:
    """A tar of one file or tree, called `name` in it; "" = a directory's contents only."""
    if path.is_dir() and (not name or not path.is_symlink()):
        if name:
            yield from _member(path, name)
        pending = [(path, name)]
        while pending:
            folder, shown = pending.pop()
            for entry in sorted(os.scandir(folder), key=lambda one: one.name):
                below = f"{shown}/{entry.name}" if shown else entry.name
                yield from _member(Path(entry.path), below)
                if entry.is_dir(follow_symlinks=False):
                    pending.append((Path(entry.path), below))
    else:
        yield from _member(path, name)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _holds(name: str, kept: set[str]) -> bool:
    return any(one.startswith(f"{name}/") for one in kept)


def _member(path: Path, name: str) -> Iterator[bytes]:
    info = path.lstat()
    member = tarfile.TarInfo(name)
    member.mode, member.mtime = stat.S_IMODE(info.st_mode), int(info.st_mtime)
    if stat.S_ISDIR(info.st_mode):
        member.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(info.st_mode):
        member.type, member.linkname = tarfile.SYMTYPE, str(path.readlink())
    elif stat.S_ISREG(info.st_mode):
        yield from _file(path, member, info.st_size)
        return
    else:
        return  # sockets, FIFOs and devices have no place in a context
    yield _header(member)


def _file(path: Path, member: tarfile.TarInfo, size: int) -> Iterator[bytes]:
    try:
        source = path.open("rb")
    except OSError as error:
        raise MachineError(f"can't read {path}: {error.strerror}") from error
    with source:
        member.size = size
        yield _header(member)
        left = size
        while left:
            piece = source.read(min(left, _PIECE))
            if not piece:
                raise MachineError(f"{path} changed while it was sent")
            left -= len(piece)
            yield piece
        yield bytes(-size % tarfile.BLOCKSIZE)


def _header(member: tarfile.TarInfo) -> bytes:
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
