"""Container commands: ps, logs, exec, attach, events, and the lifecycle verbs of `docker`."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

import click

from machine import terminal
from machine.cli import attached
from machine.cli.grammar import DockerCommand
from machine.cli.images import filter_map
from machine.cli.output import formatted, show_rows
from machine.cli.session import Session
from machine.cli.target import engine
from machine.engine import Engine
from machine.errors import MachineError
from machine.runspec import RunFlags, environment
from machine.tables import age, human_size, ports, printable

_BEHIND = {"allow_interspersed_args": False, "help_option_names": ["-h", "--help"]}


@click.command(cls=DockerCommand)
@click.option("-a", "--all", "everything", is_flag=True, help="Show all containers")
@click.option("-q", "--quiet", is_flag=True, help="Only display container IDs")
@click.option("-l", "--latest", is_flag=True, help="Show the latest created container")
@click.option("-n", "--last", type=int, default=0, help="Show n last created containers")
@click.option("-s", "--size", is_flag=True, help="Display total file sizes")
@click.option("--no-trunc", is_flag=True, help="Don't truncate output")
@click.option("-f", "--filter", "filters", multiple=True, help="Filter output")
@click.option("--format", "template", default="", help="Format output using a Go template")
@click.pass_obj
def ps(
    session: Session,
    everything: bool,
    quiet: bool,
    latest: bool,
    last: int,
    size: bool,
    no_trunc: bool,
    filters: tuple[str, ...],
    template: str,
) -> None:
    """List containers."""
    limit = 1 if latest else last
    found = engine(session).get(
        "/containers/json",
        all=everything or bool(limit),
        limit=limit or None,
        size=size,
        filters=filter_map(filters),
    )
    listed = found if isinstance(found, list) else []
    rows = [_row(item, no_trunc=no_trunc) for item in listed]
    if quiet:
        for row in rows:
            session.say(row["ID"])
        return
    columns = ["ID", "Image", "Command", "CreatedSince", "Status", "Ports", "Names"]
    headers = {"ID": "CONTAINER ID", "CreatedSince": "CREATED", "RunningFor": "CREATED"}
    show_rows(session, rows, [*columns, *(["Size"] if size else [])], headers, template)


def _row(item: dict[str, object], *, no_trunc: bool) -> dict[str, str]:
    command = printable(str(item["Command"]))
    shown = command if no_trunc or len(command) <= 20 else command[:19] + "…"
    created = int(str(item["Created"]))
    since = f"{age(time.time() - created)} ago"
    labels = item.get("Labels")
    listed = item.get("Ports")
    names = item["Names"]
    return {
        "ID": str(item["Id"]) if no_trunc else str(item["Id"])[:12],
        "Image": str(item["Image"]),
        "Command": f'"{shown}"',
        "CreatedSince": since,
        "RunningFor": since,
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime(created)),
        "Status": str(item["Status"]),
        "State": str(item["State"]),
        "Ports": ports(listed) if isinstance(listed, list) else "",
        "Names": ",".join(str(n).removeprefix("/") for n in names)
        if isinstance(names, list)
        else "",
        "Labels": ",".join(f"{k}={v}" for k, v in labels.items())
        if isinstance(labels, dict)
        else "",
        "Size": human_size(float(str(item.get("SizeRw") or 0))),
    }


@click.command(cls=DockerCommand)
@click.option("-f", "--follow", is_flag=True, help="Follow log output")
@click.option("-t", "--timestamps", is_flag=True, help="Show timestamps")
@click.option("-n", "--tail", default="all", help="Number of lines to show from the end")
@click.option("--since", default="", help="Show logs since timestamp or relative (e.g. 42m)")
@click.option("--until", default="", help="Show logs before a timestamp or relative (e.g. 42m)")
@click.option("--details", is_flag=True, hidden=True)
@click.argument("container")
@click.pass_obj
def logs(
    session: Session,
    follow: bool,
    timestamps: bool,
    tail: str,
    since: str,
    until: str,
    details: bool,
    container: str,
) -> None:
    """Fetch the logs of a container."""
    client = engine(session)
    query: dict[str, object] = {
        "stdout": 1,
        "stderr": 1,
        "follow": follow,
        "timestamps": timestamps,
        "tail": tail,
        "since": moment(since),
        "until": moment(until),
    }
    path = f"/containers/{container}"
    config = _inspect(client, container)["Config"]
    tty = isinstance(config, dict) and config["Tty"]
    with client.call("GET", f"{path}/logs", query=query) as response:
        terminal.show_logs(response.chunks(), multiplexed=not tty)


def moment(text: str) -> str:
    """ "42m", "1h30m", RFC 3339 or Unix seconds -> Unix seconds; "" stays ""."""
    if not text or re.fullmatch(r"\d+(\.\d+)?", text):
        return text
    span = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if span:
        hours, minutes, seconds = (int(part or 0) for part in span.groups())
        past = datetime.now(UTC) - timedelta(hours=hours, minutes=minutes, seconds=seconds)
        return f"{past.timestamp():.9f}"
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise MachineError(f"invalid time: {text!r}") from None
    return f"{(found if found.tzinfo else found.astimezone()).timestamp():.9f}"


def _inspect(client: Engine, container: str) -> dict[str, object]:
    found = client.get(f"/containers/{container}/json")
    if not isinstance(found, dict):
        raise MachineError("The engine's answer is not a container")
    return found


@click.command(cls=DockerCommand, name="exec", context_settings=_BEHIND)
@click.option("-d", "--detach", is_flag=True, help="Detached mode: run command in the background")
@click.option("-i", "--interactive", is_flag=True, help="Keep STDIN open even if not attached")
@click.option("-t", "--tty", is_flag=True, help="Allocate a pseudo-TTY")
@click.option("-e", "--env", multiple=True, help="Set environment variables")
@click.option("-u", "--user", default="", help="Username or UID (format: <name|uid>[:<group|gid>])")
@click.option("-w", "--workdir", default="", help="Working directory inside the container")
@click.option("--privileged", is_flag=True, help="Give extended privileges to the command")
@click.option("--detach-keys", default="", help="Override the key sequence for detaching")
@click.argument("container")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def exec_(session: Session, /, container: str, command: tuple[str, ...], **given: object) -> int:
    """Execute a command in a running container."""
    client = engine(session)
    interactive, tty, detach = (bool(given[name]) for name in ("interactive", "tty", "detach"))
    if tty and interactive and not terminal.is_terminal():
        raise MachineError("the input device is not a TTY")
    flags = RunFlags(
        image="", interactive=interactive, tty=tty, env=_strings(given["env"]), environ=session.env
    )
    body = {
        "Cmd": list(command),
        "AttachStdin": interactive and not detach,
        "AttachStdout": not detach,
        "AttachStderr": not detach,
        "Tty": tty,
        "Env": environment(flags),
        "User": given["user"],
        "WorkingDir": given["workdir"],
        "Privileged": given["privileged"],
        "DetachKeys": given["detach_keys"],
        "ConsoleSize": terminal.size() if tty else None,
    }
    created = client.post(f"/containers/{container}/exec", body)
    if not isinstance(created, dict):
        raise MachineError("The engine's answer to exec has no id")
    path = f"/exec/{created['Id']}"
    if detach:
        client.post(f"{path}/start", {"Detach": True, "Tty": tty})
        return 0
    return _run_exec(client, path, flags)


def _strings(value: object) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, tuple | list) else ()


def _run_exec(client: Engine, path: str, flags: RunFlags) -> int:
    hijacked = client.hijack(f"{path}/start", body={"Detach": False, "Tty": flags.tty})
    if flags.tty:
        with terminal.raw_terminal(), terminal.following_size(client, path):
            terminal.send_size(client, path)
            terminal.pump(hijacked, stdin=flags.interactive, tty=flags.tty)
    else:
        terminal.pump(hijacked, stdin=flags.interactive, tty=flags.tty)
    found = client.get(f"{path}/json")
    return int(found.get("ExitCode") or 0) if isinstance(found, dict) else 0


@click.command(cls=DockerCommand)
@click.option("--no-stdin", is_flag=True, help="Do not attach STDIN")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Proxy signals to the process")
@click.option("--detach-keys", default="", help="Override the key sequence for detaching")
@click.argument("container")
@click.pass_obj
def attach(
    session: Session, no_stdin: bool, sig_proxy: bool, detach_keys: str, container: str
) -> int:
    """Attach local standard input, output, and error streams to a running container."""
    client = engine(session)
    found = _inspect(client, container)
    config, state = found["Config"], found["State"]
    if not isinstance(config, dict) or not isinstance(state, dict) or not state["Running"]:
        raise MachineError("You cannot attach to a stopped container, start it first")
    stdin = bool(config["OpenStdin"]) and not no_stdin
    flags = RunFlags(image="", interactive=stdin, tty=bool(config["Tty"]))
    path = f"/containers/{container}"
    status = attached.Status(client, container, "not-running")
    hijacked = attached.attach(client, container, stdin=stdin, detach_keys=detach_keys)
    if flags.tty and stdin:
        with terminal.raw_terminal():
            attached.stream(client, path, hijacked, flags, sig_proxy=sig_proxy)
    else:
        attached.stream(client, path, hijacked, flags, sig_proxy=sig_proxy)
    return attached.exit_status(client, container, status, tty=flags.tty)


@click.command(cls=DockerCommand)
@click.option("-f", "--filter", "filters", multiple=True, help="Filter output")
@click.option("--since", default="", help="Show all events created since timestamp")
@click.option("--until", default="", help="Stream events until this timestamp")
@click.option("--format", "template", default="", help="Format output using a Go template")
@click.pass_obj
def events(
    session: Session, filters: tuple[str, ...], since: str, until: str, template: str
) -> None:
    """Get real time events from the machine."""
    query = {"since": moment(since), "until": moment(until), "filters": filter_map(filters)}
    with engine(session).call("GET", "/events", query=query) as response:
        for event in response.lines():
            if template:
                formatted(session, [event], template)
            elif isinstance(event, dict):
                session.say(_event_line(event))


def _event_line(event: dict[str, object]) -> str:
    nanoseconds = int(str(event["timeNano"]))
    when = datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC).astimezone()
    actor = event["Actor"] if isinstance(event["Actor"], dict) else {}
    shown = ", ".join(f"{k}={v}" for k, v in sorted((actor.get("Attributes") or {}).items()))
    stamp = f"{when:%Y-%m-%dT%H:%M:%S}.{nanoseconds % 1_000_000_000:09}{when:%z}"
    text = f"{stamp} {event['Type']} {event['Action']} {actor.get('ID', '')}"
    return printable(f"{text} ({shown})" if shown else text)


def _each(
    session: Session, names: tuple[str, ...], method: str, suffix: str, **query: object
) -> int:
    """One request a container; says each name that worked, goes on after one that didn't."""
    client = engine(session)
    failed = 0
    for name in names:
        try:
            client.call(method, f"/containers/{name}{suffix}", query=query).close()
            session.say(name)
        except MachineError as error:
            session.warn(error.brief)
            failed = 1
    return failed


