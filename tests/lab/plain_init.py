#!/usr/bin/python3 -IS
"""Process 1 of a plain host: starts sshd and the boot scripts, reaps what it inherits.

SIGTERM reboots, SIGUSR2 and SIGINT switch off, as with busybox's init. Boot scripts: executable
/etc/rc.local, then /etc/rc2.d/S* with `start` (update-rc.d makes those), without ssh's own.
"""

import ctypes
import os
import signal
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"}
SIGNALS = {signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGCHLD}
RB_AUTOBOOT, RB_POWER_OFF = 0x01234567, 0x4321FEDC
STOP_SECONDS = 3


def start(argv: list[str]) -> int:
    """Run a program in a session of its own; its process id."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.execve(argv[0], argv, ENVIRONMENT)
        finally:
            os._exit(127)
    return pid


def boot_scripts() -> list[list[str]]:
    """What is to run at boot, in order."""
    found = []
    local = Path("/etc/rc.local")
    if os.access(local, os.X_OK):
        found.append([str(local)])
    skipped = ("ssh", "sudo", "procps", "kmod", "dbus", "rsync")
    scripts = sorted(Path("/etc/rc2.d").glob("S??*"))
    found += [[str(s), "start"] for s in scripts if s.name[3:] not in skipped]
    return found


def reap() -> set[int]:
    """Collect every ended child, own or inherited."""
    ended: set[int] = set()
    try:
        while True:
            pid = os.waitpid(-1, os.WNOHANG)[0]
            if pid == 0:
                return ended
            ended.add(pid)
    except ChildProcessError:
        return ended


def stop_everything() -> None:
    """Ask all processes to end, then make them."""
    os.kill(-1, signal.SIGTERM)
    while signal.sigtimedwait({signal.SIGCHLD}, STOP_SECONDS) is not None:
        reap()
        if not [x for x in os.listdir("/proc") if x.isdigit() and x != "1"]:
            break
    os.sync()


def main() -> None:
    """Boot, then serve signals until told to end."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    Path("/run/sshd").mkdir(exist_ok=True)
    Path("/run/lock").mkdir(exist_ok=True)
    daemon = ["/usr/sbin/sshd", "-D", "-e"]
    sshd = start(daemon)
    for script in boot_scripts():
        start(script)
    while True:
        got = signal.sigwait(SIGNALS)
        if got == signal.SIGCHLD:
            if sshd in reap():
                sshd = start(daemon)
            continue
        stop_everything()
        how = RB_AUTOBOOT if got == signal.SIGTERM else RB_POWER_OFF
        ctypes.CDLL(None).reboot(ctypes.c_int(how if how < 1 << 31 else how - (1 << 32)))
        os._exit(0)


if __name__ == "__main__":
    main()
