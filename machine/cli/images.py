"""Image commands: images, pull, rmi, tag."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from urllib.parse import quote

import click

from machine.cli.credentials import registry_header
from machine.cli.grammar import DockerCommand
from machine.cli.output import formatted, show_rows
from machine.cli.session import Session
from machine.cli.target import engine
from machine.engine import Engine
from machine.errors import MachineError
from machine.tables import age, human_size


@click.command(cls=DockerCommand)
@click.option("-a", "--all", "everything", is_flag=True, help="Show all images")
@click.option("-q", "--quiet", is_flag=True, help="Only show image IDs")
@click.option("--no-trunc", is_flag=True, help="Don't truncate output")
@click.option("--digests", is_flag=True, help="Show digests")
@click.option("-f", "--filter", "filters", multiple=True, help="Filter output")
@click.option("--format", "template", default="", help="Format output using a Go template")
@click.argument("repository", required=False)
@click.pass_obj
def images(
    session: Session,
    everything: bool,
    quiet: bool,
    no_trunc: bool,
    digests: bool,
    filters: tuple[str, ...],
    template: str,
    repository: str | None,
) -> None:
    """List images."""
    wanted = filter_map((*filters, *([f"reference={repository}"] if repository else [])))
    found = engine(session).get("/images/json", all=everything, filters=wanted)
    rows = [row for image in _list(found) for row in _rows(image, no_trunc=no_trunc)]
    if quiet:
        for identity in dict.fromkeys(row["ID"] for row in rows):
            session.say(identity)
        return
    digest = ["Digest"] if digests else []
    columns = ["Repository", "Tag", *digest, "ID", "CreatedSince", "Size"]
    headers = {"ID": "IMAGE ID", "CreatedSince": "CREATED"}
    show_rows(session, rows, columns, headers, template)


def filter_map(filters: Iterable[str]) -> str:
    """--filter words as the API's `filters` JSON; "" when there are none."""
    wanted: dict[str, list[str]] = {}
    for item in filters:
        name, equals, value = item.partition("=")
        if not equals:
            raise MachineError("bad format of filter (expected name=value)")
        wanted.setdefault(name.strip().lower(), []).append(value.strip())
    return json.dumps(wanted) if wanted else ""


def _list(found: object) -> list[dict[str, object]]:
    return found if isinstance(found, list) else []


def _rows(image: dict[str, object], *, no_trunc: bool) -> list[dict[str, str]]:
    identity = str(image["Id"])
    created = int(str(image["Created"]))
    tags = image.get("RepoTags") or ["<none>:<none>"]
    digests = image.get("RepoDigests") or []
    known = {str(d).partition("@")[0]: str(d).partition("@")[2] for d in _strings(digests)}
    rows = []
    for tag in _strings(tags):
        repository, _, name = tag.rpartition(":")
        rows.append(
            {
                "Repository": repository,
                "Tag": name,
                "Digest": known.get(repository, "<none>"),
                "ID": identity if no_trunc else identity.removeprefix("sha256:")[:12],
                "CreatedSince": f"{age(time.time() - created)} ago",
                "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime(created)),
                "Size": human_size(float(str(image["Size"]))),
            }
        )
    return rows


