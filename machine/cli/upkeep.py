"""What the engine keeps, and clearing it up: system df and prune, builder and network prune, commit."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import cast

import click

from machine.cli.grammar import DockerCommand
from machine.cli.images import filter_map, split_reference
from machine.cli.output import show_rows
from machine.cli.session import Session
from machine.cli.target import engine
from machine.engine import Engine
from machine.errors import MachineError
from machine.tables import age, human_size, table

_RUNNING = ("running", "paused", "restarting")
_DF_COLUMNS = ["Type", "TotalCount", "Active", "Size", "Reclaimable"]
_IMAGE_WORDS = ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE"]
_IMAGE_WORDS += ["UNIQUE SIZE", "CONTAINERS"]
_CONTAINER_WORDS = ["CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED"]
_CONTAINER_WORDS += ["STATUS", "NAMES"]
_DF_HEADERS = {"TotalCount": "TOTAL"}
Document = dict[str, object]


@click.command(cls=DockerCommand)
@click.option("-a", "--author", default="", help='Author ("John Hannibal Smith <h@a-team.com>")')
@click.option("-c", "--change", "changes", multiple=True, help="Apply Dockerfile instruction")
@click.option("-m", "--message", default="", help="Commit message")
@click.option("-p", "--pause/--no-pause", default=True, help="Pause container during commit")
@click.argument("container")
@click.argument("name", default="")
@click.pass_obj
def commit(
    session: Session,
    author: str,
    changes: tuple[str, ...],
    message: str,
    pause: bool,
    container: str,
    name: str,
) -> None:
    """Create a new image from a container's changes."""
    if "@" in name:
        raise MachineError(f"invalid reference format: {name}")
    repository, tag = split_reference(name) if name else ("", "")
    found = engine(session).post(
        "/commit",
        container=container,
        repo=repository,
        tag=tag,
        author=author,
        comment=message,
        changes=changes,
        pause="1" if pause else "0",
    )
    session.say(str(cast("Document", found)["Id"]))


# ------------------------------------------------------------------------------------ system df


@click.command(cls=DockerCommand)
@click.option("-v", "--verbose", is_flag=True, help="Show detailed information on space usage")
@click.option("--format", "template", default="", help="Format output using a Go template")
@click.pass_obj
def system_df(session: Session, verbose: bool, template: str) -> None:
    """Show docker disk usage."""
    if verbose and template:
        raise MachineError("the verbose and the format options conflict")
    found = cast("Document", engine(session).get("/system/df"))
    if verbose:
        session.say(_details(found))
        return
    rows = [_images(found), _containers(found), _volumes(found), _cache(found)]
    show_rows(session, rows, _DF_COLUMNS, _DF_HEADERS, template)


def _list(found: Document, name: str) -> list[Document]:
    value = found.get(name)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _size(one: Document, name: str) -> int:
    value = one.get(name)
    return max(0, value) if isinstance(value, int) else 0  # -1: not known


def _row(
    kind: str, total: int, active: int, size: int, spare: int, *, share: bool
) -> dict[str, str]:
    percent = f" ({100 * spare // size}%)" if share and size else ""
    return {
        "Type": kind,
        "TotalCount": str(total),
        "Active": str(active),
        "Size": _four(size),
        "Reclaimable": _four(spare) + percent,
    }


