"""`mount`: a folder of a machine here, by the system's own sshfs and the pinned host key."""

from __future__ import annotations

import sys

import click

from machine import process
from machine.cli.grammar import Command
from machine.cli.session import Session
from machine.cli.ssh import configured, pin_first, place
from machine.config import DEFAULT_MACHINE
from machine.errors import MachineError


@click.command(cls=Command)
@click.option("-u", "--unmount", is_flag=True, help="Unmount instead of mount")
@click.argument("source", metavar="[MACHINE:]PATH")
@click.argument("mountpoint", required=False)
@click.pass_obj
def mount(session: Session, unmount: bool, source: str, mountpoint: str | None) -> int:
    """Mount a folder of a machine: mount [-u] [[user@]MACHINE:]PATH [MOUNTPOINT].

    The machine is `default` when none is named; the mount point is the remote path when none is
    given.
    """
    full = source if ":" in source else f"{DEFAULT_MACHINE}:{source}"
    there = mountpoint or full.partition(":")[2]
    if unmount:
        tool = ["umount"] if sys.platform == "darwin" else ["fusermount", "-u"]
        return process.foreground([*tool, there])
    record, path = place(session, full)
    if record is None:
        raise MachineError(f"{source} is on this computer already")
    pin_first(session, [record])
    with configured(session, [record]) as config:  # read once, before sshfs goes to the background
        argv = ["sshfs", "-F", config, path, there]
        session.debug(process.printable_argv(argv))
        return process.foreground(argv)
