"""The top of the command tree: the flags that stand before the command (reference 1.0)."""

from __future__ import annotations

import importlib.metadata

import click

from machine.cli.grammar import LazyGroup
from machine.cli.session import Globals, Session


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"{ctx.info_name} version {program_version()}, build release")
        ctx.exit()


def program_version() -> str:
    """The installed version; "dev" when run from a source tree that is not installed."""
    try:
        return importlib.metadata.version("machine")
    except importlib.metadata.PackageNotFoundError:
        return "dev"


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
)
@click.option("--debug", "-D", is_flag=True, envvar="MACHINE_DEBUG", help="Enable debug mode")
@click.option(
    "--storage-path",
    "-s",
    envvar="MACHINE_STORAGE_PATH",
    help="Configures storage path [default: ~/.docker/machine]",
)
@click.option("--machine", "-m", metavar="NAME", help="Machine for container commands")
@click.option("--tls-ca-cert", envvar="MACHINE_TLS_CA_CERT", help="CA to verify remotes against")
@click.option(
    "--tls-ca-key", envvar="MACHINE_TLS_CA_KEY", help="Private key to generate certificates"
)
@click.option(
    "--tls-client-cert", envvar="MACHINE_TLS_CLIENT_CERT", help="Client cert to use for TLS"
)
@click.option(
    "--tls-client-key", envvar="MACHINE_TLS_CLIENT_KEY", help="Private key used in client TLS auth"
)
@click.option("--fix-perms", is_flag=True, help="Make the store private again, then go on")
@click.option("--github-api-token", envvar="MACHINE_GITHUB_API_TOKEN", hidden=True)
@click.option("--native-ssh", envvar="MACHINE_NATIVE_SSH", is_flag=True, hidden=True)
@click.option("--bugsnag-api-token", envvar="MACHINE_BUGSNAG_API_TOKEN", hidden=True)
@click.option(
    "--version",
    "-v",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version",
)
@click.pass_context
def root(ctx: click.Context, /, **flags: object) -> int | None:
    """Turn any Linux host into a container host, and point every container client at it."""
    session = ctx.ensure_object(Session)
    session.flags = Globals(
        storage_path=_text(flags, "storage_path") or None,
        machine=_text(flags, "machine"),
        debug=bool(flags["debug"]),
        fix_perms=bool(flags["fix_perms"]),
        tls_ca_cert=_text(flags, "tls_ca_cert"),
        tls_ca_key=_text(flags, "tls_ca_key"),
        tls_client_cert=_text(flags, "tls_client_cert"),
        tls_client_key=_text(flags, "tls_client_key"),
    )
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
    return None


def _text(flags: dict[str, object], key: str) -> str:
    value = flags[key]
    return value if isinstance(value, str) else ""
