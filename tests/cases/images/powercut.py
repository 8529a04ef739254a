"""Power cuts while a pull, a load or a commit is at work: security.md case 125.

    unshare -m python -m tests.cases.images.powercut ROUNDS [SEED]        (the long form: 200 rounds)

$ROOT lies on an ext4 of its own in a file; EXT4_IOC_SHUTDOWN without flushing the log is the cut:
what was not synced is gone.  After each, the file system is mounted anew and the store is asked.
"""

from __future__ import annotations

import fcntl
import io
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from agent.engine.model import Image
from agent.images import open_store, scrub
from agent.images.settings import RegistrySettings
from agent.images.store import ImageStore
from tests.lab.waiting import wait_until
from tests.support.evilregistry import EvilRegistry, Layer, layer, member, tar

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
_NO_LOG_FLUSH = 2
_SETTINGS = RegistrySettings(certificates=())
REPO = Path(__file__).resolve().parents[3]


def layers(seed: int) -> list[Layer]:
    """Three layers of files of all sizes."""
    rng = random.Random(seed)
    return [
        layer(tar([member(f"d{number}/f{n}", rng.randbytes(n * 997)) for n in range(40)]))
        for number in range(3)
    ]


def pull(store: ImageStore, address: str) -> Image:
    return store.pull(
        f"{address}/x",
        platform="linux/amd64",
        auth=None,
        progress=lambda _: None,
        cancelled=lambda: False,
    )


def load(store: ImageStore, _: str) -> Image:
    with open(os.environ["ARCHIVE"], "rb") as file:
        found = store.transfers().load(
            file.read, platform="", quiet=True, progress=lambda _: None, gone=lambda: False
        )
    return found[0]


def commit(store: ImageStore, _: str) -> Image:
    """As `docker commit` and a build do: files in a staged folder become a layer and an image."""
    builds = store.layers()
    folder = builds.stage(())
    rng = random.Random(7)
    for number in range(60):
        file = Path(folder, "diff", f"f{number}")
        file.write_bytes(rng.randbytes(number * 1500))
        os.utime(file, (1, 1))
    os.utime(Path(folder, "diff"), (1, 1))  # the same layer each time
    diff_id = builds.commit(folder)
    config = (
        '{"architecture":"amd64","os":"linux","config":{},"history":[],'
        f'"rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}'
    )
    image = builds.record(config.encode(), [("made", "1")])
    builds.release((diff_id,))
    return image


WORK: dict[str, Callable[[ImageStore, str], Image]] = {"pull": pull, "load": load, "commit": commit}


def child(root: str, kind: str, address: str) -> None:
    """One operation; "done" and the image's id when it is acknowledged."""
    store, _ = open_store(root, _SETTINGS)
    print("open", flush=True)
    print("done", WORK[kind](store, address).id, flush=True)
    store.close()


class Disk:
    """An ext4 in a file, mounted in this process's own mount namespace."""

    def __init__(self, folder: Path) -> None:
        self.image = folder / "disk"
        self.where = folder / "mounted"
        self.where.mkdir()
        with self.image.open("wb") as file:
            file.truncate(1 << 30)
        self._run("mkfs.ext4", "-q", "-F", str(self.image))
        self._boot = folder / "boot_id"
        self.boot()
        self._run("mount", "--bind", str(self._boot), "/proc/sys/kernel/random/boot_id")

    def boot(self) -> None:
        """The agent believes what it had not synced as long as the host has not gone down."""
        self._boot.write_text(f"{uuid.uuid4()}\n")

    def mount(self) -> None:
        self._run("mount", "-o", "loop", str(self.image), str(self.where))

    def unmount(self) -> None:
        def done() -> bool:
            words = ["umount", str(self.where)]
            return subprocess.run(words, capture_output=True, timeout=60).returncode == 0

        wait_until(done, 20, "workers have ended with their parent")

    def leave(self) -> None:
        """Whatever has happened."""
        subprocess.run(["umount", "-l", str(self.where)], capture_output=True, timeout=60)

    def cut(self) -> None:
        fd = os.open(self.where, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def _run(self, *words: str) -> None:
        subprocess.run(words, check=True, timeout=60)


def one_round(disk: Disk, kind: str, address: str, delay: float) -> bool:
    """A cut after `delay` seconds; True when the operation had been acknowledged."""
    root = str(disk.where / "root")
    disk.mount()
    words = [sys.executable, "-m", "tests.cases.images.powercut", "--child", root, kind, address]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=REPO) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "open\n"
            threading.Event().wait(delay)
            disk.cut()
        finally:
            process.kill()
        said = process.stdout.read().split()
    disk.unmount()
    disk.boot()
    disk.mount()
    try:
        check(root, kind, address, said[1] if said[:1] == ["done"] else "")
    finally:
        disk.unmount()
    return bool(said)


def check(root: str, kind: str, address: str, acknowledged: str) -> None:
    """What there is is whole, what was acknowledged is there, and doing it again gives it."""
    store, _ = open_store(root, _SETTINGS)
    try:
        known = [image.id for image in store.all()]
        assert not acknowledged or acknowledged in known, "an acknowledged image is lost"
        undamaged(root, kind)
        image = WORK[kind](store, address)
        undamaged(root, kind)
        name = image.tags[0]
        store.remove(name, force=False, users=lambda _: ())
        assert store.all() == [], "an image has stayed"
    finally:
        store.close()


def undamaged(root: str, kind: str) -> None:
    damage = [one for one in scrub.scrub(root) if isinstance(one, scrub.Damage)]
    assert damage == [], (kind, damage)


def cuts(rounds: int, seed: int) -> None:
    """So many cuts of each kind of work."""
    rng = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="images-power-"))
    with ExitStack() as end:
        end.callback(shutil.rmtree, folder)
        with EvilRegistry() as evil:
            evil.image("x", "latest", layers(1))
            os.environ["ARCHIVE"] = str(folder / "archive.tar")
            archive(folder, evil.address)
            disk = Disk(folder)
            end.callback(disk.leave)
            for number in range(rounds):
                for kind in WORK:
                    finished = one_round(disk, kind, evil.address, rng.uniform(0, 0.7))
                    print(number, kind, "acknowledged" if finished else "cut", flush=True)


def archive(folder: Path, address: str) -> None:
    store, _ = open_store(str(folder / "source"), _SETTINGS)
    pull(store, address)
    saved = store.transfers().save([f"{address}/x"], "")
    (folder / "archive.tar").write_bytes(io.BytesIO(b"".join(saved)).getvalue())
    store.close()


def main() -> None:
    words = sys.argv[1:]
    if words[0] == "--child":
        child(*words[1:])
    else:
        cuts(int(words[0]), int(words[1]) if len(words) > 1 else 125)


if __name__ == "__main__":
    main()
