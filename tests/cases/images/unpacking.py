"""Unpacks one layer through the real worker process, below a canary that must never change."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.host import tree
from agent.images.settings import Limits
from agent.images.workerpool import Unpacked, Worker, WorkerGoneError
from tests.support.evilregistry import sha256


class Bench:
    """One private directory: `stage/diff` is unpacked into, `canary` is what attacks aim at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.canary = folder / "canary"
        self.canary.mkdir(mode=0o711)
        (self.canary / "secret").write_text("canary")
        os.utime(self.canary, ns=(10**18, 10**18))
        self.stage = folder / "stage"
        self.diff = self.stage / "diff"
        self.before = self.state()

    def state(self) -> tuple[object, ...]:
        found = self.canary.stat()
        secret = (self.canary / "secret").stat()
        passwd = hashlib.sha256(Path("/etc/passwd").read_bytes()).hexdigest()
        return (
            sorted(os.listdir(self.canary)),
            (found.st_mode, found.st_mtime_ns, found.st_uid),
            (secret.st_nlink, secret.st_mtime_ns, secret.st_mode, secret.st_size),
            (passwd, os.stat("/etc/shadow").st_nlink),
            sorted(name for name in os.listdir(self.folder)),
        )

    def unpack(
        self, tar: bytes, blob: bytes | None = None, limits: Limits | None = None
    ) -> Unpacked:
        """Raises the EngineError a client would see."""
        self.clean()
        self.diff.mkdir(parents=True)
        self.diff.chmod(0o755)
        self.before = self.state()
        data = tar if blob is None else blob
        worker = Worker(str(self.stage), sha256(tar), len(data), limits or Limits())
        try:
            view = memoryview(data)
            try:
                while view:
                    worker.feed(bytes(view[:262144]))
                    view = view[262144:]
            except WorkerGoneError:
                pass
            return worker.finish()
        finally:
            worker.close()
            assert self.state() == self.before, "something outside the layer changed"

    def clean(self) -> None:
        with tree.opened(str(self.folder)) as fd:
            tree.remove_tree(fd, "stage")

    def listing(self) -> list[str]:
        found: list[str] = []
        for folder, directories, files in os.walk(os.fsencode(self.diff)):
            for name in directories + files:
                path = os.path.relpath(os.path.join(folder, name), os.fsencode(self.diff))
                found.append(os.fsdecode(path))
        return sorted(found)


@contextmanager
def bench() -> Iterator[Bench]:
    folder = Path(tempfile.mkdtemp(prefix="images-case-"))
    found = Bench(folder)
    try:
        yield found
    finally:
        found.clean()
        shutil.rmtree(folder, ignore_errors=True)
