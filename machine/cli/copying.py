"""Files of containers: cp, export, diff."""

from __future__ import annotations

import base64
import json
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from machine.buildcontext import tree_pieces
from machine.cli.grammar import DockerCommand
from machine.cli.session import Session
from machine.cli.target import engine
from machine.engine import Engine, EngineApiError
from machine.errors import MachineError, printable
from machine.tables import human_size
from machine.untar import unpack

_STAT = "x-docker-container-path-stat"
_GO_DIRECTORY, _GO_SYMLINK = 1 << 31, 1 << 27
_PIECE = 1 << 18
_KINDS = "CAD"


@dataclass(frozen=True)
class _Stat:
    name: str
    directory: bool
    link: str  # where a symlink leads, else ""


def _stat(text: str) -> _Stat:
    document = json.loads(base64.b64decode(text))
    mode = int(document["mode"])
    link = str(document["linkTarget"]) if mode & _GO_SYMLINK else ""
    return _Stat(str(document["name"]), bool(mode & _GO_DIRECTORY), link)


def _split(argument: str) -> tuple[str, str]:
    """ "CONTAINER:PATH" -> both; a local path has no container ("./a:b" is local)."""
    container, colon, path = argument.partition(":")
    if not colon or argument.startswith("/") or container.startswith("."):
        return "", argument
    return container, path


@click.command(cls=DockerCommand)
@click.option("-a", "--archive", is_flag=True, help="Archive mode (copy all uid/gid information)")
@click.option("-L", "--follow-link", is_flag=True, help="Always follow symbol link in SRC_PATH")
@click.option("-q", "--quiet", is_flag=True, help="Suppress progress output during copy")
@click.argument("source")
@click.argument("target")
@click.pass_obj
def cp(
    session: Session, archive: bool, follow_link: bool, quiet: bool, source: str, target: str
) -> None:
    """Copy files between a container and the local filesystem."""
    from_container, source_path = _split(source)
    to_container, target_path = _split(target)
    if from_container and to_container:
        raise MachineError("copying between containers is not supported")
    if not from_container and not to_container:
        raise MachineError("must specify at least one container source")
    client = engine(session)
    if from_container:
        done = _out(session, client, from_container, source_path, target_path, follow=follow_link)
    else:
        source_path = os.path.realpath(source_path) if follow_link else source_path
        done = _in(session, client, source_path, to_container, target_path, owner=archive)
    if done is not None and not quiet:
        session.warn(f"Successfully copied {human_size(float(done))} to {target}")


def _out(
    session: Session, client: Engine, container: str, path: str, target: str, *, follow: bool
) -> int | None:
    place = f"/containers/{container}/archive"
    if follow:
        found = _look(client, container, path)
        path = found.link if found and found.link else path
    with client.call("GET", place, query={"path": path}) as response:
        found = _stat(response.headers[_STAT])
        if target == "-":
            out = session.stdout.buffer  # type: ignore[attr-defined]
            for piece in response.chunks():
                out.write(piece)
            out.flush()
            return None
        folder, rename = _local_place(found, path, target)
        return unpack(response.chunks(), folder, rename)


def _local_place(found: _Stat, path: str, target: str) -> tuple[str, tuple[str, str] | None]:
    """(folder to unpack into, its first component's old and new name), by docker's rules."""
    contents = path.endswith("/.") or found.name in {"/", "."}
    local = Path(target)
    if local.is_dir():
        return target, None
    if os.path.lexists(local) and found.directory:
        raise MachineError("cannot copy directory", details=f"{target} is a file")
    parent = local.absolute().parent
    if not parent.is_dir() or (target.endswith("/") and not found.directory):
        raise MachineError(f"invalid output path: directory {printable(target)!r} does not exist")
    if contents:
        local.mkdir()
        return target, None
    return str(parent), (found.name, local.absolute().name)


def _look(client: Engine, container: str, path: str) -> _Stat | None:
    """None when there is nothing."""
    try:
        place = f"/containers/{container}/archive"
        with client.call("HEAD", place, query={"path": path}) as response:
            return _stat(response.headers[_STAT])
    except EngineApiError as error:
        if error.status != 404:
            raise
        client.get(f"/containers/{container}/json")  # NOT_FOUND of the container is said
        return None


def _in(
    session: Session, client: Engine, source: str, container: str, target: str, *, owner: bool
) -> int | None:
    target = target or "/"
    found = _look(client, container, target)
    if found is not None and found.link:
        target = found.link
        found = _look(client, container, target)
    query: dict[str, object] = {"noOverwriteDirNonDir": "true"}
    if owner:
        query["copyUIDGID"] = "true"
    place = f"/containers/{container}/archive"
    if source == "-":
        if found is None or not found.directory:
            raise MachineError(f'destination "{container}:{target}" must be a directory')
        with client.call("PUT", place, query={**query, "path": target}, upload=_stdin(session)):
            return None
    folder, name = _remote_place(Path(source), source, target, found)
    counted = _Counted(tree_pieces(Path(source), name))
    with client.call("PUT", place, query={**query, "path": folder}, upload=iter(counted)):
        return counted.total


def _remote_place(local: Path, given: str, target: str, found: _Stat | None) -> tuple[str, str]:
    """(folder in the container, name there; "" = the contents only), by docker's rules."""
    if not os.path.lexists(local):
        raise MachineError(f"lstat {printable(given)}: no such file or directory")
    contents = given.endswith("/.") or given in {".", "/"}
    directory = local.is_dir() and (contents or not local.is_symlink())
    if found is not None and found.directory:
        return target, "" if contents and directory else local.resolve().name
    if found is not None and directory:
        raise MachineError("cannot copy directory", details=f"{target} is a file")
    if target.endswith("/") and not directory:
        raise MachineError(f"the destination directory {target} does not exist")
    clean = posixpath.normpath(posixpath.join("/", target))
    return posixpath.dirname(clean), posixpath.basename(clean)


def _stdin(session: Session) -> Iterator[bytes]:
    source = session.stdin.buffer  # type: ignore[attr-defined]
    while data := source.read(_PIECE):
        yield data


class _Counted:
    """Counts what goes through."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self.total = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.total += len(piece)
            yield piece


@click.command(cls=DockerCommand)
@click.option("-o", "--output", default="", help="Write to a file, instead of STDOUT")
@click.argument("container")
@click.pass_obj
def export(session: Session, output: str, container: str) -> None:
    """Export a container's filesystem as a tar archive."""
    if not output and session.stdout.isatty():
        raise MachineError(
            "cowardly refusing to save to a terminal", hint="Use -o FILE, or redirect."
        )
    with engine(session).call("GET", f"/containers/{container}/export") as response:
        if not output:
            out = session.stdout.buffer  # type: ignore[attr-defined]
            for piece in response.chunks():
                out.write(piece)
            out.flush()
            return
        try:
            with Path(output).open("wb") as file:
                for piece in response.chunks():
                    file.write(piece)
        except OSError as error:
            raise MachineError(f"Can't write {output}: {error.strerror}") from error


@click.command(cls=DockerCommand)
@click.argument("container")
@click.pass_obj
def diff(session: Session, container: str) -> None:
    """Inspect changes to files or directories on a container's filesystem."""
    found = engine(session).get(f"/containers/{container}/changes")
    for one in found if isinstance(found, list) else ():
        session.say(f"{_KINDS[int(one['Kind'])]} {printable(str(one['Path']))}")
