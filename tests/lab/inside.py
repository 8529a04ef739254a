"""Runs a program inside a host: `python -S -m tests.lab.inside PID CGROUP_FILES PROGRAM ...`.

As nsenter(1) would, but: it moves into the host's cgroup first, what it runs dies with it, and it
does not stop itself when its child is stopped. systemd stops every process before a reboot; a
stopped nsenter would never reap its child, and the host's PID namespace would wait for ever.
"""

import os
import signal
import sys

from tests.lab import cgroups
from tests.lab import syscalls as sc
from tests.lab.environment import CLEAN_ENVIRONMENT

_SPACES = (
    ("cgroup", sc.CLONE_NEWCGROUP),
    ("ipc", sc.CLONE_NEWIPC),
    ("uts", sc.CLONE_NEWUTS),
    ("net", sc.CLONE_NEWNET),
    ("pid", sc.CLONE_NEWPID),
    ("mnt", sc.CLONE_NEWNS),
)


def _enter(pid: int, files: list[str]) -> None:
    cgroups.join(files, 0)
    root = os.open(f"/proc/{pid}/root", os.O_RDONLY | os.O_DIRECTORY)
    spaces = [(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY), kind) for name, kind in _SPACES]
    for fd, kind in spaces:
        sc.join_namespace_fd(fd, kind)
        os.close(fd)
    os.chdir(root)
    os.chroot(".")
    os.close(root)


def _environment() -> dict[str, str]:
    terminal = {"TERM": os.environ["TERM"]} if "TERM" in os.environ else {}
    return {**CLEAN_ENVIRONMENT, **terminal}


def main(argv: list[str]) -> int:
    """Enter and run; the program's exit status, 128 + signal when one ended it."""
    try:
        _enter(int(argv[0]), argv[1].split())
    except OSError as error:
        print(f"lab: the host went away: {error}", file=sys.stderr)
        return 125
    child = os.fork()
    if child == 0:
        try:
            sc.die_with_parent(signal.SIGKILL)
            os.execvpe(argv[2], argv[2:], _environment())
        except OSError as error:
            print(f"lab: {argv[2]}: {error.strerror}", file=sys.stderr, flush=True)
        finally:
            os._exit(127)
    for number in (signal.SIGINT, signal.SIGQUIT):  # a terminal sends them to the child as well
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
