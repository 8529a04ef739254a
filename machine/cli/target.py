"""Which engine a container command speaks to: -m NAME, else the environment, else `default`."""

from __future__ import annotations

from pathlib import Path

from machine.cli.session import Session
from machine.config import DEFAULT_MACHINE
from machine.engine import Engine, Target
from machine.errors import MachineError


def engine(session: Session) -> Engine:
    """Raises MachineError when nothing says which machine is meant."""
    return Engine(target(session))


def target(session: Session) -> Target:
    """The target of -m NAME, of DOCKER_HOST, or of the machine called `default`."""
    if session.flags.machine:
        return _of_machine(session, session.flags.machine)
    url = session.env.get("DOCKER_HOST", "")
    if url:
        certs = session.env.get("DOCKER_CERT_PATH", "")
        name = session.env.get("DOCKER_MACHINE_NAME", "")
        return Target(url, Path(certs) if certs else None, name)
    if session.store.exists(DEFAULT_MACHINE):
        return _of_machine(session, DEFAULT_MACHINE)
    raise MachineError(
        "No machine is selected",
        details="DOCKER_HOST is not set, and there is no machine called default.",
        hint=f'Run: eval "$({session.program} env NAME)"  or: {session.program} -m NAME ...',
    )


def _of_machine(session: Session, name: str) -> Target:
    record = session.store.load(name)
    if not record.url:
        raise MachineError(
            f'Machine "{name}" has no address yet',
            hint=f"Run `{session.program} create` again to finish it, or `{session.program} rm`.",
        )
    return Target(record.url, session.store.machine_dir(name), name)
