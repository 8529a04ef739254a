"""Execs as the API shows and asks for them."""

from __future__ import annotations

from typing import Final

from agent.api.schema.fields import (
    Document,
    Field,
    Table,
    boolean,
    built,
    integers,
    text,
    text_or_texts,
    texts,
)
from agent.engine.model import ExecConfig, ExecInfo
from agent.errors import invalid
from agent.values import frozen
from agent.wire.http import printable

EXEC_CONFIG: Final = Table(
    "ExecConfig",
    (
        Field("AttachStdin", boolean, "attach_stdin"),
        Field("AttachStdout", boolean, "attach_stdout"),
        Field("AttachStderr", boolean, "attach_stderr"),
        Field("ConsoleSize", integers, "console_size"),
        Field("DetachKeys", text, "detach_keys"),
        Field("Tty", boolean, "tty"),
        Field("Env", texts, "env"),
        Field("Cmd", text_or_texts, "cmd"),
        Field("Privileged", boolean, "privileged"),
        Field("User", text, "user"),
        Field("WorkingDir", text, "working_dir"),
    ),
)
EXEC_START: Final = Table(
    "ExecStartConfig",
    (
        Field("Detach", boolean, "detach"),
        Field("Tty", boolean, "tty"),
        Field("ConsoleSize", integers, "console_size"),
    ),
)


@frozen(slots=True)
class ExecStart:
    """console_size: (height, width) or empty."""

    detach: bool = False
    tty: bool = False
    console_size: tuple[int, ...] = ()


def exec_config(document: object) -> ExecConfig:
    """Raises EngineError (INVALID)."""
    decoded = {"cmd": (), **EXEC_CONFIG.decode({} if document is None else document)}
    config = built(ExecConfig, decoded)
    if not config.cmd:
        raise invalid("No exec command specified")
    for one in config.env:
        if not one.partition("=")[0]:
            raise invalid(f"invalid environment variable: {printable(one)}")
    return config


def exec_start(document: object) -> ExecStart:
    """Raises EngineError (INVALID)."""
    start = built(ExecStart, EXEC_START.decode({} if document is None else document))
    if start.console_size and len(start.console_size) != 2:
        raise invalid("invalid JSON: ConsoleSize must have two elements")
    return start


def exec_document(info: ExecInfo) -> Document:
    """GET /exec/{id}/json."""
    config = info.config
    process: Document = {
        "tty": config.tty,
        "entrypoint": config.cmd[0],
        "arguments": list(config.cmd[1:]),
        "privileged": config.privileged,
    }
    if config.user:
        process["user"] = config.user
    return {
        "ID": info.id,
        "Running": info.running,
        "ExitCode": info.exit_code,
        "ProcessConfig": process,
        "OpenStdin": config.attach_stdin,
        "OpenStderr": config.attach_stderr,
        "OpenStdout": config.attach_stdout,
        "CanRemove": not info.running and info.exit_code is not None,
        "ContainerID": info.container_id,
        "DetachKeys": config.detach_keys,
        "Pid": info.pid,
    }
