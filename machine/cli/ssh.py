"""`ssh` and `scp`: the system's own programs, with the machine's pinned host key."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from machine import process, sshconfig
from machine.cli.grammar import Command
from machine.cli.session import Session
from machine.errors import MachineError
from machine.model import MachineRecord

SSH_FAILED = 255  # ssh(1): its own failure, unless the remote command chose the same number

_RAW = {"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []}


@click.command(context_settings=_RAW)
@click.argument(
    "words", nargs=-1, type=click.UNPROCESSED, metavar="[NAME] [SSH OPTIONS] [--] [COMMAND...]"
)
@click.pass_context
def ssh(ctx: click.Context, words: tuple[str, ...]) -> int:
    """Log into a machine, or run a command on it. The command's exit status is kept.

    Options of ssh(1) follow the name: machine ssh web -L 8080:localhost:80
    """
    session = ctx.ensure_object(Session)
    if words[:1] and words[0] in {"-h", "-help", "--help"}:
        click.echo(ctx.get_help())
        return 0
    name = session.name_or_default(words[0] if words else None)
    record = session.store.load(name)
    rest = list(words[1:])
    if record.local:
        return process.foreground(_local_command(session, rest))
    pin_first(session, [record])
    with configured(session, [record]) as config:
        argv = ["ssh", "-F", config, name, *rest]
        session.debug(process.printable_argv(argv))
        status = process.foreground(argv)
    if status == SSH_FAILED:
        explain(session, [record])
    return status


def _local_command(session: Session, rest: list[str]) -> list[str]:
    rest = rest[1:] if rest[:1] == ["--"] else rest
    return ["sh", "-c", " ".join(rest)] if rest else [session.env.get("SHELL") or "sh"]


@contextlib.contextmanager
def configured(session: Session, records: list[MachineRecord]) -> Iterator[str]:
    """The path of a private temporary ssh_config for these machines."""
    folders = [(record, session.store.machine_dir(record.name)) for record in records]
    text = sshconfig.config(folders)
    with tempfile.TemporaryDirectory(prefix="machine-ssh-") as folder:
        path = Path(folder) / "config"
        path.write_text(text)
        yield str(path)


def pin_first(session: Session, records: list[MachineRecord]) -> None:
    """A machine that docker-machine made has no pinned key yet: OpenSSH would refuse it."""
    for record in records:
        if not session.service.hosts.known(record).pinned():
            explain(session, [record])


def explain(session: Session, records: list[MachineRecord]) -> None:
    """Why ssh gave up, when it is ours to say: a changed host key, or a host that is off.

    Raises MachineError then; returns when the connections work (the command itself said 255).
    """
    for record in records:
        with session.service.hosts.connected(record):
            pass


@click.command(cls=Command)
@click.option("-r", "--recursive", is_flag=True, help="Copy files recursively")
@click.option("-d", "--delta", is_flag=True, help="Reduce amount of data sent (uses rsync)")
@click.option("-q", "--quiet", is_flag=True, help="Disable the progress output")
@click.argument("source")
@click.argument("destination")
@click.pass_obj
def scp(
    session: Session, recursive: bool, delta: bool, quiet: bool, source: str, destination: str
) -> int:
    """Copy files between machines: [[user@]machine:]path [[user@]machine:]path."""
    places = [place(session, text) for text in (source, destination)]
    records = {record.name: record for record, _ in places if record}
    if not records:
        raise MachineError(
            "Neither path is on a machine", hint=f"Write it as MACHINE:PATH, e.g. {source!r}."
        )
    machines = list(records.values())
    pin_first(session, machines)
    with configured(session, machines) as config:
        if delta:
            shown = [] if quiet else ["--progress"]
            words = ["rsync", *shown, *(["-r"] if recursive else []), "-e", f"ssh -F {config}"]
        else:
            flags = [*(["-r"] if recursive else []), *(["-q"] if quiet else [])]
            both = ["-3"] if len([record for record, _ in places if record]) == 2 else []
            words = ["scp", "-F", config, *both, *flags]
        words += ["--", *(path for _, path in places)]
        session.debug(process.printable_argv(words))
        status = process.foreground(words)
    if status == SSH_FAILED:
        explain(session, machines)
    return status


def place(session: Session, text: str) -> tuple[MachineRecord | None, str]:
    """(the machine or None for this computer, the path as scp takes it)."""
    head, colon, path = text.partition(":")
    user, at, name = head.rpartition("@")
    if not colon or "/" in head or (len(head) == 1 and path.startswith("\\")):
        plain = not colon or "/" in head or sys.platform == "win32"
        return None, text if plain else f"./{text}"  # scp elsewhere would look for a host C
    if name == "localhost":
        return None, path
    record = session.store.load(name)
    if record.local:
        return None, path
    return record, f"{user}{at}{name}:{path}"
