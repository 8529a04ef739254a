"""A container's configuration from the request and the image's, as Docker Engine merges them; pure.

Nothing of an image decides anything on the host (security.md C32, case 45): its values only become
the container's environment, command, user, working folder, labels and volume targets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from agent.engine import healthcheck
from agent.engine.model import ContainerConfig, ImageConfig
from agent.errors import invalid


def merge(config: ContainerConfig, image: ImageConfig) -> ContainerConfig:
    """moby daemon/commit.go merge(): the request wins, by key where there are keys."""
    entrypoint, cmd = config.entrypoint, config.cmd
    if not entrypoint:
        cmd = cmd or image.cmd
        # `--entrypoint ""` sends [""]; an empty list given on purpose stays as it is.
        entrypoint = image.entrypoint if entrypoint is None else entrypoint
    if entrypoint == ("",):
        entrypoint = None
    return dataclasses.replace(
        config,
        user=config.user or image.user,
        exposed_ports=_union(config.exposed_ports, image.exposed_ports),
        env=merge_env(config.env, image.env),
        entrypoint=entrypoint,
        cmd=cmd,
        volumes=_union(config.volumes, image.volumes),
        working_dir=config.working_dir or image.working_dir,
        labels={**image.labels, **config.labels},
        stop_signal=config.stop_signal or image.stop_signal,
        shell=config.shell or image.shell,
        healthcheck=healthcheck.merge(config.healthcheck, image.healthcheck),
    )


def merge_env(given: Iterable[str], inherited: Iterable[str]) -> tuple[str, ...]:
    """The request's first, then the image's whose name the request does not set."""
    own = tuple(given)
    names = {entry.partition("=")[0] for entry in own}
    return own + tuple(one for one in inherited if one.partition("=")[0] not in names)


def command(config: ContainerConfig) -> tuple[str, tuple[str, ...]]:
    """(path, args) of a merged configuration.  INVALID "No command specified"."""
    words = (*(config.entrypoint or ()), *(config.cmd or ()))
    if not words:
        raise invalid("No command specified")
    return words[0], words[1:]


def validate(config: ContainerConfig) -> None:
    """What must hold of the request's own part.  Raises INVALID with docker's texts."""
    if config.working_dir and not config.working_dir.startswith("/"):
        raise invalid(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute"
            " path"
        )
    for entry in config.env:
        if not entry or entry.startswith("=") or "\0" in entry:
            raise invalid(f"invalid environment variable: {entry}")
    words = (*(config.entrypoint or ()), *(config.cmd or ()), config.working_dir, config.user)
    healthcheck.validate(config.healthcheck)
    if any("\0" in word for word in words):
        raise invalid("a NUL byte is not allowed in a command, a user or a working directory")


def _union(first: Iterable[str], second: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))