def _four(size: float) -> str:
    """Four significant digits, as docker shows what is used and reclaimed; elsewhere it is three."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{size:.4g}{unit}"
        size /= 1000
    return f"{size:.4g}PB"


def _images(found: Document) -> dict[str, str]:
    images, layers = _list(found, "Images"), _size(found, "LayersSize")
    used = [one for one in images if _size(one, "Containers")]
    own = sum(_size(one, "Size") - _size(one, "SharedSize") for one in used)
    return _row("Images", len(images), len(used), layers, max(0, layers - own), share=True)


def _containers(found: Document) -> dict[str, str]:
    every = _list(found, "Containers")
    active = [one for one in every if one.get("State") in _RUNNING]
    size = sum(_size(one, "SizeRw") for one in every)
    spare = size - sum(_size(one, "SizeRw") for one in active)
    return _row("Containers", len(every), len(active), size, spare, share=True)


def _usage(volume: Document) -> Document:
    return cast("Document", volume.get("UsageData") or {})


def _volumes(found: Document) -> dict[str, str]:
    every = _list(found, "Volumes")
    active = [one for one in every if _size(_usage(one), "RefCount")]
    size = sum(_size(_usage(one), "Size") for one in every)
    spare = size - sum(_size(_usage(one), "Size") for one in active)
    return _row("Local Volumes", len(every), len(active), size, spare, share=True)


def _cache(found: Document) -> dict[str, str]:
    every = _list(found, "BuildCache")
    active = [one for one in every if one.get("InUse")]
    size = sum(_size(one, "Size") for one in every if not one.get("Shared"))
    spare = sum(_size(one, "Size") for one in every if not one.get("Shared") and one not in active)
    return _row("Build Cache", len(every), len(active), size, spare, share=False)


def _details(found: Document) -> str:
    """Docker's three tables; its fourth, of BuildKit's cache, has no rows here."""
    parts = [
        "Images space usage:\n",
        table(
            _IMAGE_WORDS,
            [row for one in _list(found, "Images") for row in _image_rows(one)],
        ),
        "\nContainers space usage:\n",
        table(
            _CONTAINER_WORDS,
            [_container_row(one) for one in _list(found, "Containers")],
        ),
        "\nLocal Volumes space usage:\n",
        table(
            ["VOLUME NAME", "LINKS", "SIZE"],
            [_volume_row(one) for one in _list(found, "Volumes")],
        ),
    ]
    return "\n".join(parts)


def _volume_row(one: Document) -> list[str]:
    usage = _usage(one)
    return [str(one["Name"]), str(_size(usage, "RefCount")), human_size(_size(usage, "Size"))]


def _image_rows(one: Document) -> list[list[str]]:
    size, shared = _size(one, "Size"), _size(one, "SharedSize")
    tags = one.get("RepoTags")
    rest = [
        str(one["Id"]).removeprefix("sha256:")[:12],
        f"{age(time.time() - _size(one, 'Created'))} ago",
        human_size(size),
        human_size(shared),
        human_size(size - shared),
        str(_size(one, "Containers")),
    ]
    names = [str(tag) for tag in tags] if isinstance(tags, list) and tags else ["<none>:<none>"]
    return [[*name.rpartition(":")[::2], *rest] for name in names]


def _container_row(one: Document) -> list[str]:
    mounts = _list(one, "Mounts")
    names = one.get("Names")
    return [
        str(one["Id"])[:12],
        str(one.get("Image", "")),
        f'"{str(one.get("Command", ""))[:19]}"',
        str(sum(mount.get("Type") == "volume" for mount in mounts)),
        human_size(_size(one, "SizeRw")),
        f"{age(time.time() - _size(one, 'Created'))} ago",
        str(one.get("Status", "")),
        ",".join(str(name)[1:] for name in names) if isinstance(names, list) else "",
    ]


# ---------------------------------------------------------------------------------------- prune


@click.command(cls=DockerCommand)
@click.option("-a", "--all", "everything", is_flag=True, help="Remove all build cache")
@click.option("-f", "--force", is_flag=True, help="Do not prompt for confirmation")
@click.pass_obj
def builder_prune(session: Session, everything: bool, force: bool) -> None:
    """Remove build cache."""
    which = "all build cache" if everything else "all dangling build cache"
    if force or _sure(session, f"WARNING! This will remove {which}."):
        reclaimed = _prune_builds(session, engine(session), everything=everything)
        session.say(f"Total reclaimed space: {_four(reclaimed)}")


@click.command(cls=DockerCommand)
@click.option("-f", "--force", is_flag=True, help="Do not prompt for confirmation")
@click.option("--filter", "filters", multiple=True, help='Provide filter values ("until=24h")')
@click.pass_obj
def network_prune(session: Session, force: bool, filters: tuple[str, ...]) -> None:
    """Remove all unused networks."""
    question = "WARNING! This will remove all custom networks not used by at least one container."
    if force or _sure(session, question):
        _prune(session, engine(session), "networks", filter_map(filters))


@click.command(cls=DockerCommand)
@click.option("-a", "--all", "everything", is_flag=True, help="Remove all unused images")
@click.option("--volumes", is_flag=True, help="Prune anonymous volumes")
@click.option("-f", "--force", is_flag=True, help="Do not prompt for confirmation")
@click.option("--filter", "filters", multiple=True, help='Provide filter values ("label=KEY")')
@click.pass_obj
def system_prune(
    session: Session, everything: bool, volumes: bool, force: bool, filters: tuple[str, ...]
) -> None:
    """Remove unused data."""
    if volumes and any(word.startswith("until") for word in filters):
        raise MachineError('the "until" filter is not supported with "--volumes"')
    if not force and not _sure(session, _warning(everything=everything, volumes=volumes)):
        return
    client, wanted = engine(session), filter_map(filters)
    total = _prune(session, client, "containers", wanted)
    total += _prune(session, client, "networks", wanted)
    if volumes:
        total += _prune(session, client, "volumes", wanted)
    chosen = filter_map((*filters, f"dangling={'false' if everything else 'true'}"))
    total += _prune(session, client, "images", chosen)
    total += _prune_builds(session, client, everything=everything)
    session.say(f"Total reclaimed space: {_four(total)}")


def _warning(*, everything: bool, volumes: bool) -> str:
    lines = [
        "all stopped containers",
        "all networks not used by at least one container",
        *(["all anonymous volumes not used by at least one container"] if volumes else []),
        "all images without at least one container associated to them"
        if everything
        else "all dangling images",
        "all build cache" if everything else "unused build cache",
    ]
    return "WARNING! This will remove:\n" + "".join(f"  - {line}\n" for line in lines)


def _sure(session: Session, warning: str) -> bool:
    return session.confirm(f"{warning}\nAre you sure you want to continue? [y/N] ")


def _prune(session: Session, client: Engine, what: str, filters: str) -> int:
    """Prune one kind and say what went; bytes."""
    found = cast("Document", client.post(f"/{what}/prune", filters=filters))
    key = f"{what.capitalize()}Deleted"
    _say_deleted(
        session, what.capitalize(), _deleted(cast("Sequence[object]", found.get(key) or ()))
    )
    return _size(found, "SpaceReclaimed")


def _deleted(entries: Iterable[object]) -> list[str]:
    """Names, or an image's {"Untagged": name} and {"Deleted": id}."""
    lines: list[str] = []
    for entry in entries:
        if isinstance(entry, dict):
            lines += [f"{word.lower()}: {value}" for word, value in entry.items()]
        else:
            lines.append(str(entry))
    return lines


def _say_deleted(session: Session, what: str, lines: Sequence[str]) -> None:
    if lines:
        session.say(f"Deleted {what}:\n" + "\n".join(lines) + "\n")


def _prune_builds(session: Session, client: Engine, *, everything: bool) -> int:
    found = cast("Document", client.post("/build/prune", all=everything))
    lines = _deleted(cast("Sequence[object]", found.get("CachesDeleted") or ()))
    _say_deleted(session, "build cache objects", lines)
    return _size(found, "SpaceReclaimed")
