"""`run` and `create`, with docker's flags."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import click

from machine import terminal
from machine.cli.attached import follow, remote_exit
from machine.cli.grammar import DockerCommand
from machine.cli.images import pull_image
from machine.cli.session import Session
from machine.cli.target import engine
from machine.engine import Engine, EngineApiError
from machine.errors import MachineError
from machine.runspec import RunFlags, create_body

F = TypeVar("F", bound=Callable[..., object])

# (flags, RunFlags field, help).  The field's type says how the flag is read.
_WORDS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("--name",), "name", "Assign a name to the container"),
    (("-w", "--workdir"), "workdir", "Working directory inside the container"),
    (("-u", "--user"), "user", "Username or UID (format: <name|uid>[:<group|gid>])"),
    (("--entrypoint",), "entrypoint", "Overwrite the default ENTRYPOINT of the image"),
    (("-h", "--hostname"), "hostname", "Container host name"),
    (("--domainname",), "domainname", "Container NIS domain name"),
    (("--restart",), "restart", "Restart policy to apply when a container exits"),
    (("-m", "--memory"), "memory", "Memory limit"),
    (("--memory-swap",), "memory_swap", "Swap limit equal to memory plus swap: -1 = unlimited"),
    (("--memory-reservation",), "memory_reservation", "Memory soft limit"),
    (("--cpus",), "cpus", "Number of CPUs"),
    (("--cpuset-cpus",), "cpuset_cpus", "CPUs in which to allow execution (0-3, 0,1)"),
    (("--cpuset-mems",), "cpuset_mems", "MEMs in which to allow execution (0-3, 0,1)"),
    (("--network", "--net"), "network", "Connect a container to a network"),
    (("--shm-size",), "shm_size", "Size of /dev/shm"),
    (("--stop-signal",), "stop_signal", "Signal to stop the container"),
    (("--ipc",), "ipc", "IPC mode to use"),
    (("--pid",), "pid", "PID namespace to use"),
    (("--uts",), "uts", "UTS namespace to use"),
    (("--cgroupns",), "cgroupns", "Cgroup namespace to use (host|private)"),
    (("--log-driver",), "log_driver", "Logging driver for the container"),
    (("--runtime",), "runtime", "Runtime to use for this container"),
)
_LISTS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("-a", "--attach"), "attach", "Attach to STDIN, STDOUT or STDERR"),
    (("-e", "--env"), "env", "Set environment variables"),
    (("-l", "--label"), "label", "Set meta data on a container"),
    (("--tmpfs",), "tmpfs", "Mount a tmpfs directory"),
    (("--cap-add",), "cap_add", "Add Linux capabilities"),
    (("--cap-drop",), "cap_drop", "Drop Linux capabilities"),
    (("-p", "--publish"), "publish", "Publish a container's port(s) to the host"),
    (("--expose",), "expose", "Expose a port or a range of ports"),
    (("-v", "--volume"), "volume", "Bind mount a volume"),
    (("--volumes-from",), "volumes_from", "Mount volumes from the specified container(s)"),
    (("--mount",), "mount", "Attach a filesystem mount to the container"),
    (("--add-host",), "add_host", "Add a custom host-to-IP mapping (host:ip)"),
    (("--dns",), "dns", "Set custom DNS servers"),
    (("--dns-search",), "dns_search", "Set custom DNS search domains"),
    (("--dns-option",), "dns_option", "Set DNS options"),
    (("--ulimit",), "ulimit", "Ulimit options"),
    (("--device",), "device", "Add a host device to the container"),
    (("--sysctl",), "sysctl", "Sysctl options"),
    (("--security-opt",), "security_opt", "Security Options"),
    (("--group-add",), "group_add", "Add additional groups to join"),
    (("--log-opt",), "log_opt", "Log driver options"),
    (("--annotation",), "annotation", "Add an annotation to the container"),
)
_SWITCHES: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("-i", "--interactive"), "interactive", "Keep STDIN open even if not attached"),
    (("-t", "--tty"), "tty", "Allocate a pseudo-TTY"),
    (("--rm",), "remove", "Automatically remove the container when it exits"),
    (("--read-only",), "read_only", "Mount the container's root filesystem as read only"),
    (("--privileged",), "privileged", "Give extended privileges to this container"),
    (("--init",), "init", "Run an init inside the container that forwards signals"),
    (("-P", "--publish-all"), "publish_all", "Publish all exposed ports to random ports"),
)
_NUMBERS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("-c", "--cpu-shares"), "cpu_shares", "CPU shares (relative weight)"),
    (("--cpu-quota",), "cpu_quota", "Limit CPU CFS quota, in microseconds"),
    (("--cpu-period",), "cpu_period", "Limit CPU CFS period, in microseconds"),
    (("--pids-limit",), "pids_limit", "Tune container pids limit (-1 for unlimited)"),
    (("--oom-score-adj",), "oom_score_adj", "Tune host's OOM preferences (-1000 to 1000)"),
    (("--stop-timeout",), "stop_timeout", "Timeout (in seconds) to stop a container"),
)


def _flags(function: F) -> F:
    """Every flag that `run` and `create` share, in the order of --help."""
    words = [click.option(*names, name, help=text) for names, name, text in _WORDS]
    lists = [click.option(*names, name, multiple=True, help=text) for names, name, text in _LISTS]
    switches = [
        click.option(*names, name, is_flag=True, help=text) for names, name, text in _SWITCHES
    ]
    numbers = [click.option(*names, name, type=int, help=text) for names, name, text in _NUMBERS]
    decorated = function
    for decorator in reversed([*switches, *words, *lists, *numbers, *_OTHERS]):
        decorated = decorator(decorated)
    return decorated


_OTHERS = (
    click.option("--env-file", "env_files", multiple=True, help="Read in a file of variables"),
    click.option("--label-file", "label_files", multiple=True, help="Read in a file of labels"),
    click.option("--platform", default="", help="Set platform if server is multi-platform"),
    click.option(
        "--pull",
        type=click.Choice(["always", "missing", "never"]),
        default="missing",
        help="Pull image before running",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Suppress the pull output"),
    click.option("--cidfile", default="", help="Write the container ID to the file"),
    click.argument("image"),
    click.argument("command", nargs=-1, type=click.UNPROCESSED),
)
_CONTEXT = {"allow_interspersed_args": False, "help_option_names": ["--help"]}


@click.command(cls=DockerCommand, context_settings=_CONTEXT)
@click.option("-d", "--detach", is_flag=True, help="Run in background and print container ID")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Proxy signals to the process")
@click.option("--detach-keys", default="", help="Override the key sequence for detaching")
@_flags
@click.pass_obj
def run(
    session: Session, /, detach: bool, sig_proxy: bool, detach_keys: str, **given: object
) -> int:
    """Create and run a new container from an image."""
    flags = _run_flags(session, {**given, "detach": detach})
    if flags.tty and flags.interactive and not detach and not terminal.is_terminal():
        raise MachineError("the input device is not a TTY", exit_code=1)
    client = engine(session)
    with _run_errors():
        container = _create(session, client, flags, given)
        if detach:
            client.post(f"/containers/{container}/start")
            session.say(container)
            return 0
        return follow(client, container, flags, sig_proxy=sig_proxy, detach_keys=detach_keys)


@click.command(cls=DockerCommand, context_settings=_CONTEXT)
@_flags
@click.pass_obj
def create(session: Session, /, **given: object) -> int:
    """Create a new container."""
    flags = _run_flags(session, given)
    with _run_errors():
        session.say(_create(session, engine(session), flags, given))
    return 0


@contextlib.contextmanager
def _run_errors() -> Iterator[None]:
    """docker's exit statuses of `run`: 125 the engine, 126 can't be run, 127 not found."""
    try:
        yield
    except EngineApiError as error:
        error.exit_code = remote_exit(error.message)
        raise


def _run_flags(session: Session, given: dict[str, object]) -> RunFlags:
    known = {name: value for name, value in given.items() if name in RunFlags.__annotations__}
    known = {name: value for name, value in known.items() if value is not None}
    labels = [*_lines(given["label_files"]), *_words(given["label"])]
    return RunFlags(
        **{  # type: ignore[arg-type]  # click read each by its field's type
            **known,
            "label": tuple(line for line in labels if line),
            "env_file_lines": tuple(_lines(given["env_files"])),
            "environ": session.env,
            "console_size": terminal.size(),
        }
    )


def _words(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, tuple | list) else []


def _lines(files: object) -> list[str]:
    return [line for name in _words(files) for line in Path(name).read_text().splitlines()]


def _create(session: Session, client: Engine, flags: RunFlags, given: dict[str, object]) -> str:
    platform, policy, quiet = str(given["platform"]), given["pull"], bool(given["quiet"])
    if policy == "always":
        pull_image(session, client, flags.image, platform=platform, quiet=quiet, to_stderr=True)
    query = {"name": flags.name, "platform": platform}
    body = create_body(flags)
    try:
        answer = client.post("/containers/create", body, **query)
    except EngineApiError as error:
        if error.status != 404 or policy != "missing" or "image" not in error.message.lower():
            raise
        session.warn(f"Unable to find image '{_with_tag(flags.image)}' locally")
        pull_image(session, client, flags.image, platform=platform, quiet=quiet, to_stderr=True)
        answer = client.post("/containers/create", body, **query)
    if not isinstance(answer, dict):
        raise MachineError("The engine's answer to create has no id")
    for warning in answer.get("Warnings") or []:
        session.warn(f"WARNING: {warning}")
    container = str(answer["Id"])
    if given["cidfile"]:
        _write_new(Path(str(given["cidfile"])), container)
    return container


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        raise MachineError(
            f"container ID file found, make sure the other container isn't running or delete {path}"
        ) from None


def _with_tag(image: str) -> str:
    last = image.rsplit("/", 1)[-1]
    return image if ":" in last or "@" in last else f"{image}:latest"