_NAMES = click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
_TIME = click.option("-t", "--time", "--timeout", "seconds", type=int, help="Seconds to wait")
_SIGNAL = click.option("-s", "--signal", default="", help="Signal to send to the container")


@click.command(cls=DockerCommand)
@click.option("-a", "--attach", "attached_", is_flag=True, help="Attach STDOUT/STDERR")
@click.option("-i", "--interactive", is_flag=True, help="Attach container's STDIN")
@_NAMES
@click.pass_obj
def start(session: Session, attached_: bool, interactive: bool, names: tuple[str, ...]) -> int:
    """Start one or more stopped containers."""
    if not attached_ and not interactive:
        return _each(session, names, "POST", "/start")
    if len(names) > 1:
        raise MachineError("you cannot start and attach multiple containers at once")
    client = engine(session)
    config = _inspect(client, names[0])["Config"]
    tty = bool(config["Tty"]) if isinstance(config, dict) else False
    flags = RunFlags(image="", interactive=interactive, tty=tty)
    return attached.follow(client, names[0], flags, sig_proxy=True, detach_keys="")


@click.command(cls=DockerCommand)
@_TIME
@_SIGNAL
@_NAMES
@click.pass_obj
def stop(session: Session, seconds: int | None, signal: str, names: tuple[str, ...]) -> int:
    """Stop one or more running containers."""
    return _each(session, names, "POST", "/stop", t=seconds, signal=signal)


