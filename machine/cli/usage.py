"""What containers use, and clearing up: stats, top, update, container and volume prune."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import cast

import click

from machine.cli.grammar import DockerCommand
from machine.cli.images import filter_map
from machine.cli.output import show_rows
from machine.cli.session import Session
from machine.cli.target import engine
from machine.engine import Engine, EngineApiError
from machine.errors import MachineError, printable
from machine.tables import human_size, table

_COLUMNS = ["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"]
_HEADERS = {
    "ID": "CONTAINER ID",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
}
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
Document = dict[str, object]


@click.command(cls=DockerCommand)
@click.option("-a", "--all", "all_", is_flag=True, help="Show all containers, not only running")
@click.option("--no-stream", is_flag=True, help="Only pull the first result")
@click.option("--no-trunc", is_flag=True, help="Do not truncate output")
@click.option("--format", "template", default="", help="Format output using a Go template")
@click.argument("names", nargs=-1)
@click.pass_obj
def stats(
    session: Session,
    all_: bool,
    no_stream: bool,
    no_trunc: bool,
    template: str,
    names: tuple[str, ...],
) -> None:
    """Display a live stream of container(s) resource usage statistics."""
    client = engine(session)
    while True:
        chosen = names or _listed(client, everything=all_)
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(lambda name: _sample(client, name), chosen))
        rows = [_row(one, no_trunc=no_trunc) for one in found if one is not None]
        if names and not rows:
            raise MachineError(f"No such container: {printable(names[0])}")
        if session.stdout.isatty() and not no_stream:
            print("\033[H\033[J", end="", file=session.stdout)
        show_rows(session, rows, _COLUMNS, _HEADERS, template)
        if no_stream:
            return


def _listed(client: Engine, *, everything: bool) -> list[str]:
    found = client.get("/containers/json", all=everything)
    return [str(one["Id"]) for one in cast("list[Document]", found)]


def _sample(client: Engine, name: str) -> Document | None:
    """A sample and the one a second before it; None when the container has gone."""
    try:
        return cast("Document", client.get(f"/containers/{name}/stats", stream="false"))
    except EngineApiError as error:
        if error.status == 404:
            return None
        raise


def _at(document: object, *path: str) -> float:
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    return float(document) if isinstance(document, int | float) else 0.0


def _row(one: Document, *, no_trunc: bool) -> dict[str, str]:
    used, limit = _memory(one), _at(one, "memory_stats", "limit")
    read, written = _blocks(one)
    networks = one.get("networks")
    cards = list(networks.values()) if isinstance(networks, dict) else []
    received = sum(_at(card, "rx_bytes") for card in cards)
    sent = sum(_at(card, "tx_bytes") for card in cards)
    identity = str(one.get("id", ""))
    return {
        "ID": identity if no_trunc else identity[:12],
        "Container": identity[:12],
        "Name": str(one.get("name", "")).removeprefix("/"),
        "CPUPerc": f"{_cpu(one):.2f}%",
        "MemUsage": f"{_binary(used)} / {_binary(limit)}",
        "MemPerc": f"{used / limit * 100 if limit else 0:.2f}%",
        "NetIO": f"{human_size(received)} / {human_size(sent)}",
        "BlockIO": f"{human_size(read)} / {human_size(written)}",
        "PIDs": str(int(_at(one, "pids_stats", "current"))),
    }


def _cpu(one: Document) -> float:
    """Percent of one processor, between the two samples."""
    spent = _at(one, "cpu_stats", "cpu_usage", "total_usage")
    spent -= _at(one, "precpu_stats", "cpu_usage", "total_usage")
    system = _at(one, "cpu_stats", "system_cpu_usage")
    system -= _at(one, "precpu_stats", "system_cpu_usage")
    return spent / system * _at(one, "cpu_stats", "online_cpus") * 100 if system > 0 else 0.0


def _memory(one: Document) -> float:
    """Without the page cache that can be given back, as docker counts."""
    used = _at(one, "memory_stats", "usage")
    for name in ("total_inactive_file", "inactive_file"):
        cache = _at(one, "memory_stats", "stats", name)
        if 0 < cache < used:
            return used - cache
    return used


def _blocks(one: Document) -> tuple[float, float]:
    block = one.get("blkio_stats")
    rows = block.get("io_service_bytes_recursive") if isinstance(block, dict) else None
    found = {"read": 0.0, "write": 0.0}
    for row in rows or ():
        word = str(row["op"]).lower()
        if word in found:
            found[word] += _at(row, "value")
    return found["read"], found["write"]


def _binary(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g}{unit}"
        size /= 1024
    return f"{size:.4g}TiB"


@click.command(cls=DockerCommand, context_settings={"ignore_unknown_options": True})
@click.argument("container")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def top(session: Session, container: str, options: tuple[str, ...]) -> None:
    """Display the running processes of a container."""
    query = {"ps_args": " ".join(options)} if options else {}
    found = cast("Document", engine(session).get(f"/containers/{container}/top", **query))
    rows = cast("list[list[str]]", found["Processes"])
    titles = cast("list[str]", found["Titles"])
    session.say(table(titles, [[printable(cell) for cell in row] for row in rows]))


def _bytes(text: str) -> int:
    unit = text[-1:].lower() if not text[-1:].isdigit() else ""
    number = text[:-1] if unit else text
    try:
        return int(float(number) * _UNITS[unit])
    except (ValueError, KeyError) as error:
        raise MachineError(f"invalid size: '{text}'") from error


@click.command(cls=DockerCommand)
@click.option("-m", "--memory", default="", help="Memory limit")
@click.option("--memory-swap", default="", help="Memory and swap; -1: unlimited swap")
@click.option("--memory-reservation", default="", help="Memory soft limit")
@click.option("--cpus", type=float, default=0.0, help="Number of CPUs")
@click.option("-c", "--cpu-shares", type=int, default=0, help="CPU shares (relative weight)")
@click.option("--cpuset-cpus", default="", help="CPUs in which to allow execution (0-3, 0,1)")
@click.option("--pids-limit", type=int, default=0, help="Tune container pids limit")
@click.option("--restart", default="", help="Restart policy when a container exits")
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def update(session: Session, /, names: tuple[str, ...], **given: object) -> None:
    """Update configuration of one or more containers."""
    sizes = {"memory": "Memory", "memory_swap": "MemorySwap"}
    sizes["memory_reservation"] = "MemoryReservation"
    body: Document = {}
    for option, field in sizes.items():
        text = str(given[option])
        if text:
            body[field] = -1 if text == "-1" else _bytes(text)
    plain = {"cpu_shares": "CpuShares", "cpuset_cpus": "CpusetCpus", "pids_limit": "PidsLimit"}
    body |= {field: given[option] for option, field in plain.items() if given[option]}
    if given["cpus"]:
        body["NanoCpus"] = int(cast("float", given["cpus"]) * 1_000_000_000)
    if given["restart"]:
        name, _, count = str(given["restart"]).partition(":")
        body["RestartPolicy"] = {"Name": name, "MaximumRetryCount": int(count or 0)}
    if not body:
        raise MachineError("you must provide one or more flags when using this command")
    client = engine(session)
    for name in names:
        answer = cast("Document", client.post(f"/containers/{name}/update", body))
        session.say(name)
        for warning in cast("list[str]", answer.get("Warnings") or []):
            session.warn(warning)


def _prune(session: Session, what: str, key: str, query: dict[str, object]) -> None:
    found = cast("Document", engine(session).post(f"/{what}/prune", **query))
    removed = cast("list[str]", found.get(key) or [])
    if removed:
        session.say(f"Deleted {what.capitalize()}:")
        session.say("\n".join(removed) + "\n")
    session.say(f"Total reclaimed space: {human_size(_at(found, 'SpaceReclaimed'))}")


@click.command(cls=DockerCommand)
@click.option("-f", "--force", is_flag=True, help="Do not prompt for confirmation")
@click.option("--filter", "filters", multiple=True, help="Provide filter values")
@click.pass_obj
def container_prune(session: Session, force: bool, filters: tuple[str, ...]) -> None:
    """Remove all stopped containers."""
    if force or session.confirm("WARNING! This will remove all stopped containers. Continue?"):
        query: dict[str, object] = {"filters": filter_map(filters)}
        _prune(session, "containers", "ContainersDeleted", query)


@click.command(cls=DockerCommand)
@click.option("-a", "--all", "all_", is_flag=True, help="Remove all unused volumes")
@click.option("-f", "--force", is_flag=True, help="Do not prompt for confirmation")
@click.option("--filter", "filters", multiple=True, help="Provide filter values")
@click.pass_obj
def volume_prune(session: Session, all_: bool, force: bool, filters: tuple[str, ...]) -> None:
    """Remove unused local volumes."""
    which = "all local" if all_ else "anonymous local"
    question = f"WARNING! This will remove {which} volumes not used by a container. Continue?"
    if force or session.confirm(question):
        wanted = filter_map((*filters, *(("all=true",) if all_ else ())))
        _prune(session, "volumes", "VolumesDeleted", {"filters": wanted})
