"""--chown and --chmod: names against the image's own files, modes in octal.

The files are hostile: read by confined descriptors, regular files only, at most 1 MiB.
"""

from __future__ import annotations

import re

from agent.errors import invalid
from agent.host import tree

_LIMIT = 1 << 20
_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)
_OCTAL = re.compile(r"[0-7]{1,5}", re.ASCII)
_HIGHEST = 2**32 - 2


def owner(root: int, text: str) -> tuple[int, int]:
    """ "user[:group]" as (uid, gid) in that root; "" = (0, 0).  INVALID when unknown."""
    if not text:
        return 0, 0
    user, colon, group = text.partition(":")
    uid, primary = _find(root, b"/etc/passwd", user, "user")
    if not colon:
        return uid, uid if primary is None else primary
    gid = _find(root, b"/etc/group", group, "group")[0] if group else 0
    return uid, gid


def _find(root: int, path: bytes, name: str, kind: str) -> tuple[int, int | None]:
    """The id of a name (or the number itself), and a user's group."""
    number = int(name) if _NUMBER.fullmatch(name) and int(name) <= _HIGHEST else None
    if number is not None:
        return number, None
    try:
        text = tree.read_regular(root, path, _LIMIT).decode("utf-8", "replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        row = line.split(":")
        if len(row) > 3 - (kind == "group") and row[0] == name and _NUMBER.fullmatch(row[2]):
            gid = row[3] if kind == "user" and _NUMBER.fullmatch(row[3]) else None
            return min(int(row[2]), _HIGHEST), None if gid is None else min(int(gid), _HIGHEST)
    raise invalid(
        f"unable to convert uid/gid chown string to host mapping: can't find {kind} {name}"
    )


def mode(text: str) -> int | None:
    """An octal --chmod; None for ""."""
    if not text:
        return None
    if not _OCTAL.fullmatch(text) or int(text, 8) > 0o7777:
        raise invalid(
            f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
        )
    return int(text, 8)
