"""The store on disk: kill -9 (case 38), removal rules, pins, recovery, modes, mounting it all."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.engine.model import Image
from agent.errors import EngineError, Kind
from agent.images import open_store
from agent.images.settings import RegistrySettings
from tests.cases.images.test_registry import ONE, QUICK, TWO, Host, mute
from tests.support.evilregistry import EvilRegistry, layer, member, tar

REPO = Path(__file__).resolve().parents[3]
PULLER = """
import sys
sys.path.insert(0, sys.argv[1])
from agent.images import open_store
from agent.images.settings import RegistrySettings
store, _ = open_store(sys.argv[2], RegistrySettings(certificates=()))
say = lambda line: print(line.status, flush=True)
store.pull(sys.argv[3], platform="linux/amd64", auth=None, progress=say, cancelled=lambda: False)
"""


@pytest.fixture(name="host")
def _host() -> Iterator[Host]:
    root = Path(tempfile.mkdtemp(prefix="images-store-"))
    host = Host(root, RegistrySettings(timeouts=QUICK, certificates=()))
    try:
        yield host
    finally:
        host.store.close()
        shutil.rmtree(root)


@pytest.fixture(name="evil")
def _evil() -> Iterator[EvilRegistry]:
    with EvilRegistry() as found:
        yield found


def layer_folders(host: Host) -> list[Path]:
    return [path for path in (host.root / "layers").iterdir() if path.name[0] != "."]


def settle(host: Host) -> None:
    """Wait for what is deleted behind."""
    deadline = time.monotonic() + 5
    while any(path.name[0] == "." for path in (host.root / "layers").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def whole(image: Image, host: Host, contents: dict[str, bytes]) -> bool:
    rootfs = host.snapshots.prepare("check", image.id)
    merged = {
        str(path.relative_to(lower)): path.read_bytes()
        for lower in map(Path, rootfs.lower[1:])
        for path in lower.rglob("*")
        if path.is_file()
    }
    host.snapshots.remove("check")
    return merged == contents


def test_case_038_killed_at_random_points_of_a_pull(host: Host, evil: EvilRegistry) -> None:
    rng = random.Random(38)
    contents = {f"f{n}/{i}": rng.randbytes(20_000) for n in range(4) for i in range(30)}
    layers = [
        layer(tar([member(k, v) for k, v in contents.items() if k.startswith(f"f{n}/")]))
        for n in range(4)
    ]
    evil.image("x", "latest", layers)
    name = f"{evil.address}/x"
    killed = 0
    for _ in range(12):
        before = len(layer_folders(host))
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", PULLER, str(REPO), str(host.root), name],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        stop = rng.randint(1, 9)  # a finished pull says seven lines
        for number, _line in enumerate(process.stdout):
            if number == stop:
                process.send_signal(signal.SIGKILL)
                killed += 1
                break
        process.stdout.close()
        process.wait()
        assert len(layer_folders(host)) >= before  # finished layers are kept
    assert killed >= 6
    host.reopen()
    image = host.pull(name)
    settle(host)
    assert whole(image, host, contents)
    assert len(layer_folders(host)) == 4


def test_case_038_worker_death_fails_the_pull_only(host: Host, evil: EvilRegistry) -> None:
    evil.image("x", "latest", [ONE])
    evil.script(f"/v2/x/blobs/{ONE.digest}", mute)
    import threading

    def kill_workers() -> None:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    found = path.read_bytes()
                    parent = (path.parent / "stat").read_text().rpartition(")")[2].split()[1]
                except OSError:
                    continue
                if b"agent/images/worker.py" in found and int(parent) == os.getpid():
                    os.kill(int(path.parent.name), signal.SIGKILL)
                    for connection in list(evil._open):
                        connection.shutdown(2)
                    evil.blob("x", ONE.blob)
                    return
            time.sleep(0.02)

    killer = threading.Thread(target=kill_workers)
    killer.start()
    host.refused(f"{evil.address}/x", "worker died")
    killer.join()
    host.pull(f"{evil.address}/x")


def test_layers_of_an_earlier_boot_are_not_believed(host: Host, evil: EvilRegistry) -> None:
    evil.image("x", "latest", [ONE])
    evil.image("y", "latest", [ONE, TWO])
    host.pull(f"{evil.address}/x")

    with sqlite3.connect(host.root / "images/images.db") as database:
        database.execute("UPDATE layers SET boot = 'another' WHERE diff_id = ?", (ONE.diff_id,))
    host.reopen()
    settle(host)
    assert layer_folders(host) == []
    with pytest.raises(EngineError, match="lost layers"):
        host.snapshots.prepare("c", host.store.get(f"{evil.address}/x").id)
    image = host.pull(f"{evil.address}/x")  # heals
    assert len(host.snapshots.prepare("c", image.id).lower) == 2


def test_a_damaged_database_is_set_aside(host: Host, evil: EvilRegistry) -> None:
    evil.image("x", "latest", [ONE])
    image = host.pull(f"{evil.address}/x")
    rootfs = host.snapshots.prepare("c", image.id)
    (host.root / "images/images.db-wal").unlink()
    path = host.root / "images/images.db"
    path.write_bytes(b"garbage" * 1000)
    host.reopen()
    settle(host)
    assert host.store.all() == []
    assert (host.root / "images/images.db.damaged-1").exists()
    assert host.snapshots.rootfs("c") == rootfs
    assert Path(rootfs.lower[1], "bin/sh").exists()  # a container still needs it
    assert host.pull(f"{evil.address}/x").id == image.id


def test_removal_rules_are_dockers(host: Host, evil: EvilRegistry) -> None:
    digest = evil.image("x", "latest", [ONE, TWO])
    name = f"{evil.address}/x"
    image = host.pull(name)
    short = image.id[7:19]
    container = "c" * 64

    def conflict(reference: str, text: str, using: list[tuple[str, bool]], force: bool) -> None:
        with pytest.raises(EngineError) as caught:
            host.store.remove(reference, force=force, users=lambda _: using)
        assert (caught.value.kind, caught.value.message) == (Kind.CONFLICT, text)

    using = [(container, False)]
    conflict(
        name,
        f'conflict: unable to remove repository reference "{name}" (must force) - container '
        f"cccccccccccc is using its referenced image {short}",
        using,
        False,
    )
    stopped = "image is being used by stopped container cccccccccccc"
    conflict(
        short, f"conflict: unable to delete {short} (must be forced) - {stopped}", using, False
    )
    running = f"image is being used by running container {container[:12]}"
    conflict(
        short,
        f"conflict: unable to delete {short} (cannot be forced) - {running}",
        [(container, True)],
        True,
    )
    host.store.tag(name, "other/y", "1")
    assert host.store.get("other/y:1").id == image.id
    conflict(
        short,
        f"conflict: unable to delete {short} (must be forced) - "
        "image is referenced in multiple repositories",
        [],
        False,
    )
    removed = host.store.remove("other/y:1", force=False, users=lambda _: using)
    assert [line.untagged for line in removed] == ["other/y:1"]
    removed = host.store.remove(name, force=False, users=lambda _: [])
    assert [line.untagged for line in removed[:2]] == [f"{name}:latest", f"{name}@{digest}"]
    assert removed[2].deleted == image.id
    assert removed[-1].deleted == ONE.diff_id  # the base's chain ID
    settle(host)
    assert layer_folders(host) == []
    assert list((host.root / "images/blobs/sha256").iterdir()) == []


def test_pinned_layers_outlive_a_forced_removal(host: Host, evil: EvilRegistry) -> None:
    evil.image("x", "latest", [ONE])
    image = host.pull(f"{evil.address}/x")
    host.snapshots.prepare("c1", image.id)
    host.snapshots.prepare("c2", image.id)
    assert host.snapshots.prepare("c1", image.id) == host.snapshots.rootfs("c1")
    host.store.remove(image.id, force=True, users=lambda _: [("c1", False), ("c2", False)])
    host.reopen()
    assert len(layer_folders(host)) == 1
    host.snapshots.remove("c1")
    assert len(layer_folders(host)) == 1
    host.snapshots.reconcile([])
    settle(host)
    assert layer_folders(host) == []
    host.snapshots.remove("c1")
    with pytest.raises(EngineError, match="no writable layer"):
        host.snapshots.rootfs("c1")
    for bad in ("", "../x", "a/b", ".hidden", "x" * 200):
        with pytest.raises(EngineError):
            host.snapshots.prepare(bad, image.id)


def test_shared_layers_are_stored_once(host: Host, evil: EvilRegistry) -> None:
    evil.image("x", "latest", [ONE])
    evil.image("y", "latest", [ONE, TWO, ONE])
    host.pull(f"{evil.address}/x")
    image = host.pull(f"{evil.address}/y")
    assert len(layer_folders(host)) == 2
    rootfs = host.snapshots.prepare("c", image.id)
    assert len(rootfs.lower) == 3  # overlayfs refuses a repeated directory
    host.snapshots.remove("c")
    host.store.remove(f"{evil.address}/y", force=False, users=lambda _: [])
    settle(host)
    assert len(layer_folders(host)) == 1


def test_case_056_057_host_users_cannot_reach_layers(host: Host, evil: EvilRegistry) -> None:
    su = layer(tar([member("bin/su", b"#!/bin/sh\n", mode=0o4755)]))
    evil.image("x", "latest", [su])
    image = host.pull(f"{evil.address}/x")
    rootfs = host.snapshots.prepare("c", image.id)
    assert host.root.stat().st_mode & 0o777 == 0o710
    for folder in ("images", "layers", "containers"):
        assert (host.root / folder).stat().st_mode & 0o777 == 0o700
    os.chmod(host.root, 0o711)  # even if the data folder itself could be entered
    path = os.path.join(rootfs.lower[1], "bin/su")
    script = "import os, sys; os.setgid(1000); os.setuid(1000); open(sys.argv[1])"
    done = subprocess.run([sys.executable, "-I", "-c", script, path], capture_output=True)
    assert b"PermissionError" in done.stderr


def test_case_020_021_overlay_with_the_init_layer(host: Host, evil: EvilRegistry) -> None:
    canary = host.root / "canary"
    canary.mkdir()
    base = layer(
        tar(
            [
                member("dev", kind=b"2", link=str(canary)),
                member("proc", kind=b"2", link="/etc"),
                member("etc/", kind=b"5", mode=0o755),
                member("etc/hosts", kind=b"2", link=str(canary / "x")),
                member("etc/hostname", kind=b"6"),
                member("etc/passwd", b"root:x:0:0::/:/bin/sh\n"),
                member("a/gone", b"1"),
                member("o/old", b"1"),
                member("tmp/", kind=b"5", mode=0o1777),
            ]
        )
    )
    top = layer(
        tar(
            [
                member("a/.wh.gone"),
                member("o/.wh..wh..opq"),
                member("o/new", b"2"),
                member("./", kind=b"5", mode=0o751, uid=5),
            ]
        )
    )
    evil.image("x", "latest", [base, top])
    rootfs = host.snapshots.prepare("c", host.pull(f"{evil.address}/x").id)
    merged = host.root / "merged"
    merged.mkdir()
    options = f"lowerdir={':'.join(rootfs.lower)},upperdir={rootfs.upper},workdir={rootfs.work}"
    script = (
        'mount -t overlay overlay -o "$0" "$1" && cd "$1" && stat -c "%F %a %u %n" . dev proc sys '
        "etc etc/hosts etc/hostname dev/shm tmp; echo written > etc/hosts; ls a o; cat etc/passwd"
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, options, str(merged)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "directory 751 5 .",
        "directory 755 0 dev",
        "directory 755 0 proc",
        "directory 755 0 sys",
        "directory 755 0 etc",
        "regular empty file 644 0 etc/hosts",
        "regular empty file 644 0 etc/hostname",
        "directory 755 0 dev/shm",
        "directory 1777 0 tmp",
        "a:",
        "",
        "o:",
        "new",
        "root:x:0:0::/:/bin/sh",
    ]
    assert list(canary.iterdir()) == []


def test_case_127_layers_fit_a_mount(host: Host, evil: EvilRegistry) -> None:
    layers = [layer(tar([member(f"f{number}", b"1")])) for number in range(127)]
    evil.image("x", "latest", layers)
    image = host.pull(f"{evil.address}/x")
    rootfs = host.snapshots.prepare("c", image.id)
    assert len(rootfs.lower) == 128
    relative = ":".join(os.path.relpath(path, host.root) for path in rootfs.lower)
    assert len(relative) < 4096 - 400
    evil.image("y", "latest", [*layers, ONE])
    host.refused(f"{evil.address}/y", "more than 127")


def test_open_store_twice_in_a_row(tmp_path: Path) -> None:
    for _ in range(2):
        store, snapshots = open_store(str(tmp_path / "root"), RegistrySettings())
        assert store.all() == []
        snapshots.reconcile([])
        store.close()
