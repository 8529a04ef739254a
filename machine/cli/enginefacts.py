"""`docker version` and `docker info`: what the engine says of itself, as docker prints it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import click

from machine.cli.grammar import DockerCommand
from machine.cli.output import formatted
from machine.cli.root import program_version
from machine.cli.session import Session
from machine.cli.target import engine
from machine.engine import API_VERSION
from machine.errors import printable

Document = Mapping[str, object]

# docker's word -> the field of /info
_HOST = (
    ("Kernel Version", "KernelVersion"),
    ("Operating System", "OperatingSystem"),
    ("OSType", "OSType"),
    ("Architecture", "Architecture"),
    ("CPUs", "NCPU"),
    ("Total Memory", "MemTotal"),
    ("Name", "Name"),
    ("ID", "ID"),
    ("Docker Root Dir", "DockerRootDir"),
    ("Experimental", "ExperimentalBuild"),
    ("Live Restore Enabled", "LiveRestoreEnabled"),
)
_ENGINE = (
    ("Server Version", "ServerVersion"),
    ("Storage Driver", "Driver"),
    ("Logging Driver", "LoggingDriver"),
    ("Cgroup Driver", "CgroupDriver"),
    ("Cgroup Version", "CgroupVersion"),
    ("Default Runtime", "DefaultRuntime"),
)


@click.command(cls=DockerCommand)
@click.option("-f", "--format", "template", default="", help="Format output using a Go template")
@click.pass_obj
def version(session: Session, template: str) -> None:
    """Show the engine's version information."""
    server = engine(session).get("/version")
    client = {"Version": program_version(), "ApiVersion": API_VERSION}
    if template or not isinstance(server, dict):
        formatted(session, [{"Client": client, "Server": server}], template)
        return
    session.say("\n".join([*_client(session.program, client), "", *_server(server)]))


def _client(program: str, client: Mapping[str, str]) -> Iterator[str]:
    yield f"Client: {program}"
    yield _row("Version", client["Version"])
    yield _row("API version", client["ApiVersion"])


def _server(server: Document) -> Iterator[str]:
    platform = server.get("Platform")
    name = platform.get("Name") if isinstance(platform, dict) else ""
    yield f"Server: {printable(str(name or 'engine'))}"
    yield " Engine:"
    yield _row("Version", server.get("Version"), 2)
    least = server.get("MinAPIVersion")
    yield _row("API version", f"{server.get('ApiVersion')} (minimum version {least})", 2)
    yield _row("OS/Arch", f"{server.get('Os')}/{server.get('Arch')}", 2)
    parts = server.get("Components")
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict) and part.get("Name") != "Engine":
            yield f" {printable(str(part.get('Name')))}:"
            yield _row("Version", part.get("Version"), 2)


def _row(word: str, value: object, depth: int = 1) -> str:
    return f"{' ' * depth}{word + ':':<18}{printable(str(value))}"


@click.command(cls=DockerCommand)
@click.option("-f", "--format", "template", default="", help="Format output using a Go template")
@click.pass_obj
def info(session: Session, template: str) -> None:
    """Display engine-wide information."""
    found = engine(session).get("/info")
    if template or not isinstance(found, dict):
        formatted(session, [found], template)
        return
    session.say("\n".join(["Server:", *_info(found)]))


def _info(found: Document) -> Iterator[str]:
    yield f" Containers: {found.get('Containers')}"
    for word in ("Running", "Paused", "Stopped"):
        yield f"  {word}: {found.get(f'Containers{word}')}"
    yield f" Images: {found.get('Images')}"
    for word, field in (*_ENGINE, *_HOST):
        yield f" {word}: {_shown(field, found.get(field))}"
    for word, values in (("Labels", found.get("Labels")), ("Registry Mirrors", _mirrors(found))):
        if isinstance(values, list) and values:
            yield f" {word}:"
            yield from (f"  {printable(str(value))}" for value in values)


def _mirrors(found: Document) -> object:
    registry = found.get("RegistryConfig")
    return registry.get("Mirrors") if isinstance(registry, dict) else None


def _shown(field: str, value: object) -> str:
    if field == "MemTotal" and isinstance(value, int):
        return f"{value / (1 << 30):.4g}GiB"
    if isinstance(value, bool):
        return str(value).lower()
    return printable(str(value))
