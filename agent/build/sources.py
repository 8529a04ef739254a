"""What COPY and ADD take: paths and wildcards of a root, resolved inside it and nowhere else."""

from __future__ import annotations

import errno
import os
import posixpath
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from agent.errors import EngineError, invalid
from agent.host import openat
from agent.wire.ignorefile import PatternError, expression

_WILD = re.compile(r"[*?\[\\]")
_MAX_FOUND = 100_000
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY


@dataclass(frozen=True)
class Item:
    """One thing to copy: where it is, the name that it gets in a folder, and what of its path
    --parents makes again (what follows "/./")."""

    path: str
    name: str
    kept: str


def find(root: int, words: Sequence[str], *, verb: str, context: bool) -> list[Item]:
    """The items of a COPY's sources.  INVALID with docker's texts when there is nothing."""
    found: list[Item] = []
    for word in words:
        path = posixpath.normpath("/" + word)
        dropped = _pivot(word)
        if _WILD.search(path):
            found += [_item(one, dropped) for one in sorted(_glob(root, path))]
        elif _there(root, path):
            found.append(_item(path, dropped))
        else:
            raise missing(verb, word, context=context)
    if not found:
        raise invalid(f"{verb} failed: no source files were specified")
    return found


def _pivot(word: str) -> int:
    """How many leading segments "/./" takes off for --parents."""
    before, mark, _ = word.partition("/./")
    return len([one for one in before.split("/") if one not in ("", ".")]) if mark else 0


def _item(path: str, dropped: int) -> Item:
    kept = path.strip("/").split("/")[dropped:]
    return Item(path, posixpath.basename(path), "/".join(kept))


def missing(verb: str, word: str, *, context: bool) -> EngineError:
    shown = word.lstrip("/")
    where = "file not found in build context or excluded by .dockerignore: " if context else ""
    return invalid(f"{verb} failed: {where}stat {shown}: file does not exist")


def _there(root: int, path: str) -> bool:
    try:
        os.close(openat.open_in_root(root, os.fsencode(path), openat.O_PATH))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise
    return True


def _glob(root: int, path: str) -> list[str]:
    """Go's filepath.Match, segment by segment; `*` never crosses a slash."""
    found = [""]
    for segment in path.strip("/").split("/"):
        if not _WILD.search(segment):
            found = [f"{one}/{segment}" for one in found if _there(root, f"{one}/{segment}")]
            continue
        try:
            wanted = re.compile(expression(re.sub(r"\*+", "*", segment)), re.DOTALL)
        except (PatternError, re.error) as error:
            raise invalid(f"syntax error in pattern: {segment[:100]}") from error
        found = [
            f"{one}/{name}"
            for one in found
            for name in _names(root, one or "/")
            if wanted.fullmatch(name)
        ]
        if len(found) > _MAX_FOUND:
            raise invalid(f"a wildcard matches more than {_MAX_FOUND} files")
    return found


def _names(root: int, path: str) -> list[str]:
    try:
        fd = openat.open_in_root(root, os.fsencode(path), os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return []
        raise
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)


def opened(root: int, item: Item) -> tuple[int, bool]:
    """A readable descriptor of the item (symlinks followed inside the root), and whether it is a
    directory.  INVALID for what is neither a directory nor a regular file."""
    path = os.fsencode(item.path)
    fd = openat.open_in_root(root, path, openat.O_PATH)
    try:
        mode = os.fstat(fd).st_mode
    finally:
        os.close(fd)
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise invalid(f"can't copy {item.path.lstrip('/')}: it is no regular file or directory")
    return openat.open_in_root(root, path, _READ), stat.S_ISDIR(mode)
