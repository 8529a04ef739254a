"""Debian sid's VirtualBox in a root of its own: the real VBoxManage and VBoxSVC, without a module.

The tree is extracted from packages (no maintainer script runs), with empty stand-ins for what only
the graphical parts and the kernel module need; it takes about 10 s and 240 MB. Virtual machines run
by VirtualBox's own recompiler engine: see virtualbox.c.
"""

import contextlib
import functools
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.lab.cache import Cache, key_of
from tests.lab.debian import SUITE, _apt_options, sources_of_this_computer, write_package_index
from tests.lab.enter import Overlay, Root
from tests.lab.environment import CLEAN_ENVIRONMENT
from tests.lab.errors import LabError
from tests.lab.lab import process_identity
from tests.lab.process import run
from tests.lab.settings import REPOSITORY, Settings
from tests.lab.waiting import wait_until

INSTALLED = "usr/lib/virtualbox"
_PACKAGES = "virtualbox,virtualbox-source,libc-bin,dash,coreutils,sed,grep,mawk,procps,base-files"
_OFTEN = "9999:1"
_STAND_INS = {
    "virtualbox-source": "99",  # would bring a compiler
    "python3": "3.14.999", "python3.14": "3.14.999", "python3-packaging": _OFTEN,
    "libgl1": _OFTEN, "libsdl2-2.0-0": _OFTEN, "libvncserver1": _OFTEN,  # 250 MB of graphics
    "systemd": _OFTEN, "iproute2": _OFTEN,
}  # fmt: skip
_TRIMMED = ("man", "locale", "doc", "info", "lintian", "bug")
_SOURCE = REPOSITORY / "tests/lab/virtualbox.c"


def _sid() -> str:
    """The line of sources.list: the mirror of bookworm, with another suite."""
    for line in sources_of_this_computer():
        if line.endswith(f" {SUITE} main"):
            return line.removesuffix(f"{SUITE} main") + "sid main contrib"
    raise LabError(f"no mirror of {SUITE} to take sid from")


def _stand_ins(folder: Path) -> None:
    """Empty packages of the right names, as a repository."""
    repository = folder / "repository"
    repository.mkdir()
    for name, version in _STAND_INS.items():
        control = folder / "package/DEBIAN/control"
        control.parent.mkdir(parents=True, exist_ok=True)
        control.write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMulti-Arch: allowed\n"
            "Maintainer: lab <lab@example.org>\nDescription: stands in\n"
        )
        run(["dpkg-deb", "--build", str(folder / "package"), str(repository / f"{name}.deb")])
    write_package_index(repository)


def _build(place: Path) -> None:
    work, root = place / "work", place / "root"
    work.mkdir()
    _stand_ins(work)
    settings = ['Acquire::Languages "none"', 'APT::Install-Recommends "false"']
    settings.append('Acquire::Check-Valid-Until "false"')  # sid's Release is good for a week only
    options = [f"--aptopt={x}" for x in [*settings, *_apt_options()]]
    options += [f"--dpkgopt=path-exclude=/usr/share/{x}/*" for x in _TRIMMED]
    argv = ["mmdebstrap", "--quiet", "--mode=root", "--variant=extract", *options]
    sources = [_sid(), f"deb [trusted=yes] copy:{work / 'repository'} ./"]
    run([*argv, f"--include={_PACKAGES}", "sid", str(root), *sources], timeout=600)
    shutil.rmtree(root / "dev")
    for name in ("dev", "proc", "sys", "run", "tmp", "root"):
        (root / name).mkdir(exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "usr/bin/awk").symlink_to("mawk")  # maintainer scripts would; Debian's wrapper uses it
    headless = root / INSTALLED / "VBoxHeadless"
    headless.rename(headless.with_name("VBoxHeadless.hardened"))
    run(["gcc", "-O1", "-o", str(headless), str(_SOURCE), "-ldl"])
    run(["rm", "-r", str(work)])


def tree(cache: Cache) -> Path:
    """The root of a system with VirtualBox."""
    key = key_of("virtualbox", 3, _PACKAGES, _STAND_INS, _TRIMMED, _SOURCE.read_text())
    return cache.entry("virtualbox", key, _build) / "root"