@click.command(cls=DockerCommand)
@_TIME
@_SIGNAL
@_NAMES
@click.pass_obj
def restart(session: Session, seconds: int | None, signal: str, names: tuple[str, ...]) -> int:
    """Restart one or more containers."""
    return _each(session, names, "POST", "/restart", t=seconds, signal=signal)


@click.command(cls=DockerCommand)
@_SIGNAL
@_NAMES
@click.pass_obj
def kill(session: Session, signal: str, names: tuple[str, ...]) -> int:
    """Kill one or more running containers."""
    return _each(session, names, "POST", "/kill", signal=signal)


@click.command(cls=DockerCommand)
@_NAMES
@click.pass_obj
def pause(session: Session, names: tuple[str, ...]) -> int:
    """Pause all processes within one or more containers."""
    return _each(session, names, "POST", "/pause")


@click.command(cls=DockerCommand)
@_NAMES
@click.pass_obj
def unpause(session: Session, names: tuple[str, ...]) -> int:
    """Unpause all processes within one or more containers."""
    return _each(session, names, "POST", "/unpause")


@click.command(cls=DockerCommand)
@click.option("-f", "--force", is_flag=True, help="Force the removal of a running container")
@click.option("-v", "--volumes", is_flag=True, help="Remove anonymous volumes")
@_NAMES
@click.pass_obj
def rm(session: Session, force: bool, volumes: bool, names: tuple[str, ...]) -> int:
    """Remove one or more containers."""
    return _each(session, names, "DELETE", "", force=force, v=volumes)


