"""X-Docker-Container-Path-Stat, and the list of a container's changes."""

from __future__ import annotations

import base64
import json
import stat
from typing import Final

from agent.api.schema.fields import Document
from agent.api.schema.times import rfc3339
from agent.engine.changes import Change
from agent.engine.inside import PathStat

# Go's os.FileMode: its own bits above the nine permissions.
_GO_KINDS: Final = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_GO_BITS: Final = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


def go_mode(mode: int) -> int:
    """st_mode as Go's os.FileMode."""
    found = mode & 0o777 | _GO_KINDS.get(stat.S_IFMT(mode), 0)
    for bit, other in _GO_BITS:
        if mode & bit:
            found |= other
    return found


def path_stat(found: PathStat) -> str:
    """The header's value."""
    document = {
        "name": found.name,
        "size": found.size,
        "mode": go_mode(found.mode),
        "mtime": rfc3339(found.mtime) if found.mtime else "1970-01-01T00:00:00Z",
        "linkTarget": found.link_target,
    }
    return base64.b64encode(json.dumps(document).encode("utf-8", "replace")).decode("ascii")


def changes_document(changes: list[Change]) -> list[Document] | None:
    """null when there are none, as Docker Engine answers."""
    return [{"Path": one.path, "Kind": int(one.kind)} for one in changes] or None