class VirtualBox:
    """One user's VirtualBox: its own home, VBoxSVC and virtual machines, ended with the block.

    `program` runs its VBoxManage from outside as Debian has it, `direct` without Debian's wrapper,
    which takes half of the time. What lies below `shared` has the same path inside.
    NAT's port forwards listen on this computer's loopback.
    """

    def __init__(self, program: Path) -> None:
        self.program = program
        self.direct = program.with_name("direct")
        self.path = str(program.parent)  # for PATH

    def manage(self, *argv: str, timeout: float = 60.0) -> str:
        """VBoxManage behind everyone's back; its standard output. Raises LabError."""
        return run([str(self.direct), *argv], timeout=timeout).stdout

    def machines(self) -> dict[str, str]:
        """uuid -> name."""
        rows = (line.rpartition(" ") for line in self.manage("list", "vms").splitlines())
        return {ident.strip("{}"): name.strip('"') for name, _, ident in rows}

    def sweep(self) -> None:
        """All machines off and away."""
        running = self.manage("list", "runningvms")
        for ident in self.machines():
            if ident in running:
                self.manage("controlvm", ident, "poweroff")
            wait_until(functools.partial(self._unlocked, ident), 10.0, "VirtualBox lets it go")
            self.manage("unregistervm", ident, "--delete")

    def _unlocked(self, ident: str) -> bool:
        return "SessionName=" not in self.manage("showvminfo", ident, "--machinereadable")


def _enter(pid: int) -> list[str]:
    """The start of a command line that runs inside."""
    environment = {**CLEAN_ENVIRONMENT, "USER": "root", "LOGNAME": "root"}
    settings = [f"{name}={value}" for name, value in environment.items()]
    spaces = ["--mount", "--pid", "--uts", "--ipc", "--root"]
    return ["nsenter", "--target", str(pid), *spaces, "env", "--chdir=/", "-i", *settings]


def _program(place: Path, pid: int, inner: str) -> Path:
    """A program for outside that runs `inner` inside."""
    command = shlex.join([*_enter(pid), inner])
    place.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    place.chmod(0o755)
    return place


@contextlib.contextmanager
def home(settings: Settings) -> Iterator[Path]:
    """An empty folder for `running`; those of processes that died are removed."""
    settings.state.mkdir(parents=True, exist_ok=True)
    for old in settings.state.glob(".virtualbox-*"):
        if process_identity(int(old.name.split("-")[1])) is None:
            shutil.rmtree(old)
    made = Path(tempfile.mkdtemp(prefix=f".virtualbox-{os.getpid()}-", dir=settings.state))
    try:
        yield made
    finally:
        shutil.rmtree(made)


@contextlib.contextmanager
def running(cache: Cache, folder: Path, shared: Path) -> Iterator[VirtualBox]:
    """A VirtualBox whose changes go into the empty `folder`, which can hold an overlay."""
    for name in ("upper", "work", "top", "bin"):
        (folder / name).mkdir(parents=True)
    root = Root(
        root=Overlay(
            (str(tree(cache)),), str(folder / "upper"), str(folder / "work"), str(folder / "top")
        ),
        # process 1 of the namespace: when it ends (so when we do), VBoxSVC and all machines end
        argv=("/bin/sh", "-c", "echo ready; while read -r _; do :; done"),
        environment=CLEAN_ENVIRONMENT,
        hostname="virtualbox",
        binds=((str(shared), str(shared)),),
    )
    spec = folder / "root.json"
    spec.write_text(json.dumps(root.to_json()))
    spaces = ["--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
    python = [sys.executable, "-S", "-m", "tests.lab.enter", str(spec)]
    with subprocess.Popen(
        ["unshare", *spaces, *python],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
        env=dict(CLEAN_ENVIRONMENT),
        text=True,
    ) as keeper:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        try:
            if keeper.stdout.readline() != "ready\n":
                raise LabError("the root of VirtualBox does not start")
            children = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children").read_text().split()
            pid = int(children[0])
            _program(folder / "bin/direct", pid, f"/{INSTALLED}/VBoxManage")
            yield VirtualBox(_program(folder / "bin/VBoxManage", pid, "/usr/bin/VBoxManage"))
        finally:
            keeper.stdin.close()
            keeper.wait(timeout=30)
