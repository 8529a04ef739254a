"""A real runtime on this machine: busybox root, own folders, own cgroup parent; all removed after."""

import contextlib
import os
import secrets
import select
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.engine.model import Container, ContainerConfig, ExecConfig, HostConfig
from agent.engine.ports import Exit, Launch, Rootfs
from agent.runtime import OciRuntime, RuntimeSettings, open_runtime
from agent.runtime.record import Record, load

PLAIN = HostConfig()


def read_all(stream, timeout: float = 20.0) -> tuple[bytes, bytes]:
    """(stdout, stderr) until the Duplex ends."""
    found = {1: bytearray(), 2: bytearray()}
    deadline = time.monotonic() + timeout
    while True:
        pieces = stream.read()
        if pieces is None:
            left = deadline - time.monotonic()
            assert left > 0, f"stream did not end: {found}"
            select.select([stream], [], [], left)
        elif not pieces:
            return bytes(found[1]), bytes(found[2])
        else:
            for number, data in pieces:
                found[number] += data


def read_until(stream, wanted: bytes, timeout: float = 20.0) -> bytes:
    seen = b""
    deadline = time.monotonic() + timeout
    while wanted not in seen:
        pieces = stream.read()
        if pieces is None:
            left = deadline - time.monotonic()
            assert left > 0, f"{wanted!r} did not come: {seen!r}"
            select.select([stream], [], [], left)
            continue
        assert pieces, f"ended after {seen!r}"
        seen += b"".join(data for _, data in pieces)
    return seen


