"""The engines of a run: those named by --host, or ours and a yardstick (`yardsticks`).

Each of these runs in a lab host of its own (namespaces, folders, cgroups), so that nothing of it
touches this computer, and both see the same kernel, disk and registry.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import h11

from bench.client import Api
from tests.lab.host import Host
from tests.lab.lab import Lab

ROOT = Path(__file__).parents[1]


@dataclass
class Engine:
    """One engine under measurement."""

    name: str
    url: str
    # Command names of the engine's own processes (not the containers'), and where they live.
    programs: tuple[str, ...] = ()
    host: Host | None = None
    start: Callable[[], None] | None = None
    stop: Callable[[], None] | None = None
    notes: dict[str, str] = field(default_factory=dict)

    def api(self) -> Api:
        return Api(self.url)

    def pss(self) -> int | None:
        """Bytes of memory of the engine's processes (proportional set size); None = not ours."""
        if self.host is None or self.host.init_pid is None:
            return None
        space = os.readlink(f"/proc/{self.host.init_pid}/ns/pid")
        return sum(_pss(pid) for pid in _processes(space) if _is_engine(pid, self.programs))


def _processes(space: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "ns/pid") == space:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def _is_engine(pid: int, programs: tuple[str, ...]) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    line = b" ".join(words).decode(errors="replace")
    return any(program in line for program in programs)


def _pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _await_ping(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said = log.read_text(errors="replace")[-1000:]
            raise RuntimeError(f"{url}: the engine ended with {process.returncode}:\n{said}")
        try:
            api = Api(url)
            api.raw("GET", "/_ping")
        except OSError:
            time.sleep(0.002)
        else:
            api.close()
            return
    raise RuntimeError(f"{url} did not answer")


class Supervised:
    """An engine program started inside a lab host."""

    def __init__(self, host: Host, argv: list[str], url: str, log: Path) -> None:
        self._host, self._argv, self.url, self._log = host, argv, url, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._host.inside_argv(self._argv), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        _await_ping(self.url, self._process, self._log)

    def stop(self) -> None:
        """SIGTERM, and its end."""
        process = self._process
        if process is None:
            return
        self._host.run("sh", "-c", "kill $(cat /run/bench.pid)", check=False)
        process.wait(60)
        self._process = None


def inside_url(host: Host, path: str) -> str:
    return f"unix:///proc/{host.init_pid}/root{path}"


WITH_PID = 'echo $$ >/run/bench.pid; exec "$@"'


def ours(lab: Lab, mirror: str) -> Engine:
    """This checkout's agent."""
    host = lab.host("agent", "plain")
    place = host.data / "bench"
    shutil.rmtree(place, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "agent", place / "agent", ignore=ignore)
    shutil.copytree(Path(h11.__file__).parent, place / "h11", ignore=ignore)
    (place / "__main__.py").write_text("from agent.__main__ import main\n\nmain()\n")
    config = {
        "root": "/var/lib/machine/agent",
        "run": "/run/machine",
        "unix_socket": "/run/machine/docker.sock",
        "registry_mirrors": [mirror],
        "insecure_registries": [mirror.removeprefix("http://")],
    }
    (place / "agent.json").write_text(json.dumps(config))
    inside = "/var/lib/machine/bench"
    host.run("python3", "-m", "compileall", "-q", inside)
    argv = [
        "sh",
        "-c",
        WITH_PID,
        "sh",
        "python3",
        "-I",
        inside,
        "--config",
        f"{inside}/agent.json",
    ]
    url = inside_url(host, "/run/machine/docker.sock")
    program = Supervised(host, argv, url, host.directory / "agent.log")
    program.start()
    return Engine("machine", url, (inside, "conmon"), host, program.start, program.stop)
