"""`create`: the shared flags, and those of the driver that the command line names (reference 1.2)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, Final

import click

from drivers import options as driver_options
from drivers import registry
from drivers.errors import DriverError
from drivers.options import Kind, OptionSpec, Value
from machine.cli.grammar import Command
from machine.cli.session import Session
from machine.errors import MachineError
from machine.model import AuthFiles, EngineOptions

_SWARM: Final = (
    ("--swarm", True),
    ("--swarm-image", False),
    ("--swarm-master", True),
    ("--swarm-discovery", False),
    ("--swarm-strategy", False),
    ("--swarm-opt", False),
    ("--swarm-join-opt", False),
    ("--swarm-host", False),
    ("--swarm-addr", False),
    ("--swarm-experimental", True),
)


def _shared() -> list[click.Parameter]:
    def text(flag: str, help_text: str, env: str | None = None) -> click.Option:
        return click.Option([flag], help=help_text, envvar=env, default="")

    def many(flag: str, help_text: str) -> click.Option:
        return click.Option([flag], help=help_text, multiple=True)

    return [
        click.Option(["--driver", "-d"], help="Driver to create machine with", default=""),
        many(
            "--engine-opt",
            "Specify arbitrary flags to include with the created engine (flag=value)",
        ),
        many(
            "--engine-insecure-registry",
            "Specify insecure registries to allow with the created engine",
        ),
        many(
            "--engine-registry-mirror",
            "Specify registry mirrors to use [env ENGINE_REGISTRY_MIRROR]",
        ),
        many("--engine-label", "Specify labels for the created engine"),
        text("--engine-storage-driver", "Specify a storage driver to use with the engine"),
        many("--engine-env", "Specify environment variables to set in the engine"),
        text(
            "--engine-install-url",
            "Accepted and not used: the engine comes from this computer",
            "MACHINE_DOCKER_INSTALL_URL",
        ),
        many("--tls-san", "Support extra SANs for TLS certs"),
        click.Option(
            ["--take-over"], is_flag=True, help="Make a host that is another store's machine yours"
        ),
        click.Option(
            ["--allow-imds"],
            is_flag=True,
            help="Let containers reach the cloud's metadata service (the host's credentials)",
        ),
        *(
            click.Option([flag], is_flag=is_flag, hidden=True, multiple=not is_flag)
            for flag, is_flag in _SWARM
        ),
        click.Argument(["names"], nargs=-1, metavar="NAME"),
    ]


class CreateCommand(Command):
    """Its options depend on the driver, which is looked for in the raw arguments first."""

    def shared(self) -> list[click.Parameter]:
        """The parameters that do not depend on the driver."""
        return _shared()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        session = ctx.find_object(Session)
        env = session.env if session else {}
        driver = wanted_driver(args, env)
        try:
            plugins = session.plugins if session else None
            loaded = registry.load(driver, plugins)
        except DriverError as err:
            raise MachineError(err.message, hint=err.hint) from err
        ctx.meta["machine.driver"] = driver
        ctx.meta["machine.loaded"] = loaded
        ctx.meta["machine.specs"] = loaded.options
        self.params = [*self.shared(), *(_option(spec) for spec in loaded.options)]
        return super().parse_args(ctx, args)


def wanted_driver(args: list[str], env: Mapping[str, str]) -> str:
    """The value of the last -d/--driver in its spellings, else the default driver."""
    found = ""
    for index, arg in enumerate(args):
        name, has_value, value = arg.partition("=")
        if arg == "--":
            break
        if name in {"-d", "--driver", "-driver"}:
            found = value if has_value else (args[index + 1] if index + 1 < len(args) else "")
    return found or registry.default_name(env)


def _option(spec: OptionSpec) -> click.Option:
    """Values stay text here; drivers.options parses them, with one message for all."""
    env = f" [env {', '.join(spec.env)}]" if spec.env else ""
    default = ",".join(spec.default) if isinstance(spec.default, tuple) else spec.default
    shown = f" [default: {default}]" if spec.default not in {"", False, ()} else ""
    flags = [*spec.flags, _parameter(spec)]
    if spec.kind is Kind.FLAG:
        return click.Option(flags, is_flag=True, default=None, help=spec.help + env)
    return click.Option(flags, multiple=spec.kind is Kind.LIST, help=spec.help + env + shown)


def _parameter(spec: OptionSpec) -> str:
    return "driver_" + spec.name.replace("-", "_")


@click.command(
    cls=CreateCommand,
    short_help="Create a machine",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.pass_context
def create(ctx: click.Context, /, **given: Any) -> None:
    """Create a machine.

    Run `create -d DRIVER --help` for the options of that driver.
    """
    session = ctx.find_object(Session)
    if session is None:
        raise MachineError("create runs below the machine command only")
    name = _name(ctx, given["names"])
    _refuse_swarm(given)
    values = option_values(ctx, given, session.env)
    from machine.service import CreateRequest

    own = shlex.join(session.own_command)
    session.resume_hint = (
        f'Run the same command again to go on, or "{own} rm {name}" to leave nothing.'
    )
    driver = ctx.meta["machine.driver"]
    request = CreateRequest(
        name, driver, values, _engine(given, session), _auth(given, session), given["take_over"]
    )
    session.service.create(request)
    session.close()
    session.say("Docker is up and running!")
    session.say(
        "To see how to connect your Docker Client to the Docker Engine running on this virtual "
        f"machine, run: {own} env {name}"
    )


def option_values(
    ctx: click.Context, given: Mapping[str, Any], env: Mapping[str, str]
) -> dict[str, Value]:
    """The driver's options of this command line. Raises MachineError that names all wrong ones."""
    specs: tuple[OptionSpec, ...] = ctx.meta["machine.specs"]
    try:
        return driver_options.resolve(
            specs, {spec.name: given[_parameter(spec)] for spec in specs}, env
        )
    except DriverError as err:
        raise MachineError(
            "Error setting machine configuration from flags provided", details=err.message
        ) from err


def _name(ctx: click.Context, names: tuple[str, ...]) -> str:
    if not names:
        click.echo(ctx.get_help())
        raise MachineError("Error: No machine name specified")
    if len(names) > 1:
        raise MachineError(f"Invalid command line. Found extra arguments {list(names[1:])}")
    return names[0]


def _refuse_swarm(given: Mapping[str, Any]) -> None:
    used = [flag for flag, _ in _SWARM if given[flag[2:].replace("-", "_")]]
    if used:
        raise MachineError(
            f"{', '.join(used)}: classic Swarm is gone",
            hint="Leave the --swarm flags out; the machine is a single container host.",
        )


def _engine(given: Mapping[str, Any], session: Session) -> EngineOptions:
    mirrors = tuple(given["engine_registry_mirror"])
    if not mirrors:
        mirrors = tuple(m for m in session.env.get("ENGINE_REGISTRY_MIRROR", "").split(",") if m)
    return EngineOptions(
        labels=tuple(given["engine_label"]),
        registry_mirrors=mirrors,
        insecure_registries=tuple(given["engine_insecure_registry"]),
        storage_driver=given["engine_storage_driver"],
        opts=(*given["engine_opt"], *(["allow-imds=true"] if given["allow_imds"] else [])),
        env=tuple(given["engine_env"]),
        install_url=given["engine_install_url"],
    )


def _auth(given: Mapping[str, Any], session: Session) -> AuthFiles:
    flags = session.flags
    return AuthFiles(
        ca_cert=flags.tls_ca_cert,
        ca_key=flags.tls_ca_key,
        client_cert=flags.tls_client_cert,
        client_key=flags.tls_client_key,
        sans=tuple(given["tls_san"]),
    )