def _strings(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


@click.command(cls=DockerCommand)
@click.option("-q", "--quiet", is_flag=True, help="Suppress verbose output")
@click.option("--platform", default="", help="Set platform if server is multi-platform capable")
@click.option("-a", "--all-tags", is_flag=True, help="Download all tagged images")
@click.argument("name")
@click.pass_obj
def pull(session: Session, quiet: bool, platform: str, all_tags: bool, name: str) -> None:
    """Download an image from a registry."""
    if all_tags:
        if "@" in name or ":" in name.rsplit("/", 1)[-1]:
            raise MachineError("tag can't be used with --all-tags/-a")
        client = engine(session)
        pull_image(session, client, name, platform=platform, quiet=quiet, every=True)
        session.say(name)
        return
    if "@" not in name and ":" not in name.rsplit("/", 1)[-1] and not quiet:
        session.say("Using default tag: latest")
    pull_image(session, engine(session), name, platform=platform, quiet=quiet, to_stderr=False)
    session.say(name if "/" in name.partition("@")[0] else _canonical(name))


def _canonical(name: str) -> str:
    tagged = name if ":" in name or "@" in name else f"{name}:latest"
    return f"docker.io/library/{tagged}"


def pull_image(
    session: Session,
    client: Engine,
    name: str,
    *,
    platform: str,
    quiet: bool,
    to_stderr: bool = False,
    every: bool = False,
) -> None:
    """POST /images/create with progress.  A failed pull is a MachineError with the engine's text.

    `every`: all tags of the repository `name`.
    """
    repository, tag = (name, "") if every else split_reference(name)
    out = session.stderr if to_stderr else session.stdout
    show = Progress(out.isatty(), quiet=quiet, write=lambda text: print(text, file=out, flush=True))
    query = {"fromImage": repository, "tag": tag, "platform": platform}
    headers = registry_header(session.env, name)
    with client.call("POST", "/images/create", query=query, headers=headers) as response:
        for line in response.lines():
            if isinstance(line, dict):
                if "error" in line:
                    raise MachineError(str(line["error"]))
                show.line(line)
    show.done()


def split_reference(name: str) -> tuple[str, str]:
    """(repository, tag or digest) as POST /images/create takes them."""
    repository, at, digest = name.partition("@")
    if at:
        return repository, digest
    head, _, last = name.rpartition("/")
    base, _, tag = last.partition(":")
    return f"{head}/{base}" if head else base, tag or "latest"


class Progress:
    """Pull progress: layers in place on a terminal, one line a change elsewhere."""

    def __init__(self, live: bool, *, quiet: bool, write: object) -> None:
        self._live = live
        self._quiet = quiet
        self._write = write if callable(write) else print
        self._rows: dict[str, int] = {}
        self._seen: dict[str, str] = {}

    def line(self, message: dict[str, object]) -> None:
        """One JSONMessage of the stream."""
        if self._quiet:
            return
        identity, status = str(message.get("id", "")), str(message.get("status", ""))
        bar = str(message.get("progress", ""))
        if not identity or status.startswith("Pulling from"):
            self._write(f"{identity}: {status}" if identity else status)
            return
        if self._live:
            self._redraw(identity, f"{identity}: {status} {bar}".rstrip())
        elif self._seen.get(identity) != status and not bar:
            self._seen[identity] = status
            self._write(f"{identity}: {status}")

    def _redraw(self, identity: str, text: str) -> None:
        if identity not in self._rows:
            self._rows[identity] = len(self._rows)
            self._write("")
        up = len(self._rows) - self._rows[identity]
        self._write(
            f"\x1b[{up}A\x1b[2K\r{text}\x1b[{up - 1}B" if up > 1 else f"\x1b[1A\x1b[2K\r{text}"
        )

    def done(self) -> None:
        sys.stdout.flush()


@click.command(cls=DockerCommand)
@click.option("-f", "--force", is_flag=True, help="Force removal of the image")
@click.option("--no-prune", is_flag=True, help="Do not delete untagged parents")
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def rmi(session: Session, force: bool, no_prune: bool, names: tuple[str, ...]) -> int:
    """Remove one or more images."""
    client = engine(session)
    failed = 0
    for name in names:
        try:
            answer = client.delete(
                f"/images/{quote(name, safe='/:@')}", force=force, noprune=no_prune
            )
        except MachineError as error:
            session.warn(error.brief)
            failed = 1
            continue
        for line in _list(answer):
            for word, value in line.items():
                session.say(f"{word}: {value}")
    return failed


@click.command(cls=DockerCommand)
@click.argument("source")
@click.argument("target")
@click.pass_obj
def tag(session: Session, source: str, target: str) -> None:
    """Create a tag TARGET that refers to SOURCE."""
    repository, name = split_reference(target)
    engine(session).post(f"/images/{source}/tag", repo=repository, tag=name)


@click.command(cls=DockerCommand)
@click.option("-f", "--format", "template", default="", help="Format output using a Go template")
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def inspect(session: Session, template: str, names: tuple[str, ...]) -> None:
    """Display detailed information on one or more images."""
    client = engine(session)
    formatted(session, [client.get(f"/images/{name}/json") for name in names], template)