@click.command(cls=DockerCommand)
@_NAMES
@click.pass_obj
def wait(session: Session, names: tuple[str, ...]) -> None:
    """Block until containers stop, then print their exit codes."""
    client = engine(session)
    for name in names:
        answer = client.post(f"/containers/{name}/wait")
        session.say(str(answer["StatusCode"]) if isinstance(answer, dict) else "")


@click.command(cls=DockerCommand)
@click.argument("container")
@click.argument("name")
@click.pass_obj
def rename(session: Session, container: str, name: str) -> None:
    """Rename a container."""
    engine(session).post(f"/containers/{container}/rename", name=name)


@click.command(cls=DockerCommand)
@click.argument("container")
@click.argument("wanted", required=False)
@click.pass_obj
def port(session: Session, container: str, wanted: str | None) -> None:
    """List port mappings of a container."""
    settings = _inspect(engine(session), container)["NetworkSettings"]
    mapped = settings.get("Ports") if isinstance(settings, dict) else None
    key = wanted if not wanted or "/" in wanted else f"{wanted}/tcp"
    for inside, bindings in (mapped or {}).items():
        for binding in bindings or [] if key in {None, inside} else []:
            address = f"{binding['HostIp']}:{binding['HostPort']}"
            session.say(address if wanted else f"{inside} -> {address}")


@click.command(cls=DockerCommand)
@click.option("-f", "--format", "template", default="", help="Format output using a Go template")
@click.option("-s", "--size", is_flag=True, help="Display total file sizes")
@click.option("--type", "kind", default="", help="Only container, image, volume or network")
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def inspect(session: Session, template: str, size: bool, kind: str, names: tuple[str, ...]) -> None:
    """Return low-level information on containers, images, volumes or networks."""
    client = engine(session)
    places = {
        "container": "/containers/{}/json",
        "image": "/images/{}/json",
        "volume": "/volumes/{}",
        "network": "/networks/{}",
    }
    if kind and kind not in places:
        raise MachineError(f'"{kind}" is not a valid value for --type')
    wanted = {kind: places[kind]} if kind else places
    formatted(session, [_find(client, name, wanted, size=size) for name in names], template)


def _find(client: Engine, name: str, places: dict[str, str], *, size: bool) -> object:
    for place in places.values():
        try:
            return client.get(place.format(name), size=size)
        except MachineError as error:
            if getattr(error, "status", 0) != 404:
                raise
    raise MachineError(
        f"Error: No such {next(iter(places)) if len(places) == 1 else 'object'}: {name}"
    )
