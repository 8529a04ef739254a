"""The agent's process.

    python -m agent [--config FILE] [--no-tcp] [serve]     serve until SIGTERM
    python -m agent [--config FILE] --check                 is the configuration usable?
    python -m agent [--config FILE] teardown                remove containers, network, $RUN
    python -m agent [--config FILE] [--forget] scrub        hash images and layers again
    python -m agent --version

Signals: SIGTERM and SIGINT stop it in order (containers run on, unless systemd shuts the host
down: then they are ended); SIGHUP reads the TLS files and the configuration's registries and
labels anew (all else needs a restart).

Exit codes: 0 stopped in order; 1 an unexpected failure; 2 wrong usage; 3 the database is
damaged (the message says what to do); 69 cannot listen;
75 another agent uses the data folder; 78 the configuration cannot be used (sysexits.h).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from agent import __version__
from agent.config import DEFAULT_PATH, Config, ConfigError, load
from agent.errors import EngineError

if TYPE_CHECKING:
    from agent.server.serve import Server
    from agent.wiring import Agent

OK, FAILED, USAGE, DAMAGED, UNAVAILABLE, BUSY, BAD_CONFIG = 0, 1, 2, 3, 69, 75, 78

# Seconds for containers to end when the host goes down; the unit's TimeoutStopSec is longer.
_POWER_DOWN = 60.0

_log = logging.getLogger("agent")


def main() -> None:
    # Loading makes objects that stay; looking for garbage among them costs a tenth of the start.
    gc.disable()
    sys.exit(run(sys.argv[1:], os.environ))


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """The exit code; what went wrong is one line on standard error."""
    arguments = _arguments().parse_args(argv)
    if arguments.version:
        print(f"machine agent {__version__}")
        return OK
    try:
        config = load(arguments.config or DEFAULT_PATH, optional=arguments.config is None)
        if arguments.no_tcp:
            config = _without_tcp(config)
        _log_to_stderr(config.log_level, environ)
        return _act(arguments, config, environ)
    except ConfigError as error:
        return _say(error, BAD_CONFIG)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("agent", description="Container engine (Docker Engine API).")
    parser.add_argument("--config", metavar="FILE", help=f"configuration (default {DEFAULT_PATH})")
    parser.add_argument("--no-tcp", action="store_true", help="listen on the unix socket only")
    parser.add_argument("--check", action="store_true", help="check the configuration and exit")
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    parser.add_argument(
        "command", nargs="?", default="serve", choices=("serve", "teardown", "scrub")
    )
    parser.add_argument(
        "--forget", action="store_true", help="scrub: have damaged layers pulled anew"
    )
    return parser


def _without_tcp(config: Config) -> Config:
    if config.unix_socket is None:
        raise ConfigError('--no-tcp leaves nothing to listen on: "unix_socket" is null')
    return dataclasses.replace(config, tcp=None)


def _act(arguments: argparse.Namespace, config: Config, environ: Mapping[str, str]) -> int:
    # The adapters are imported only now: --version and a bad file answer at once.
    from agent.server.listeners import ListenError
    from agent.server.tls import TlsError
    from agent.state.lock import LockedError
    from agent.state.records import StateDamagedError

    codes: dict[type[Exception], int] = {
        LockedError: BUSY,
        StateDamagedError: DAMAGED,
        ListenError: UNAVAILABLE,
        TlsError: UNAVAILABLE,
    }
    try:
        _run_command(arguments, config, environ)
    except (EngineError, OSError, ListenError, TlsError) as error:
        return _say(error, codes.get(type(error), FAILED))
    return OK


def _run_command(arguments: argparse.Namespace, config: Config, environ: Mapping[str, str]) -> None:
    from agent import wiring

    if arguments.command != "serve":
        gc.enable()
    if arguments.command == "teardown":
        wiring.teardown(config, __version__)
        return
    if arguments.command == "scrub":
        _scrub(config, forget=arguments.forget)
        return
    wiring.check(config)
    if arguments.check:
        return
    _raise_file_limit()
    os.umask(0o022)
    agent = wiring.compose(config, __version__)
    try:
        agent.engine.start()
        asyncio.run(_serve(agent, arguments.config or DEFAULT_PATH, environ))
        if wiring.host_goes_down():
            _log.info("the host goes down: ending all containers")
            agent.engine.power_down(_POWER_DOWN)
    finally:
        agent.close()


def _scrub(config: Config, *, forget: bool) -> None:
    """Beside a serving agent; one line a damage.  Raises EngineError (DATA_LOSS) when there is any."""
    from agent.errors import data_loss
    from agent.images import scrub

    for found in scrub.scrub(config.root):
        if isinstance(found, scrub.Damage):
            owners = ", ".join(found.images) or "no image"
            print(f"damaged {found.what} {found.digest} of {owners}: {found.reason}", flush=True)
            continue
        print(f"checked {found.layers} layers and {found.documents} documents")
        if found.damaged and forget:
            scrub.forget(config.root, found.damaged)
        if found.damaged:
            how = "pull" if forget else "run `scrub --forget`, then pull"
            raise data_loss(f"{len(found.damaged)} damaged: {how} the images above again")


def _say(error: Exception, code: int) -> int:
    print(f"agent: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def _log_to_stderr(level: str, environ: Mapping[str, str]) -> None:
    """journald stamps lines itself; anything else gets the time."""
    stamp = "" if "JOURNAL_STREAM" in environ else "%(asctime)s "
    logging.basicConfig(
        level={"warn": "WARNING"}.get(level, level.upper()),
        format=f"{stamp}%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )


def _raise_file_limit() -> None:
    """As many descriptors as the system grants: one a connection, several a container."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(agent: Agent, path: str, environ: Mapping[str, str]) -> None:
    from agent import wiring
    from agent.server.serve import serve

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    pid_file = os.path.join(agent.config.run, "agent.pid")

    def reload(server: Server) -> None:
        _reload(server, agent, path)

    def ready(server: Server) -> None:
        loop.add_signal_handler(signal.SIGHUP, reload, server)
        _write_pid(pid_file)
        # What exists now lives as long as the process: the collector need not look at it again.
        gc.freeze()
        gc.enable()
        notify(environ, "READY=1")
        _log.info("version %s is ready", __version__)

    try:
        await serve(agent.application, wiring.listeners(agent.config), stop, ready=ready)
    finally:
        notify(environ, "STOPPING=1")
        with contextlib.suppress(OSError):
            os.unlink(pid_file)


def _reload(server: Server, agent: Agent, path: str) -> None:
    """SIGHUP: the TLS files, and of the configuration registries and labels."""
    from agent.server.tls import TlsError

    try:
        config = load(path, optional=path == DEFAULT_PATH)
        server.reload()
    except (ConfigError, TlsError) as error:
        _log.error("keeping the old configuration and TLS files: %s", error)
        return
    agent.reconfigure(config)
    _log.info("read configuration and TLS files anew")


def _write_pid(path: str) -> None:
    fresh = f"{path}.new"
    with open(fresh, "w", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")
    os.rename(fresh, path)


def notify(environ: Mapping[str, str], state: str) -> None:
    """sd_notify(3); nothing without a service manager that listens."""
    path = environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.connect(address)
        sock.sendall(state.encode())


if __name__ == "__main__":
    main()