class Bench:
    """One runtime with its folders, and short ways to use it."""

    def __init__(self, name: str, base: Path) -> None:
        self.base = base
        self.parent = f"/rt-test-{secrets.token_hex(4)}"
        self.lower = base / "lower"
        self._make_lower()
        self.settings = RuntimeSettings(
            root=str(base / "root"), run=str(base / "run"), runtime=name, cgroup_parent=self.parent
        )
        self.ends: dict[str, Exit] = {}
        self._changed = threading.Condition()
        self.ids: list[str] = []
        self.runtime: OciRuntime = self.open()

    def open(self) -> OciRuntime:
        runtime = open_runtime(self.settings)
        runtime.watch(self._ended)
        return runtime

    def _ended(self, found: Exit) -> None:
        with self._changed:
            assert found.container_id not in self.ends, "reported twice"
            self.ends[found.container_id] = found
            self._changed.notify_all()

    def _make_lower(self) -> None:
        for name in ["bin", "proc", "dev", "sys", "etc", "tmp", "root"]:
            (self.lower / name).mkdir(parents=True)
        shutil.copy("/bin/busybox", self.lower / "bin/busybox")
        subprocess.run(
            ["chroot", str(self.lower), "/bin/busybox", "--install", "-s", "/bin"], check=True
        )
        (self.lower / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nbob:x:1000:1000::/b:\n")
        (self.lower / "etc/group").write_text("root:x:0:\nbob:x:1000:\nextra:x:2000:bob\n")
        for name in ("hosts", "hostname", "resolv.conf"):
            (self.base / name).write_text(f"{name} of the engine\n")
            (self.lower / "etc" / name).write_text("")

    def launch(
        self, *args: str, host: HostConfig = PLAIN, mounts=(), lower=None, **config
    ) -> Launch:
        container_id = secrets.token_hex(32)
        self.ids.append(container_id)
        for name in ("upper", "work"):
            (self.base / "rw" / container_id / name).mkdir(parents=True)
        container = Container(
            id=container_id,
            name="x",
            created=0,
            config=ContainerConfig(**config),
            host_config=host,
            image_id="sha256:0",
            image_ref="busybox",
            path=args[0],
            args=args[1:],
            mounts=mounts,
        )
        top = str(self.base / "rw" / container_id)
        return Launch(
            container=container,
            rootfs=Rootfs((str(lower or self.lower),), f"{top}/upper", f"{top}/work"),
            hostname="boxname",
            etc_hosts=str(self.base / "hosts"),
            etc_hostname=str(self.base / "hostname"),
            etc_resolv_conf=str(self.base / "resolv.conf"),
            mounts=mounts,
        )

    def record(self, container_id: str) -> Record:
        found = load(self.runtime.paths, container_id)
        assert found
        return found

    def begin(self, *args: str, **options) -> Container:
        """Create and start, detached."""
        made = self.launch(*args, **options)
        self.runtime.create(made)
        self.runtime.start(made.container.id)
        return made.container

    def run(self, *args: str, **options) -> tuple[int, bytes, bytes]:
        """Run to the end: (code, stdout, stderr).  Deleted after."""
        made = self.launch(*args, **options)
        self.runtime.create(made)
        stream = self.runtime.attach(made.container.id)
        try:
            self.runtime.start(made.container.id)
            out, err = read_all(stream)
        finally:
            stream.close()
        code = self.wait(made.container.id).code
        self.runtime.delete(made.container.id)
        return code, out, err

    def sh(self, script: str, **options) -> str:
        code, out, err = self.run("sh", "-c", script, **options)
        assert code == 0, (code, out, err)
        return out.decode()

    def wait(self, container_id: str, timeout: float = 20.0) -> Exit:
        with self._changed:
            assert self._changed.wait_for(lambda: container_id in self.ends, timeout)
            return self.ends[container_id]

    def exec(self, container: Container, *cmd: str, **config) -> tuple[int, bytes, bytes]:
        codes: list[int] = []
        done = threading.Event()

        def ended(code: int) -> None:
            codes.append(code)
            done.set()

        wanted = replace(ExecConfig(cmd=cmd, attach_stdout=True, attach_stderr=True), **config)
        process = self.runtime.exec(
            container, wanted, secrets.token_hex(8), detach=False, on_exit=ended
        )
        stream = process.stream()
        assert stream is not None
        out, err = read_all(stream)
        stream.close()
        assert done.wait(20)
        return codes[0], out, err

    def close(self) -> None:
        for container_id in self.ids:
            self.runtime.delete(container_id)
        self.runtime.close()
        self.remove_cgroups()

    def cgroups(self) -> list[str]:
        return [
            str(path)
            for hierarchy in self.runtime.cgroups.hierarchies.all
            for path in Path(hierarchy).glob(f"{self.parent[1:]}/*")
            if path.is_dir()
        ]

    def remove_cgroups(self) -> None:
        for hierarchy in self.runtime.cgroups.hierarchies.all:
            for name in (self.parent, f"{self.parent}-conmon"):
                with contextlib.suppress(OSError):
                    os.rmdir(hierarchy + name)

    def assert_clean(self) -> None:
        """LEAK0: nothing of ours in $RUN, cgroups, mounts, processes."""
        run = Path(self.settings.run)
        for name in ("containers", "exits", "oci", "execs"):
            assert os.listdir(run / name) == [], name
        assert self.cgroups() == []
        assert str(self.base) not in Path("/proc/self/mountinfo").read_text()
        assert processes(str(self.base)) == []


def processes(needle: str) -> list[str]:
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and int(name) != os.getpid():
                line = Path(f"/proc/{name}/cmdline").read_bytes()
                if needle.encode() in line:
                    found.append(line.replace(b"\0", b" ").decode())
    return found


def _bench(name: str) -> Iterator[Bench]:
    base = Path(tempfile.mkdtemp(prefix="rt-cases-", dir="/tmp"))
    try:
        bench = Bench(name, base)
        try:
            yield bench
        finally:
            bench.close()
        bench.assert_clean()
    finally:
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(params=["crun", "runc"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """With each runtime that is installed."""
    assert shutil.which(request.param), f"{request.param} is not installed"
    yield from _bench(request.param)


@pytest.fixture
def crun() -> Iterator[Bench]:
    yield from _bench("crun")
