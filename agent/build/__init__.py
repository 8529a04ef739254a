"""Dockerfile builds: parser, instructions, cache, context, stages, and `commit`.

`open_builder` is the composition entry; `agent.engine.building` is the contract.  Like the other
adapters this package knows ports, model, host and wire only.
"""

from __future__ import annotations

import typing

if typing.TYPE_CHECKING:
    from agent.build.builder import DockerBuilder
    from agent.engine.building import Layers, Runs
    from agent.engine.ports import Clock, Images, Snapshots


def open_builder(
    root: str,
    run: str,
    layers: Layers,
    runs: Runs,
    images: Images,
    snapshots: Snapshots,
    clock: Clock,
) -> DockerBuilder:
    """The builder below `root` ($ROOT) and `run` ($RUN, for secrets); what a dead agent was building is removed."""
    import os

    from agent.build.builder import DockerBuilder
    from agent.build.scope import World
    from agent.build.secretmounts import prepare_folder

    world = World(
        layers=layers,
        images=images,
        runs=runs,
        mounts="",
        secrets=prepare_folder(run),
        now=clock.now,
        upper=lambda container_id: snapshots.rootfs(container_id).upper,
    )
    return DockerBuilder(os.path.join(root, "build"), world, host_platform(os.uname().machine))


def host_platform(machine: str) -> tuple[str, str, str]:
    """(os, architecture, variant) as Go and image configurations spell them."""
    names = {
        "x86_64": ("amd64", ""),
        "aarch64": ("arm64", "v8"),
        "armv7l": ("arm", "v7"),
        "armv6l": ("arm", "v6"),
        "i686": ("386", ""),
    }
    architecture, variant = names.get(machine, (machine, ""))
    return "linux", architecture, variant
