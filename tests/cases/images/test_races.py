"""Removal against everything that adds (case 133); kill -9 during load (cases 119, 125)."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agent.errors import EngineError, Kind
from agent.images import scrub
from agent.images.settings import RegistrySettings
from tests.cases.images.test_registry import ONE, QUICK, TWO, Host
from tests.cases.images.test_save_load import docker_archive, load
from tests.support.evilregistry import EvilRegistry, config_for, layer, member, tar

REPO = Path(__file__).resolve().parents[3]
ROUNDS = 200
LOADER = """
import sys
sys.path.insert(0, sys.argv[1])
from agent.images import open_store
from agent.images.settings import RegistrySettings
store, _ = open_store(sys.argv[2], RegistrySettings(certificates=()))
transfers = store.transfers()
with open(sys.argv[3], "rb") as file:
    def read(size):
        print("read", flush=True)
        return file.read(min(size, 20000))
    transfers.load(read, platform="", quiet=True, progress=lambda _: None, gone=lambda: False)
print("loaded", flush=True)
"""


@pytest.fixture(name="host")
def _host() -> Iterator[Host]:
    root = Path(tempfile.mkdtemp(prefix="images-race-"))
    host = Host(root, RegistrySettings(timeouts=QUICK, certificates=()))
    try:
        yield host
    finally:
        host.store.close()
        shutil.rmtree(root)


class Racers:
    """Threads that repeat until one is through with its rounds; their failures are collected."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.failures: list[BaseException] = []

    def _repeat(self, work: Callable[[int], None], rounds: int) -> None:
        number = 0
        try:
            while not self.over.is_set() and number < rounds:
                work(number)
                number += 1
        except (EngineError, AssertionError, OSError) as error:
            self.failures.append(error)
        finally:
            if number >= rounds or self.failures:
                self.over.set()

    def run(self, *works: tuple[Callable[[int], None], int]) -> None:
        threads = [threading.Thread(target=self._repeat, args=work) for work in works]
        for one in threads:
            one.start()
        for one in threads:
            one.join(60)
        if self.failures:
            raise self.failures[0]


class Everybody:
    """What happens at once to one store."""

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.name = name
        self.archive = docker_archive(config_for([ONE, TWO]), [ONE.tar, TWO.tar], ["loaded:1"])
        self.used: set[str] = set()
        self.lock = threading.Lock()

    def users(self, image_id: str) -> list[tuple[str, bool]]:
        with self.lock:
            return [("c", False)] if image_id in self.used else []

    def create(self, number: int) -> None:
        image = self.host.store.pull(
            self.name, platform="linux/amd64", auth=None, progress=lambda _: None,
            cancelled=lambda: False,
        )  # fmt: skip
        with self.lock:
            self.used.add(image.id)
        try:
            rootfs = self.host.snapshots.prepare(f"c{number}", image.id)
        except EngineError as error:
            if error.kind is not Kind.NOT_FOUND:  # removed between: as in docker
                raise
            return
        finally:
            with self.lock:
                self.used.discard(image.id)
        found = {path.name for path in Path(rootfs.lower[-1]).rglob("*") if path.is_file()}
        assert found, "a layer in use was emptied"
        self.host.snapshots.remove(f"c{number}")

    def load(self, _: int) -> None:
        load(self.host, self.archive)

    def remove(self, _: int) -> None:
        for image in self.host.store.all():
            for text in image.tags or image.digests or (image.id,):
                with suppress(EngineError):
                    self.host.store.remove(text, force=False, users=self.users)

    def save(self, _: int) -> None:
        try:
            size = sum(map(len, self.host.store.transfers().save(["loaded:1"], "")))
        except EngineError as error:
            if error.kind not in (Kind.NOT_FOUND, Kind.CONFLICT):
                raise
        else:
            assert size > len(ONE.tar) + len(TWO.tar)


def test_case_133_removal_against_pull_load_save_and_create(host: Host) -> None:
    with EvilRegistry() as registry:
        registry.image("x", "1", [ONE, TWO])
        all_of = Everybody(host, f"{registry.address}/x:1")
        endless = 1_000_000
        Racers().run(
            (all_of.create, ROUNDS),
            (all_of.load, endless),
            (all_of.remove, endless),
            (all_of.save, endless),
        )
    assert list(scrub.scrub(str(host.root)))[-1].damaged == ()  # type: ignore[union-attr]


def test_case_119_killed_at_random_points_of_a_load(host: Host, tmp_path: Path) -> None:
    rng = random.Random(119)
    old = load(host, docker_archive(config_for([TWO]), [TWO.tar], ["x:1"]))[0]
    new = [layer(tar([member(f"{n}/{i}", rng.randbytes(9_000)) for i in range(40)])) for n in "ab"]
    archive = docker_archive(config_for(new), [one.tar for one in new], ["x:1"])
    path = tmp_path / "archive.tar"
    path.write_bytes(archive)
    host.store.close()
    loaded = 0
    for _ in range(10):
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", LOADER, str(REPO), str(host.root), str(path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        stop = rng.randint(1, len(archive) // 20_000 + 2)
        for number, _line in enumerate(process.stdout):
            if number == stop:
                time.sleep(rng.random() * 0.05)
                process.send_signal(signal.SIGKILL)
                break
        process.stdout.close()
        loaded += process.wait() == 0
    host.reopen()
    expected = tuple(one.diff_id for one in new)
    found = host.store.get("x:1")
    assert found.id == old.id or found.diff_ids == expected  # the old or the new, never nothing
    assert loaded == 0 or found.diff_ids == expected
    assert list(scrub.scrub(str(host.root)))[-1].damaged == ()  # type: ignore[union-attr]
    assert load(host, archive)[0].diff_ids == expected
