"""`machine build`: an image from a Dockerfile, by the classic build API."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import click

from machine.cli.grammar import Command
from machine.cli.images import Progress
from machine.cli.session import Session
from machine.cli.target import engine
from machine.engine import Response
from machine.errors import MachineError

_REMOTE: Final = ("http://", "https://", "git://", "git@", "github.com/")
_UNITS: Final = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@click.command(cls=Command)
@click.option("-t", "--tag", "tags", multiple=True, help='Name and optionally a tag ("name:tag")')
@click.option("-f", "--file", "dockerfile", default="", help='Name of the Dockerfile ("-" = stdin)')
@click.option("--build-arg", "build_args", multiple=True, help="Set build-time variables")
@click.option("--label", "labels", multiple=True, help="Set metadata for an image")
@click.option("--target", default="", help="Set the target build stage to build")
@click.option("--platform", default="", help="Set platform if server is multi-platform capable")
@click.option("--network", default="", help="Networking mode for the RUN instructions")
@click.option("--add-host", "hosts", multiple=True, help="Add a custom host-to-IP mapping")
@click.option("--cache-from", "cache_from", multiple=True, help="Images to consider as cache")
@click.option("--no-cache", is_flag=True, help="Do not use cache when building the image")
@click.option("--pull", is_flag=True, help="Always attempt to pull a newer version of the image")
@click.option("-q", "--quiet", is_flag=True, help="Suppress the output, print the image ID")
@click.option("--secret", "secrets", multiple=True, help="Secret for RUN (id=NAME,src=FILE)")
@click.option("--ssh", "agents", multiple=True, help="SSH agent for RUN (default|ID[=SOCKET])")
@click.option("--memory", default="", help="Memory limit")
@click.option("--shm-size", default="", help='Size of "/dev/shm"')
@click.option("--rm", is_flag=True, default=True, hidden=True)
@click.option("--force-rm", is_flag=True, hidden=True)
@click.argument("context")
@click.pass_obj
def build(
    session: Session,
    tags: tuple[str, ...],
    dockerfile: str,
    build_args: tuple[str, ...],
    labels: tuple[str, ...],
    target: str,
    platform: str,
    network: str,
    hosts: tuple[str, ...],
    cache_from: tuple[str, ...],
    no_cache: bool,
    pull: bool,
    quiet: bool,
    secrets: tuple[str, ...],
    agents: tuple[str, ...],
    memory: str,
    shm_size: str,
    rm: bool,
    force_rm: bool,
    context: str,
) -> None:
    """Build an image from a Dockerfile."""
    from machine import buildcontext
    from machine.cli import buildsecrets, buildssh

    remote = context if context.startswith(_REMOTE) else ""
    if remote:
        sent = buildcontext.Context(iter(()), dockerfile)
    elif context == "-":
        sent = buildcontext.of_stream(_stdin(session))
        if dockerfile:
            sent = buildcontext.Context(sent.pieces, dockerfile)
    elif dockerfile == "-":
        sent = buildcontext.with_dockerfile(Path(context), _stdin(session))
    else:
        sent = buildcontext.of_folder(Path(context), dockerfile)
    query: dict[str, object] = {
        "version": "1",
        "t": tags,
        "dockerfile": sent.dockerfile,
        "remote": remote,
        "buildargs": json.dumps(_given(session, build_args)) if build_args else "",
        "labels": json.dumps(_pairs(labels)) if labels else "",
        "target": target,
        "platform": platform,
        "networkmode": network,
        "extrahosts": hosts,
        "cachefrom": json.dumps(list(cache_from)) if cache_from else "",
        "nocache": no_cache,
        "pull": pull,
        "q": quiet,
        "rm": True,
        "memory": size(memory),
        "shmsize": size(shm_size),
    }
    headers = buildsecrets.header(secrets, session.env)
    client = engine(session)
    with (
        buildssh.forwarded(client, agents, session.env) as more,
        client.call(
            "POST", "/build", query=query, headers={**headers, **more}, upload=sent.pieces
        ) as response,
    ):
        _show(session, response, quiet=quiet)


def _stdin(session: Session) -> bytes:
    if isinstance(session.stdin, io.TextIOWrapper):
        raw: bytes = session.stdin.buffer.read()
        return raw
    return session.stdin.read().encode()


def _pairs(words: Iterable[str]) -> dict[str, str]:
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _given(session: Session, words: Iterable[str]) -> dict[str, str | None]:
    """NAME=value, or NAME alone: the value of the environment, if it has one."""
    found: dict[str, str | None] = {}
    for word in words:
        name, equals, value = word.partition("=")
        found[name] = value if equals else session.env.get(name)
    return found


def size(text: str) -> int | str:
    """ "64m" in bytes; "" stays so.  Raises MachineError."""
    if not text:
        return ""
    number, unit = text.rstrip("bkmgBKMG"), text[len(text.rstrip("bkmgBKMG")) :].lower()
    unit = unit.removesuffix("b") if len(unit) > 1 else unit
    if not number.isdigit() or unit not in _UNITS:
        raise MachineError(f"invalid size: '{text}'")
    return int(number) * _UNITS[unit]


def _show(session: Session, response: Response, *, quiet: bool) -> None:
    out = session.stdout
    progress = Progress(
        out.isatty(), quiet=quiet, write=lambda text: print(text, file=out, flush=True)
    )
    for line in response.lines():
        if not isinstance(line, dict):
            continue
        if "error" in line:
            detail = line.get("errorDetail")
            code = detail.get("code") if isinstance(detail, dict) else None
            status = code if isinstance(code, int) and 0 < code < 256 else 1
            raise MachineError(str(line["error"]), exit_code=status)
        if "stream" in line:
            print(line["stream"], end="", file=out, flush=True)
        elif "status" in line:
            progress.line(line)
