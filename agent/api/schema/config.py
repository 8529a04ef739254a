"""ContainerConfig: the portable half of POST /containers/create."""

from __future__ import annotations

import re
from typing import Final

from agent.api.schema.fields import (
    Document,
    Field,
    Table,
    boolean,
    built,
    integer,
    key_set,
    text,
    text_map,
    text_or_texts,
    texts,
    unserved,
)
from agent.api.schema.ports import exposed
from agent.engine.model import ContainerConfig
from agent.errors import invalid
from agent.wire.http import printable

_HOSTNAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,255}")


def _exposed_ports(value: object, where: str) -> tuple[str, ...]:
    return tuple(exposed(key) for key in key_set(value, where))


HEALTHCHECK: Final = Table(
    "HealthConfig",
    (
        Field("Test", texts, "Test"),
        Field("Interval", integer, "Interval"),
        Field("Timeout", integer, "Timeout"),
        Field("StartPeriod", integer, "StartPeriod"),
        Field("StartInterval", integer, "StartInterval"),
        Field("Retries", integer, "Retries"),
    ),
)


def _healthcheck(value: object, where: str) -> Document:
    """Kept in the API's spelling, as images have it."""
    found = HEALTHCHECK.decode(value, where)
    return {name: list(one) if isinstance(one, tuple) else one for name, one in found.items()}


CONTAINER_CONFIG: Final = Table(
    "ContainerConfig",
    (
        Field("Hostname", text, "hostname"),
        Field("Domainname", text, "domainname"),
        Field("User", text, "user"),
        Field("AttachStdin", boolean, "attach_stdin"),
        Field("AttachStdout", boolean, "attach_stdout"),
        Field("AttachStderr", boolean, "attach_stderr"),
        Field("ExposedPorts", _exposed_ports, "exposed_ports"),
        Field("Tty", boolean, "tty"),
        Field("OpenStdin", boolean, "open_stdin"),
        Field("StdinOnce", boolean, "stdin_once"),
        Field("Env", texts, "env"),
        Field("Cmd", text_or_texts, "cmd"),
        Field("Healthcheck", _healthcheck, "healthcheck"),
        Field("ArgsEscaped", boolean),  # of Windows; clients that copy a container send it back
        Field("Image", text, "image"),
        Field("Volumes", key_set, "volumes"),
        Field("WorkingDir", text, "working_dir"),
        Field("Entrypoint", text_or_texts, "entrypoint"),
        unserved("NetworkDisabled"),
        Field("MacAddress", text),  # see schema.networks
        Field("OnBuild", texts, "on_build"),
        Field("Labels", text_map, "labels"),
        Field("StopSignal", text, "stop_signal"),
        Field("StopTimeout", integer, "stop_timeout"),
        Field("Shell", text_or_texts, "shell"),
    ),
)


def container_config(document: Document) -> ContainerConfig:
    """Decodes and checks.  Raises EngineError: INVALID."""
    config = built(ContainerConfig, CONTAINER_CONFIG.decode(document))
    if not config.image:
        raise invalid("no image specified")
    for one in config.env:
        if not one.partition("=")[0]:
            raise invalid(f"invalid environment variable: {printable(one)}")
    if config.working_dir and not config.working_dir.startswith("/"):
        raise invalid(
            f"the working directory '{printable(config.working_dir)}' is invalid, "
            "it needs to be an absolute path"
        )
    for name in (config.hostname, config.domainname):
        if name and not _HOSTNAME.fullmatch(name):
            raise invalid(f"invalid hostname format: {printable(name)}")
    for target in config.volumes:
        if not target.startswith("/"):
            raise invalid(
                f"invalid volume specification: '{printable(target)}': mount path must be absolute"
            )
        if not target.strip("/"):
            raise invalid(
                f"invalid volume specification: '{printable(target)}': destination can't be '/'"
            )
    return config
