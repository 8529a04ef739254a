"""The unpack worker's program: compressed layer on descriptor 0, its directory on 3, report on 1.

Started by file path with `python -I -S`, so that it needs nothing but the standard library and
the few modules imported here (start-up is part of every layer's cost).  argv[1] is a JSON object
of numbers and digests, see `workerpool.Task`.  The report is one JSON object.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from agent.images import confine, decompress, extract, layerstream, recipe, tarheader

_READ = 256 << 10
_AHEAD = 8  # pieces of up to 1 MiB between inflating and writing
_DIRECTORY_FD = 3


class _Ahead:
    """Runs an iterator of pieces in a thread: inflating overlaps with writing (no GIL in zlib)."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._ready: deque[bytes | BaseException | None] = deque()
        self._changed = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            for piece in self._pieces:
                self._put(piece)
        except (OSError, MemoryError, decompress.DecompressError) as error:
            self._put(error)
        finally:
            self._put(None)  # after anything unforeseen too: then the diffID is wrong

    def _put(self, item: bytes | BaseException | None) -> None:
        with self._changed:
            while len(self._ready) >= _AHEAD:
                self._changed.wait()
            self._ready.append(item)
            self._changed.notify_all()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with self._changed:
                while not self._ready:
                    self._changed.wait()
                item = self._ready.popleft()
                self._changed.notify_all()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item


def _read_some() -> bytes:
    return os.read(0, _READ)


def _first_bytes() -> bytes:
    head = b""
    while len(head) < 4 and (more := _read_some()):
        head += more
    return head


def _pieces(head: bytes, kind: str, window_log: int) -> Iterator[bytes]:
    """The uncompressed stream.  What a decoder needs is loaded here, before confinement."""
    pending = [head]

    def read() -> bytes:
        return pending.pop() if pending else _read_some()

    if kind == "gzip":
        return decompress.gunzip(read, decompress.gzip_codec())
    if kind == "zstd":
        return decompress.unzstd(read, decompress.load_zstd(), window_log)
    return iter(read, b"")


def _names(paths: set[bytes]) -> list[str]:
    return [path.decode("latin-1") for path in sorted(paths)]


def unpack(task: dict[str, int | str]) -> dict[str, object]:
    """Confine, unpack, check the diffID; the report's members."""
    confine.keep_freed_memory()
    if task["isal"]:
        sys.path.append(str(task["isal"]))
    head = _first_bytes()
    pieces = _pieces(head, decompress.sniff(head), int(task["zstd_window_log"]))
    state = hashlib.sha512() if str(task["diff_id"]).startswith("sha512:") else hashlib.sha256()
    limit = int(task["max_bytes"])
    confine.enter(_DIRECTORY_FD, memory=int(task["memory"]), file_size=limit)
    root = os.open("diff", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    os.mkdir(recipe.KEPT, 0o700)
    kept = os.open(recipe.KEPT, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    book = recipe.Writer(os.open(recipe.NAME, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    stream = layerstream.Stream(iter(_Ahead(pieces)), limit, state.update, book)
    caps = extract.Caps(
        int(task["entries"]), int(task["path"]), int(task["xattrs"]), int(task["xattr_bytes"])
    )
    extractor = extract.Extractor(root, stream, caps, kept)
    extractor.run()
    book.finish()
    os.close(kept)
    with suppress(OSError):
        os.rmdir(recipe.KEPT)  # empty but for odd layers
    found = f"{state.name}:{state.hexdigest()}"
    if task["diff_id"] and found != task["diff_id"]:
        return {"kind": "data", "error": f"layers have unexpected diffID: {found}"}
    entry = extractor.root_entry
    return {
        "diff_id": found,
        "size": extractor.disk_bytes,
        "entries": extractor.entries,
        "root": [entry.mode, entry.uid, entry.gid] if entry else None,
        "opaque": _names(extractor.opaque),
        "implicit": _names(extractor.implicit),
    }


def _report(task: dict[str, int | str]) -> dict[str, object]:
    try:
        return unpack(task)
    except (tarheader.TarError, decompress.DecompressError) as error:
        return {"kind": "invalid", "error": str(error)}
    except MemoryError:
        return {"kind": "invalid", "error": "the layer takes too much memory to unpack"}
    except OSError as error:
        kind = "space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "host"
        return {"kind": kind, "error": error.strerror or str(error)}


def main() -> None:
    report = json.dumps(_report(json.loads(sys.argv[1]))).encode()
    while report:
        report = report[os.write(1, report) :]
    os._exit(0)  # the inflating thread may still hold the pipe


if __name__ == "__main__":
    main()
