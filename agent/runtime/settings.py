"""Where the runtime adapter keeps things, and the names of what it makes."""

from __future__ import annotations

import os

from agent.engine.model import Ulimit
from agent.values import frozen


@frozen
class RuntimeSettings:
    """`root` ($ROOT) survives reboots, `run` ($RUN) is on tmpfs; both absolute, owned by root.

    `cgroup_parent` is the absolute cgroup path under which each container gets `/<id>`; the
    monitors live in `<cgroup_parent>-conmon`.  Times in seconds.
    """

    root: str
    run: str
    runtime: str = "auto"  # "auto" | "crun" | "runc"
    conmon: str = "conmon"
    init_paths: tuple[str, ...] = (
        "/usr/bin/docker-init",
        "/usr/bin/tini-static",
        "/usr/bin/tini",
        "/usr/bin/catatonit",
        "/usr/libexec/podman/catatonit",
    )
    cgroup_parent: str = "/machine"
    default_ulimits: tuple[Ulimit, ...] = ()
    create_timeout: float = 60.0
    command_timeout: float = 60.0


@frozen
class Paths:
    """Every path of ours that is named after a container, in one place."""

    settings: RuntimeSettings

    @property
    def exits(self) -> str:
        """conmon leaves `exits/<id>`, holding the exit code, when a container has ended."""
        return f"{self.settings.run}/exits"

    @property
    def bundles(self) -> str:
        return f"{self.settings.run}/containers"

    @property
    def execs(self) -> str:
        return f"{self.settings.run}/execs"

    @property
    def views(self) -> str:
        """Mount points of `agent.runtime.view`; empty but while something is copied."""
        return f"{self.settings.run}/views"

    @property
    def state(self) -> str:
        """The OCI runtime's own state directory (--root)."""
        return f"{self.settings.run}/oci"

    def bundle(self, container_id: str) -> str:
        return f"{self.bundles}/{container_id}"

    def record(self, container_id: str) -> str:
        return f"{self.bundles}/{container_id}/state.json"

    def exit_file(self, container_id: str) -> str:
        return f"{self.exits}/{container_id}"

    def log_dir(self, container_id: str) -> str:
        return f"{self.settings.root}/containers/{container_id}"

    def log(self, container_id: str) -> str:
        return f"{self.settings.root}/containers/{container_id}/ctr.log"

    def make(self) -> None:
        """Make the folders: nobody but root may look into any of them (C34)."""
        for folder in (self.settings.run, self.bundles, self.exits, self.execs, self.state):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        os.makedirs(f"{self.settings.root}/containers", mode=0o700, exist_ok=True)
