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
# Process 1 of the namespace: when it ends (so when we do), VBoxSVC and all machines end. VBoxSVC would
# be started by the first VBoxManage and end a few seconds after the last; who comes while it ends
# waits for 10 s.
_FIRST = """\
(while :; do /usr/lib/virtualbox/VBoxSVC; sleep 0.1; done) </dev/null >/dev/null 2>&1 &
for _ in $(seq 300); do
  [ -S /tmp/.vbox-root-ipc/ipcd ] && echo ready && break
  sleep 0.1
done
while read -r _; do :; done
"""
_SOURCE = REPOSITORY / "tests/lab/virtualbox.c"


HELLO = b"hello from the boot sector\r\n"
# A guest in 512 bytes, as tests.support.bootsector has one for QEMU. VirtualBox's serial port wants to
# be set up and waited for; its PM1 registers are at 0x4000, its sleep type for "off" is 5.
_CODE = bytes.fromhex(
    "31c0 8ed8"  # xor ax,ax; mov ds,ax
    "ba fb03 b083 ee"  # mov dx,0x3fb; mov al,0x83; out dx,al: 8 bits, divisor follows
    "ba f803 b001 ee 42 b000 ee"  # divisor 1
    "ba fb03 b003 ee"
    "be 0000"  # mov si,text (filled in below)
    "ba fd03"  # next: mov dx,0x3fd
    "ec a820 74fb"  # wait: in al,dx; test al,0x20; jz wait
    "ac 84c0 7406"  # lodsb; test al,al; jz button
    "ba f803 ee ebed"  # mov dx,0x3f8; out dx,al; jmp next
    "ba 0240 b80001 ef"  # button: mov dx,0x4002; mov ax,0x100; out dx,ax: it is enabled
    "ba 0040"  # mov dx,0x4000
    "ed f6c401 74fa"  # poll: in ax,dx; test ah,1; jz poll
    "ba 0440 b80034 ef ebfe"  # mov dx,0x4004; mov ax,0x3400; out dx,ax; jmp $
)
_TEXT_AT = _CODE.index(bytes.fromhex("be0000")) + 1


def tiny_disk(size: int = 1 << 20) -> bytes:
    """A raw disk whose guest says hello on its serial line, and goes off at the power button."""
    at = (0x7C00 + len(_CODE)).to_bytes(2, "little")
    sector = _CODE[:_TEXT_AT] + at + _CODE[_TEXT_AT + 2 :] + HELLO + b"\0"
    return (sector.ljust(510, b"\0") + b"\x55\xaa").ljust(size, b"\0")


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

    def __init__(self, program: Path, pid: int) -> None:
        self.program = program
        self._pid = pid
        self.direct = program.with_name("direct")
        self.path = str(program.parent)  # for PATH

    def manage(self, *argv: str, timeout: float = 60.0) -> str:
        """VBoxManage behind everyone's back; its standard output. Raises LabError."""
        return run([str(self.direct), *argv], timeout=timeout).stdout

    def restart(self) -> None:
        """End VBoxSVC, which is then started anew, and reads its files again."""
        old = self._services()
        run([*_enter(self._pid), "kill", "-KILL", *old], check=False)  # one may just have ended
        wait_until(lambda: not set(self._services()) & set(old), 20.0, "VBoxSVC ends")
        self.machines()

    def _services(self) -> list[str]:
        argv = [*_enter(self._pid), "ps", "-C", "VBoxSVC", "-o", "pid=,stat="]
        rows = (line.split() for line in run(argv, check=False).stdout.splitlines())
        return [pid for pid, state in rows if not state.startswith("Z")]

    @contextlib.contextmanager
    def hardened(self) -> Iterator[None]:
        """VBoxHeadless as Debian has it, which wants the kernel's module."""
        place = f"/{INSTALLED}/VBoxHeadless"
        inside = _enter(self._pid)
        run([*inside, "cp", place, f"{place}.driverless"])
        try:
            run([*inside, "cp", f"{place}.hardened", place])
            yield
        finally:
            run([*inside, "mv", f"{place}.driverless", place])

    def machines(self) -> dict[str, str]:
        """uuid -> name."""
        rows = (line.rpartition(" ") for line in self.manage("list", "vms").splitlines())
        return {ident.strip("{}"): name.strip('"') for name, _, ident in rows}

    def sweep(self) -> None:
        """All machines off and away, and what a test left in the list of disks."""
        running = self.manage("list", "runningvms")
        for ident, name in self.machines().items():
            if name == "<inaccessible>":
                self.manage("unregistervm", ident)
                continue
            if ident in running:
                self.manage("controlvm", ident, "poweroff")
            wait_until(functools.partial(self._unlocked, ident), 10.0, "VirtualBox lets it go")
            self.manage("unregistervm", ident, "--delete")
        for row in self.manage("list", "hdds").splitlines():
            if row.startswith("UUID:"):
                self.manage("closemedium", "disk", row.split()[1])

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
        argv=("/bin/sh", "-c", _FIRST),
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
            program = _program(folder / "bin/VBoxManage", pid, "/usr/bin/VBoxManage")
            yield VirtualBox(program, pid)
        finally:
            keeper.stdin.close()
            keeper.wait(timeout=30)
