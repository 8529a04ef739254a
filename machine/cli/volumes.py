"""Volume and network commands under `docker`."""

from __future__ import annotations

import click

from machine.cli.grammar import DockerCommand
from machine.cli.images import filter_map
from machine.cli.output import formatted, show_rows
from machine.cli.session import Session
from machine.cli.target import engine
from machine.errors import MachineError
from machine.runspec import pairs


@click.command(cls=DockerCommand)
@click.option("-q", "--quiet", is_flag=True, help="Only display volume names")
@click.option("-f", "--filter", "filters", multiple=True, help="Filter output")
@click.option("--format", "template", default="", help="Format output using a Go template")
@click.pass_obj
def volume_ls(session: Session, quiet: bool, filters: tuple[str, ...], template: str) -> None:
    """List volumes."""
    found = engine(session).get("/volumes", filters=filter_map(filters))
    listed = (found.get("Volumes") or []) if isinstance(found, dict) else []
    rows = [{"Driver": str(v["Driver"]), "Name": str(v["Name"])} for v in listed]
    if quiet:
        for row in rows:
            session.say(row["Name"])
        return
    show_rows(session, rows, ["Driver", "Name"], {"Name": "VOLUME NAME"}, template)


@click.command(cls=DockerCommand)
@click.option("-d", "--driver", default="local", help="Specify volume driver name")
@click.option("--label", multiple=True, help="Set metadata for a volume")
@click.option("-o", "--opt", multiple=True, help="Set driver specific options")
@click.argument("name", default="")
@click.pass_obj
def volume_create(
    session: Session, driver: str, label: tuple[str, ...], opt: tuple[str, ...], name: str
) -> None:
    """Create a volume."""
    body = {"Name": name, "Driver": driver, "Labels": pairs(label), "DriverOpts": pairs(opt)}
    answer = engine(session).post("/volumes/create", body)
    session.say(str(answer["Name"]) if isinstance(answer, dict) else "")


@click.command(cls=DockerCommand)
@click.option("-f", "--force", is_flag=True, help="Force the removal of one or more volumes")
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def volume_rm(session: Session, force: bool, names: tuple[str, ...]) -> int:
    """Remove one or more volumes."""
    client = engine(session)
    failed = 0
    for name in names:
        try:
            client.delete(f"/volumes/{name}", force=force)
            session.say(name)
        except MachineError as error:
            session.warn(error.brief)
            failed = 1
    return failed


@click.command(cls=DockerCommand)
@click.option("-f", "--format", "template", default="", help="Format output using a Go template")
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def volume_inspect(session: Session, template: str, names: tuple[str, ...]) -> None:
    """Display detailed information on one or more volumes."""
    client = engine(session)
    formatted(session, [client.get(f"/volumes/{name}") for name in names], template)


@click.command(cls=DockerCommand)
@click.option("-q", "--quiet", is_flag=True, help="Only display network IDs")
@click.option("-f", "--filter", "filters", multiple=True, help="Provide filter values")
@click.option("--format", "template", default="", help="Format output using a Go template")
@click.pass_obj
def network_ls(session: Session, quiet: bool, filters: tuple[str, ...], template: str) -> None:
    """List networks."""
    found = engine(session).get("/networks", filters=filter_map(filters))
    rows = [
        {"ID": str(n["Id"])[:12], **{word: str(n[word]) for word in ("Name", "Driver", "Scope")}}
        for n in (found if isinstance(found, list) else [])
    ]
    if quiet:
        for row in rows:
            session.say(row["ID"])
        return
    show_rows(session, rows, ["ID", "Name", "Driver", "Scope"], {"ID": "NETWORK ID"}, template)


@click.command(cls=DockerCommand)
@click.option("-f", "--format", "template", default="", help="Format output using a Go template")
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def network_inspect(session: Session, template: str, names: tuple[str, ...]) -> None:
    """Display detailed information on one or more networks."""
    client = engine(session)
    formatted(session, [client.get(f"/networks/{name}") for name in names], template)


@click.command(cls=DockerCommand)
@click.option("-d", "--driver", default="bridge", help="Driver to manage the network")
@click.option("--subnet", default="", help="Subnet in CIDR format")
@click.option("--gateway", default="", help="IPv4 or IPv6 gateway for the subnet")
@click.option("--ip-range", default="", help="Allocate container ip from a sub-range")
@click.option("--internal", is_flag=True, help="Restrict external access to the network")
@click.option("--ipv6", is_flag=True, help="Enable IPv6 networking")
@click.option("--label", multiple=True, help="Set metadata on a network")
@click.option("-o", "--opt", multiple=True, help="Set driver specific options")
@click.argument("name")
@click.pass_obj
def network_create(
    session: Session,
    driver: str,
    subnet: str,
    gateway: str,
    ip_range: str,
    internal: bool,
    ipv6: bool,
    label: tuple[str, ...],
    opt: tuple[str, ...],
    name: str,
) -> None:
    """Create a network."""
    pool = {"Subnet": subnet, "Gateway": gateway, "IPRange": ip_range}
    given = {key: value for key, value in pool.items() if value}
    body = {
        "Name": name,
        "Driver": driver,
        "Internal": internal,
        "EnableIPv6": ipv6,
        "Labels": pairs(label),
        "Options": pairs(opt),
        "IPAM": {"Config": [given]} if given else {},
    }
    answer = engine(session).post("/networks/create", body)
    session.say(str(answer["Id"]) if isinstance(answer, dict) else "")


@click.command(cls=DockerCommand)
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def network_rm(session: Session, names: tuple[str, ...]) -> int:
    """Remove one or more networks."""
    client = engine(session)
    failed = 0
    for name in names:
        try:
            client.delete(f"/networks/{name}")
            session.say(name)
        except MachineError as error:
            session.warn(error.brief)
            failed = 1
    return failed


@click.command(cls=DockerCommand)
@click.option("--alias", multiple=True, help="Add network-scoped alias for the container")
@click.option("--ip", default="", help="IPv4 address")
@click.argument("network")
@click.argument("container")
@click.pass_obj
def network_connect(
    session: Session, alias: tuple[str, ...], ip: str, network: str, container: str
) -> None:
    """Connect a container to a network."""
    config: dict[str, object] = {"Aliases": list(alias)} if alias else {}
    if ip:
        config["IPAMConfig"] = {"IPv4Address": ip}
    body = {"Container": container, "EndpointConfig": config}
    engine(session).post(f"/networks/{network}/connect", body)


@click.command(cls=DockerCommand)
@click.option("-f", "--force", is_flag=True, help="Force the container to disconnect")
@click.argument("network")
@click.argument("container")
@click.pass_obj
def network_disconnect(session: Session, force: bool, network: str, container: str) -> None:
    """Disconnect a container from a network."""
    body = {"Container": container, "Force": force}
    engine(session).post(f"/networks/{network}/disconnect", body)
