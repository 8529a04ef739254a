"""One host's hardware: gives it power, boots it again when it reboots, lets it stay off otherwise.

Started as `python -S -m tests.lab.supervise SPEC.json`; returns when the first boot is under way
and goes on in the background. It and the host live in cgroups of the lab (see `cgroups`).
"""

import json
import os
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from tests.lab import cgroups, network
from tests.lab import syscalls as sc
from tests.lab.enter import Root, become, root_from_json
from tests.lab.errors import LabError
from tests.lab.process import run
from tests.lab.settings import REPOSITORY

_REBOOT = signal.SIGHUP  # reboot(2) in a PID namespace: RESTART ends its init so, HALT by SIGINT


@dataclass(frozen=True)
class Unit:
    """What to run: written to SPEC.json by `to_json`."""

    lab: str
    unit: str
    directory: str
    plug: network.Plug
    root: Root

    def to_json(self) -> str:
        """The text of SPEC.json."""
        return json.dumps(
            {
                "lab": self.lab,
                "unit": self.unit,
                "directory": self.directory,
                "plug": self.plug.to_json(),
                "root": self.root.to_json(),
            }
        )


def power_on(unit: Unit, directory: Path) -> None:
    """Start the supervisor of `unit`. Raises LabError with the console's end when it cannot boot."""
    spec = directory / "spec.json"
    spec.write_text(unit.to_json())
    argv = [sys.executable, "-S", "-m", "tests.lab.supervise", str(spec)]
    try:
        run(argv, cwd=str(REPOSITORY))
    except LabError as failed:
        log = directory / "console.log"
        text = log.read_text(errors="replace")[-2000:] if log.exists() else ""
        raise LabError(f"{failed}\n{text}") from failed


def _read(path: str) -> Unit:
    raw = json.loads(Path(path).read_text())
    return Unit(
        lab=raw["lab"],
        unit=raw["unit"],
        directory=raw["directory"],
        plug=network.Plug(**raw["plug"]),
        root=root_from_json(raw["root"]),
    )


def _first_process(unit: Unit, go: int) -> None:
    sc.die_with_parent(signal.SIGKILL)
    if os.read(go, 1) == b"1":
        os.close(go)
        become(unit.root)


def _keeper(unit: Unit, files: list[str], tell: int, go: int) -> int:
    """The process between: enters the host's namespaces, starts its init, passes on how it ended."""
    sc.die_with_parent(signal.SIGKILL)
    cgroups.join(files, 0)
    sc.join_namespace(f"/run/netns/{unit.plug.netns}", sc.CLONE_NEWNET)
    sc.unshare(
        sc.CLONE_NEWNS | sc.CLONE_NEWUTS | sc.CLONE_NEWIPC | sc.CLONE_NEWCGROUP | sc.CLONE_NEWPID
    )
    child = os.fork()
    if child == 0:
        try:
            _first_process(unit, go)
        except OSError:
            traceback.print_exc()
        finally:
            os._exit(70)
    os.close(go)
    os.write(tell, str(child).encode())
    os.close(tell)
    status = os.waitpid(child, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _boot(unit: Unit, ready: int) -> int:
    """Boot once and wait for the end; the signal that ended the host's process 1."""
    cgroups.remove(unit.lab, unit.unit, keep_top=True)
    network.connect(unit.plug)
    files = cgroups.procs_files(unit.lab, unit.unit)
    told, tell = os.pipe()
    go_read, go_write = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        code = 71
        try:
            os.close(told)
            os.close(go_write)
            code = _keeper(unit, files, tell, go_read)
        except OSError:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(tell)
    os.close(go_read)
    first = os.read(told, 32).decode()
    os.close(told)
    pid_file = Path(unit.directory, "init.pid")
    if first:
        # cgroup v2 wants no process in an inner node, so only the host itself stays in its cgroup
        cgroups.join(cgroups.procs_files(unit.lab, cgroups.SUPERVISORS), keeper)
        pid_file.write_text(first)
        if ready >= 0:
            os.write(ready, b"1")
            os.close(ready)
        os.write(go_write, b"1")
    os.close(go_write)
    status = os.waitpid(keeper, 0)[1]
    pid_file.unlink(missing_ok=True)
    return os.waitstatus_to_exitcode(status)


def _serve(unit: Unit, ready: int) -> None:
    cgroups.join(cgroups.procs_files(unit.lab, cgroups.SUPERVISORS), 0)
    ended = _boot(unit, ready)
    while ended == _REBOOT:
        print(f"lab: {unit.unit} reboots", flush=True)
        ended = _boot(unit, -1)
    print(f"lab: {unit.unit} is off ({ended})", flush=True)


def main(path: str) -> int:
    """Start in the background; 0 once the first process of the host exists."""
    unit = _read(path)
    ready_read, ready_write = os.pipe()
    if os.fork() == 0:
        code = 72
        try:
            os.close(ready_read)
            os.setsid()
            null = os.open("/dev/null", os.O_RDONLY)
            log = os.open(
                f"{unit.directory}/console.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
            )
            for source, target in ((null, 0), (log, 1), (log, 2)):
                os.dup2(source, target)
            os.closerange(3, ready_write)
            _serve(unit, ready_write)
            code = 0
        except (OSError, LabError):
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(ready_write)
    return 0 if os.read(ready_read, 1) == b"1" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
