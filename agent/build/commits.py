"""POST /commit: a container's files and configuration as an image."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

from agent.build import draft as drafts
from agent.build import instructions, metadata, parser
from agent.build.args import BuildArgs
from agent.build.copying import copy_upper
from agent.build.draft import Draft
from agent.build.instructions import Command, Env, Healthcheck, Label, OnBuild, Single, Words
from agent.build.scope import ConfigState, World
from agent.engine.building import CommitRequest
from agent.engine.model import Container, ContainerConfig
from agent.errors import invalid

_ALLOWED = (Command, Env, Healthcheck, Label, OnBuild, Single, Words)
_REFUSED = frozenset({"MAINTAINER"})


def commit(
    world: World, container: Container, request: CommitRequest, host: tuple[str, str, str]
) -> str:
    """The container's upper directory is copied, since the container keeps it; the copy is moved
    into place.  The image's id."""
    tags = [(request.repo, request.tag or "latest")] if request.repo else []
    for repo, tag in tags:
        world.layers.check_tag(repo, tag)
    base = drafts.load(world.layers.document(container.image_id), container.image_id)
    changed = change(base_with(base, container.config), request.changes)
    changed = overridden(changed, request.overrides)
    world.layers.hold(base.diff_ids)
    held = list(base.diff_ids)
    try:
        folder = world.layers.stage(base.diff_ids)
        try:
            copy_upper(world.upper(container.id), os.path.join(folder, "diff"), lambda: False)
            diff_id = world.layers.commit(folder)
        except BaseException:
            world.layers.discard(folder)
            raise
        held.append(diff_id)
        created_by = " ".join(container.config.cmd or ())
        made = dataclasses.replace(changed, author=request.author)
        if not made.platform[1]:
            made = dataclasses.replace(made, platform=host)
        done = made.step(created_by, world.now(), diff_id, request.comment)
        return world.layers.record(done.raw, tags).id
    finally:
        world.layers.release(held)


def base_with(base: Draft, config: ContainerConfig) -> Draft:
    """The container's merged configuration in the image's place."""
    return base.with_config(
        User=config.user,
        ExposedPorts={name: {} for name in config.exposed_ports},
        Env=list(config.env) or None,
        Entrypoint=None if config.entrypoint is None else list(config.entrypoint),
        Cmd=None if config.cmd is None else list(config.cmd),
        Volumes={name: {} for name in config.volumes},
        WorkingDir=config.working_dir,
        Labels=dict(config.labels),
        StopSignal=config.stop_signal,
        Shell=list(config.shell) or None,
        OnBuild=list(config.on_build) or None,
    )


def overridden(draft: Draft, document: Mapping[str, object]) -> Draft:
    """The request body's ContainerConfig: what it sets wins."""
    keys: tuple[str, ...] = (
        "User",
        "ExposedPorts",
        "Env",
        "Entrypoint",
        "Cmd",
        "Volumes",
        "WorkingDir",
    )
    keys += ("Labels", "StopSignal", "Shell", "OnBuild", "Healthcheck")
    given = {key: document[key] for key in keys if document.get(key)}
    if isinstance(given.get("Env"), list):
        pairs = [str(one).partition("=") for one in _items(given["Env"])]
        env = drafts.with_env(draft.texts("Env") or (), [(one[0], one[2]) for one in pairs])
        given["Env"] = env
    if isinstance(given.get("Labels"), dict):
        given["Labels"] = {**draft.labels(), **_texts(given["Labels"])}
    return draft.with_config(**given)


def _items(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []


def _texts(value: object) -> dict[str, str]:
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


def change(draft: Draft, changes: tuple[str, ...]) -> Draft:
    """`changes`: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER,
    VOLUME and WORKDIR lines.  INVALID for others."""
    text = "\n".join(changes)
    if not text.strip():
        return draft
    parsed = parser.parse(text.encode("utf-8", "surrogateescape"))
    stage = ConfigState(BuildArgs({}, {}), draft, command_set=True)
    for node in parsed.nodes:
        body = instructions.instruction(node).body
        if not isinstance(body, _ALLOWED) or node.name in _REFUSED:
            raise invalid(f"{node.name} is not a valid change command")
        metadata.apply(stage, body)
    return stage.draft
