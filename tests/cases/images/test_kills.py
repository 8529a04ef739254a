"""An agent that is killed in each phase of a pull or a removal, and what the next one makes of it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.errors import EngineError, Kind
from agent.images import scrub
from agent.images.settings import Limits, RegistrySettings
from tests.cases.images.test_registry import QUICK, Host
from tests.cases.images.test_store import REPO, whole
from tests.support.evilregistry import (
    EvilRegistry,
    Layer,
    Reply,
    Seen,
    layer,
    member,
    send,
    tar,
)

LIMITS = Limits(partial_from=100_000)
PULLER = """
import sys
sys.path.insert(0, sys.argv[1])
from agent.images import open_store
from agent.images.settings import Limits, RegistrySettings
settings = RegistrySettings(certificates=(), limits=Limits(partial_from=100_000))
store, _ = open_store(sys.argv[2], settings)
say = lambda line: print(line.status, line.current or "", flush=True)
store.pull(sys.argv[3], platform="linux/amd64", auth=None, progress=say, cancelled=lambda: False)
"""


def large(seed: int, size: int = 3_000_000) -> Layer:
    """Bytes that no compression makes smaller."""
    data = random.Random(seed).randbytes(size)
    return layer(tar([member(f"large{seed}", data), member(f"small{seed}", b"s")]))


def contents(*seeds: int) -> dict[str, bytes]:
    found = {}
    for seed in seeds:
        found[f"large{seed}"] = random.Random(seed).randbytes(3_000_000)
        found[f"small{seed}"] = b"s"
    return found


@pytest.fixture(name="host")
def _host() -> Iterator[Host]:
    root = Path(tempfile.mkdtemp(prefix="images-kills-"))
    host = Host(root, RegistrySettings(timeouts=QUICK, certificates=(), limits=LIMITS))
    host.store.close()
    try:
        yield host
        host.store.close()
    finally:
        shutil.rmtree(root)


@pytest.fixture(name="evil")
def _evil() -> Iterator[EvilRegistry]:
    with EvilRegistry() as found:
        yield found


def puller(host: Host, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PULLER, str(REPO), str(host.root), name],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


class Stop:
    """A registry that answers so far and then lets the puller wait: there it is killed."""

    def __init__(self) -> None:
        self.reached = threading.Event()

    def at_once(self, connection: socket.socket, _: Seen) -> None:
        self.reached.set()
        connection.recv(1)

    def after(self, data: bytes, count: int) -> Callable[[socket.socket, Seen], None]:
        def answer(connection: socket.socket, seen: Seen) -> None:
            send(connection, Reply(200, data[:count], length=len(data)))
            self.reached.set()
            connection.recv(1)

        return answer


def auth_stops(evil: EvilRegistry, stop: Stop) -> None:
    realm = f'Bearer realm="http://{evil.address}/token",service="s"'
    evil.script("/v2/x/manifests/latest", Reply(401, headers={"WWW-Authenticate": realm}))
    evil.script("/token", stop.at_once)


def manifest_stops(evil: EvilRegistry, stop: Stop) -> None:
    evil.script("/v2/x/manifests/latest", stop.at_once)


def first_blob_stops(evil: EvilRegistry, stop: Stop) -> None:
    evil.script(f"/v2/x/blobs/{ONE.digest}", stop.after(ONE.blob, 1_000_000))


def last_byte_stops(evil: EvilRegistry, stop: Stop) -> None:
    """All is unpacked but the verification waits for the last byte."""
    evil.script(f"/v2/x/blobs/{TWO.digest}", stop.after(TWO.blob, len(TWO.blob) - 1))


ONE, TWO = large(1), large(2)


@pytest.mark.parametrize(
    "phase", [auth_stops, manifest_stops, first_blob_stops, last_byte_stops]
)  # fmt: skip
def test_case_117_killed_while_the_registry_answers(
    host: Host, evil: EvilRegistry, phase: Callable[[EvilRegistry, Stop], None]
) -> None:
    evil.image("x", "latest", [ONE, TWO])
    stop = Stop()
    phase(evil, stop)
    process = puller(host, f"{evil.address}/x")
    assert stop.reached.wait(20)
    kill(process)
    evil.image("x", "latest", [ONE, TWO])
    host.reopen()
    assert host.store.all() == []
    assert whole(host.pull(f"{evil.address}/x"), host, contents(1, 2))
    assert os.listdir(host.root / "images" / "partial") == []


# Calls of the pull in the order in which they are made; strace kills the puller at the Nth one.
SYSCALLS = ["openat2", "rename", "syncfs", "fdatasync", "pwrite64", "unlink"]


@pytest.mark.parametrize("call", SYSCALLS)
def test_case_117_killed_at_system_calls(
    host: Host, evil: EvilRegistry, call: str, tmp_path: Path
) -> None:
    evil.image("x", "latest", [ONE, TWO])
    killed = 0
    for number in (1, 4, 9):
        words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
        words += ["-e", f"inject={call}:signal=KILL:when={number}"]
        command = [sys.executable, "-c", PULLER, str(REPO), str(host.root), f"{evil.address}/x"]
        done = subprocess.run([*words, *command], capture_output=True, timeout=60)
        killed += done.returncode != 0
        host.reopen()
        try:
            assert whole(host.pull(f"{evil.address}/x"), host, contents(1, 2))
            assert [
                one for one in scrub.scrub(str(host.root)) if isinstance(one, scrub.Damage)
            ] == []
            host.store.remove(f"{evil.address}/x", force=False, users=lambda _: ())
            assert host.store.all() == []
        finally:
            host.store.close()
    assert killed, f"{call} is never called"
    host.reopen()


def test_case_038_a_killed_pull_goes_on_inside_the_layer(host: Host, evil: EvilRegistry) -> None:
    evil.image("x", "latest", [ONE])
    stop = Stop()
    evil.script(f"/v2/x/blobs/{ONE.digest}", stop.after(ONE.blob, 2_000_000))
    process = puller(host, f"{evil.address}/x")
    assert stop.reached.wait(20)
    kept = host.root / "images" / "partial" / ONE.digest.replace(":", "-")
    deadline = threading.Event()
    for _ in range(200):
        if kept.exists() and kept.stat().st_size == 2_000_000:
            break
        deadline.wait(0.05)
    kill(process)
    assert kept.stat().st_mode & 0o777 == 0o600
    evil.blob("x", ONE.blob)
    host.reopen()
    before = len(evil.requests(ONE.digest))
    assert whole(host.pull(f"{evil.address}/x"), host, contents(1))
    again = evil.requests(ONE.digest)[before:]
    assert [one.headers.get("range") for one in again] == ["bytes=2000000-"]
    assert not kept.exists()


@pytest.mark.parametrize("what", ["damaged", "too long", "other end", "whole"])
def test_case_038_kept_bytes_are_not_believed(host: Host, evil: EvilRegistry, what: str) -> None:
    evil.image("x", "latest", [ONE])
    host.reopen()
    kept = host.root / "images" / "partial" / ONE.digest.replace(":", "-")
    bytes_kept = {
        "damaged": b"\0" + ONE.blob[1:1_000_000],
        "too long": ONE.blob + b"x",
        "other end": ONE.blob[:-1] + b"\xff",
        "whole": ONE.blob,
    }
    kept.write_bytes(bytes_kept[what])
    assert whole(host.pull(f"{evil.address}/x"), host, contents(1))
    assert not kept.exists()
    asked = len(evil.requests(ONE.digest))
    assert asked == (0 if what == "whole" else asked)
    assert asked <= 2


def test_case_038_a_cancelled_pull_goes_on_too(host: Host, evil: EvilRegistry) -> None:
    evil.image("x", "latest", [ONE])
    stop = Stop()
    evil.script(f"/v2/x/blobs/{ONE.digest}", stop.after(ONE.blob, 2_000_000))
    host.reopen()
    with pytest.raises(EngineError) as caught:
        host.store.pull(
            f"{evil.address}/x",
            platform="linux/amd64",
            auth=None,
            progress=lambda _: None,
            cancelled=stop.reached.is_set,
        )
    assert caught.value.kind is Kind.CANCELLED
    evil.blob("x", ONE.blob)
    assert whole(host.pull(f"{evil.address}/x"), host, contents(1))
    assert evil.requests(ONE.digest)[-1].headers.get("range", "").startswith("bytes=")


def test_old_kept_bytes_go(host: Host, evil: EvilRegistry) -> None:
    evil.image("x", "latest", [ONE])
    host.reopen()
    old = host.root / "images" / "partial" / ("sha256-" + "0" * 64)
    old.write_bytes(b"old")
    os.utime(old, (1, 1))
    host.pull(f"{evil.address}/x")
    assert not old.exists()
    host.store.close()
    old.write_bytes(b"old")
    os.utime(old, (1, 1))
    host.reopen()
    assert not old.exists()


# ------------------------------------------------------------------------- removals, power cuts

REMOVER = """
import sys
sys.path.insert(0, sys.argv[1])
from agent.images import open_store
from agent.images.settings import RegistrySettings
store, _ = open_store(sys.argv[2], RegistrySettings(certificates=()))
for name in sys.argv[3:]:
    store.remove(name, force=True, users=lambda _: ())
