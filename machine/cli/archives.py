"""Images to registries and archives: push, login, logout, save, load, import, history, prune."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

import click

from machine.cli import credentials
from machine.cli.grammar import DockerCommand
from machine.cli.images import Progress, filter_map, split_reference
from machine.cli.output import show_rows
from machine.cli.session import Session
from machine.cli.target import engine
from machine.engine import Response
from machine.errors import MachineError
from machine.tables import age, human_size

_PIECE = 256 << 10


def _follow(session: Session, response: Response, *, quiet: bool) -> None:
    """Show a progress stream; its error becomes a MachineError."""
    out = session.stdout
    show = Progress(out.isatty(), quiet=quiet, write=lambda text: print(text, file=out, flush=True))
    for line in response.lines():
        if not isinstance(line, dict) or "aux" in line:
            continue
        if "error" in line:
            raise MachineError(str(line["error"]))
        if "stream" in line:
            session.say(str(line["stream"]).rstrip("\n"))
        else:
            show.line(line)
    show.done()


@click.command(cls=DockerCommand)
@click.option("-a", "--all-tags", is_flag=True, help="Push all tags of an image")
@click.option("-q", "--quiet", is_flag=True, help="Suppress verbose output")
@click.argument("name")
@click.pass_obj
def push(session: Session, all_tags: bool, quiet: bool, name: str) -> None:
    """Upload an image to a registry."""
    if "@" in name:
        raise MachineError("cannot push a digest reference")
    repository, tag = split_reference(name)
    if all_tags and ":" in name.rpartition("/")[2]:
        raise MachineError("tag can't be used with --all-tags/-a")
    if not all_tags and ":" not in name.rpartition("/")[2] and not quiet:
        session.say("Using default tag: latest")
    query = {"tag": "" if all_tags else tag}
    headers = credentials.registry_header(session.env, name)
    path = f"/images/{repository}/push"
    with engine(session).call("POST", path, query=query, headers=headers) as response:
        _follow(session, response, quiet=quiet)
    if quiet:
        session.say(name)


def _no_password(_ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise MachineError(
            "A password on the command line can be read by everybody on this computer",
            hint="Leave -p out and you are asked for it; in scripts: --password-stdin <FILE",
        )


@click.command(cls=DockerCommand)
@click.option("-p", "--password", hidden=True, expose_value=False, callback=_no_password)
@click.option("-u", "--username", default="", help="Username")
@click.option("--password-stdin", is_flag=True, help="Take the password from stdin")
@click.argument("server", default="")
@click.pass_obj
def login(session: Session, username: str, password_stdin: bool, server: str) -> None:
    """Authenticate to a registry."""
    key = credentials.key_of(server)
    if password_stdin and not username:
        raise MachineError("--password-stdin needs --username")
    if not password_stdin and not session.stdin.isatty():
        raise MachineError("cannot ask for a password without a terminal: use --password-stdin")
    username = username or click.prompt("Username")
    if password_stdin:
        password = session.stdin.read().rstrip("\r\n")
    else:
        password = click.prompt("Password", hide_input=True)
    body = {"username": username, "password": password, "serveraddress": key}
    answer = engine(session).post("/auth", body)
    path = credentials.keep(session.env, key, username, password)
    session.warn(f"The password is kept, not encrypted, in {path}")
    status = answer.get("Status") if isinstance(answer, dict) else None
    session.say(str(status or "Login Succeeded"))


@click.command(cls=DockerCommand)
@click.argument("server", default="")
@click.pass_obj
def logout(session: Session, server: str) -> None:
    """Forget a registry's credentials."""
    key = credentials.key_of(server)
    session.say(f"Removing login credentials for {key}")
    if not credentials.forget(session.env, key):
        session.say(f"Not logged in to {key}")


@click.command(cls=DockerCommand)
@click.option("-o", "--output", default="", help="Write to a file, instead of STDOUT")
@click.option("--platform", default="", help="Save only the given platform")
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def save(session: Session, output: str, platform: str, names: tuple[str, ...]) -> None:
    """Save one or more images to a tar archive."""
    if not output and session.stdout.isatty():
        raise MachineError(
            "cowardly refusing to save to a terminal", hint="Use -o FILE, or redirect."
        )
    query = {"names": names, "platform": json.dumps(_platform(platform)) if platform else ""}
    with engine(session).call("GET", "/images/get", query=query) as response:
        if not output:
            _copy(response, _binary(session.stdout))
            return
        try:
            with Path(output).open("wb") as file:
                _copy(response, file)
        except OSError as error:
            raise MachineError(f"Can't write {output}: {error.strerror}") from error


def _binary(stream: IO[str]) -> BinaryIO:
    """The bytes below a standard stream."""
    if not isinstance(stream, io.TextIOWrapper):
        raise MachineError("an archive needs a real standard stream", hint="Name a file.")
    return cast("BinaryIO", stream.buffer)


def _copy(response: Response, out: BinaryIO) -> None:
    for piece in response.chunks():
        out.write(piece)
    out.flush()


def _platform(text: str) -> dict[str, str]:
    parts = text.split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise MachineError(f"invalid platform {text!r}: os/arch[/variant] is expected")
    return dict(zip(("os", "architecture", "variant"), parts, strict=False))


def _pieces(session: Session, path: str) -> Iterator[bytes]:
    if path:
        try:
            with Path(path).open("rb") as file:
                yield from _read(file)
        except OSError as error:
            raise MachineError(f"Can't read {path}: {error.strerror}") from error
    else:
        yield from _read(_binary(session.stdin))


