"""`env` and `config`: how to reach a machine's engine."""

from __future__ import annotations

import json
import shlex
import sys

import click

from machine import shellenv
from machine.cli.grammar import Command
from machine.cli.session import Session
from machine.errors import MachineError
from machine.model import MachineRecord, Phase


@click.command(cls=Command)
@click.option("--shell", "shell", default="", help="Force environment to be configured for a shell")
@click.option("-u", "--unset", is_flag=True, help="Unset variables instead of setting them")
@click.option("--no-proxy", is_flag=True, help="Add machine IP to NO_PROXY environment variable")
@click.option("--swarm", is_flag=True, hidden=True)
@click.argument("names", nargs=-1, metavar="[NAME]")
@click.pass_obj
def env(
    session: Session, shell: str, unset: bool, no_proxy: bool, swarm: bool, names: tuple[str, ...]
) -> None:
    """Display the commands to set up the environment for the Docker client."""
    chosen = shell or shellenv.detect(session.env, windows=sys.platform == "win32")
    command = _own_command(session, shell, names, unset=unset, no_proxy=no_proxy)
    if unset:
        if names:
            raise MachineError("Error: Expected no machine name when the -u flag is present")
        proxy = [shellenv.no_proxy(session.env, "")[0]] if no_proxy else []
        say = shellenv.script(chosen, {}, unset=(*shellenv.UNSET, *proxy), command=command)
        session.say(say)
        return
    _refuse_swarm(swarm=swarm)
    record = _checked(session, names)
    values = {
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_HOST": record.url,
        "DOCKER_CERT_PATH": str(session.store.machine_dir(record.name)),
        "DOCKER_MACHINE_NAME": record.name,
    }
    if sys.platform == "win32":
        values["COMPOSE_CONVERT_WINDOWS_PATHS"] = "true"
    if no_proxy:
        values |= [shellenv.no_proxy(session.env, record.address)]
    session.say(shellenv.script(chosen, values, command=command))


def _own_command(
    session: Session, shell: str, names: tuple[str, ...], *, unset: bool, no_proxy: bool
) -> str:
    words = [*session.own_command, "env"]
    words += ["-u"] if unset else []
    words += ["--no-proxy"] if no_proxy else []
    words += ["--shell", shell] if shell else []
    return shlex.join([*words, *names])


def _refuse_swarm(*, swarm: bool) -> None:
    if swarm:
        raise MachineError(
            "Classic Swarm is not served", details="It was retired by Docker in 2018."
        )


def _checked(session: Session, names: tuple[str, ...]) -> MachineRecord:
    """The machine, after its engine answered over the TLS connection that is being exported."""
    if len(names) > 1:
        raise MachineError("Error: Expected one machine name as an argument")
    record = session.store.load(session.name_or_default(names[0] if names else None))
    if not record.url or record.phase is Phase.CREATING:
        raise MachineError(
            f'Machine "{record.name}" was not created to its end',
            hint=f"Run `{session.program} create` with the same arguments to finish it.",
        )
    from machine.engine import Engine, Target  # h11, which env -u has no need of

    target = Target(record.url, session.store.machine_dir(record.name), record.name)
    Engine(target).call("GET", "/_ping").close()
    return record


@click.command(cls=Command)
@click.option("--swarm", is_flag=True, hidden=True)
@click.argument("names", nargs=-1, metavar="[NAME]")
@click.pass_obj
def config(session: Session, swarm: bool, names: tuple[str, ...]) -> None:
    """Print the connection config for machine."""
    _refuse_swarm(swarm=swarm)
    record = _checked(session, names)
    folder = session.store.machine_dir(record.name)
    session.say("--tlsverify")
    for flag, name in (("tlscacert", "ca.pem"), ("tlscert", "cert.pem"), ("tlskey", "key.pem")):
        session.say(f"--{flag}={json.dumps(str(folder / name), ensure_ascii=False)}")
    session.say(f"-H={record.url}")