store.close()
"""


@pytest.mark.parametrize("call", ["rename", "unlink", "fdatasync", "pwrite64", "unlinkat"])
def test_case_118_killed_while_images_are_removed(
    host: Host, evil: EvilRegistry, call: str
) -> None:
    """rmi, and prune, which is several of them: each image is there or not, what it shares works."""
    names = {"x": [ONE, TWO], "y": [ONE], "z": [TWO]}
    for name, stack in names.items():
        evil.image(name, "latest", stack)
    seeds = {"x": (1, 2), "y": (1,), "z": (2,)}
    killed = 0
    for number in (1, 2, 4, 9):
        host.reopen()
        for name in names:
            host.pull(f"{evil.address}/{name}")
        host.store.close()
        words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
        words += ["-e", f"inject={call}:signal=KILL:when={number}"]
        command = [sys.executable, "-c", REMOVER, str(REPO), str(host.root)]
        command += [f"{evil.address}/x", f"{evil.address}/z"]
        killed += (
            subprocess.run([*words, *command], timeout=60, capture_output=True).returncode != 0
        )
        host.reopen()
        try:
            left = {
                tag.rpartition("/")[2].partition(":")[0]
                for one in host.store.all()
                for tag in one.tags
            }
            assert "y" in left
            for name in left:
                image = host.store.get(f"{evil.address}/{name}")
                assert whole(image, host, contents(*seeds[name]))
            for name in left:
                host.store.remove(f"{evil.address}/{name}", force=False, users=lambda _: ())
            assert host.store.all() == []
        finally:
            host.store.close()
        kept = [one for one in os.listdir(host.root / "layers") if one[0] != "."]
        assert kept == []
    assert killed, f"{call} is never called"
    host.reopen()


def test_case_125_power_cuts_in_pull_load_and_commit() -> None:
    words = ["unshare", "-m", sys.executable, "-m", "tests.cases.images.powercut", "4"]
    done = subprocess.run(words, cwd=REPO, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("cut") + done.stdout.count("acknowledged") == 12