def _read(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece


@click.command(cls=DockerCommand)
@click.option("-i", "--input", "path", default="", help="Read from a file, instead of STDIN")
@click.option("-q", "--quiet", is_flag=True, help="Suppress the load output")
@click.option("--platform", default="", help="Load only the given platform")
@click.pass_obj
def load(session: Session, path: str, quiet: bool, platform: str) -> None:
    """Load images from a tar archive or STDIN."""
    if not path and session.stdin.isatty():
        raise MachineError("requested load from stdin, but stdin is empty", hint="Use -i FILE.")
    query: dict[str, object] = {"quiet": "1" if quiet else "0"}
    if platform:
        query["platform"] = json.dumps(_platform(platform))
    with engine(session).call(
        "POST", "/images/load", query=query, upload=_pieces(session, path)
    ) as response:
        _follow(session, response, quiet=quiet)


@click.command(cls=DockerCommand, name="import")
@click.option("-c", "--change", "changes", multiple=True, help="Apply a Dockerfile instruction")
@click.option("-m", "--message", default="", help="Set commit message for imported image")
@click.option("--platform", default="", help="Set platform")
@click.argument("path")
@click.argument("name", default="")
@click.pass_obj
def import_(
    session: Session, changes: tuple[str, ...], message: str, platform: str, path: str, name: str
) -> None:
    """Make an image of a file system's tar archive (- is STDIN)."""
    repository, tag = split_reference(name) if name else ("", "")
    query = {
        "fromSrc": "-",
        "changes": changes,
        "repo": repository,
        "tag": tag,
        "message": message,
        "platform": platform,
    }
    upload = _pieces(session, "" if path == "-" else path)
    with engine(session).call("POST", "/images/create", query=query, upload=upload) as response:
        _follow(session, response, quiet=False)


@click.command(cls=DockerCommand)
@click.option("-q", "--quiet", is_flag=True, help="Only show image IDs")
@click.option("--no-trunc", is_flag=True, help="Don't truncate output")
@click.option("--format", "template", default="", help="Format output using a Go template")
@click.argument("name")
@click.pass_obj
def history(session: Session, quiet: bool, no_trunc: bool, template: str, name: str) -> None:
    """Show the history of an image."""
    found = engine(session).get(f"/images/{name}/history")
    lines = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    rows = []
    for one in lines:
        identity, command = str(one["Id"]), str(one["CreatedBy"])
        rows.append(
            {
                "ID": identity if no_trunc else identity.removeprefix("sha256:")[:12],
                "CreatedSince": f"{age(time.time() - int(str(one['Created'])))} ago",
                "CreatedBy": command if no_trunc or len(command) <= 45 else f"{command[:44]}…",
                "Size": human_size(float(str(one["Size"]))),
                "Comment": str(one["Comment"]),
            }
        )
    if quiet:
        for row in rows:
            session.say(row["ID"])
        return
    headers = {"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedBy": "CREATED BY"}
    columns = ["ID", "CreatedSince", "CreatedBy", "Size", "Comment"]
    show_rows(session, rows, columns, headers, template)


@click.command(cls=DockerCommand)
@click.option("-a", "--all", "everything", is_flag=True, help="Remove all unused images")
@click.option("-f", "--force", is_flag=True, help="Do not prompt for confirmation")
@click.option("--filter", "filters", multiple=True, help='Provide filter values ("until=24h")')
@click.pass_obj
def image_prune(session: Session, everything: bool, force: bool, filters: tuple[str, ...]) -> None:
    """Remove unused images."""
    what = "all images without a container" if everything else "all dangling images"
    if not force and not session.confirm(f"WARNING! This will remove {what}. Continue? [y/N] "):
        return
    wanted = filter_map((*filters, f"dangling={'false' if everything else 'true'}"))
    answer = engine(session).post("/images/prune", filters=wanted)
    document = answer if isinstance(answer, dict) else {}
    deleted = document.get("ImagesDeleted")
    for line in deleted if isinstance(deleted, list) else []:
        for word, value in line.items():
            session.say(f"{word.lower()}: {value}")
    session.say(f"Total reclaimed space: {human_size(float(document.get('SpaceReclaimed') or 0))}")


@click.command(cls=DockerCommand)
@click.option("--limit", default=25, help="Max number of search results")
@click.option("--no-trunc", is_flag=True, help="Don't truncate output")
@click.option("-f", "--filter", "filters", multiple=True, help="Filter output")
@click.option("--format", "template", default="", help="Format output using a Go template")
@click.argument("term")
@click.pass_obj
def search(
    session: Session,
    limit: int,
    no_trunc: bool,
    filters: tuple[str, ...],
    template: str,
    term: str,
) -> None:
    """Search a registry for images."""
    headers = credentials.registry_header(session.env, term)
    query = {"term": term, "limit": limit, "filters": filter_map(filters)}
    with engine(session).call("GET", "/images/search", query=query, headers=headers) as response:
        found = response.json()
    rows = []
    for one in found if isinstance(found, list) else []:
        text = str(one["description"]).replace("\n", " ")
        rows.append(
            {
                "Name": str(one["name"]),
                "Description": text if no_trunc or len(text) <= 45 else f"{text[:44]}…",
                "StarCount": str(one["star_count"]),
                "IsOfficial": "[OK]" if one["is_official"] else "",
            }
        )
    columns = ["Name", "Description", "StarCount", "IsOfficial"]
    show_rows(session, rows, columns, {"StarCount": "STARS", "IsOfficial": "OFFICIAL"}, template)
