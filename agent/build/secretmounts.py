"""RUN --mount=type=secret: a file or a variable that only this RUN sees.

The bytes come with the request and live in $RUN, which is memory on every host, for as long as the
step runs.  They are no part of the cache's key, the layer, the history or the configuration
(security.md case 75); the cache knows a secret by its name only, as BuildKit's does.
"""

from __future__ import annotations

import os
import posixpath
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from agent.build import owners
from agent.build.instructions import Mount
from agent.build.mountoptions import flag, number
from agent.build.scope import Build
from agent.engine.model import MountPoint
from agent.errors import invalid
from agent.host import tree

_FOLDER = "/run/secrets"
_MODE = 0o400


def prepare_folder(run: str) -> str:
    """The folder for secrets below $RUN, emptied of a dead agent's."""
    folder = os.path.join(run, "build-secrets")
    with tree.opened(run) as parent:
        tree.remove_tree(parent, "build-secrets")
    tree.make_private(folder)
    return folder


class SecretMounts:
    """The secrets of one RUN; their files go with `stack`."""

    def __init__(self, build: Build, expand: Callable[[str], str], stack: ExitStack) -> None:
        self._build = build
        self._expand = expand
        self._stack = stack
        self._folder = ""
        self.env: dict[str, str] = {}

    def add(self, one: Mount, target_of: Callable[[str], str]) -> tuple[list[MountPoint], str]:
        """The mounts that it takes, and what the cache is told.  INVALID."""
        options = {name: self._expand(value) for name, value in one.options.items()}
        identity, target = _names(options)
        said = f"secret {identity} {target} {options.get('env', '')}"
        required = flag(options, "required")
        content = self._build.request.secrets.get(identity)
        if content is None:
            if required:
                raise invalid(
                    f"secret {identity}: not found (give it with `machine build --secret "
                    f"id={identity},src=FILE`; docker's classic client can't send secrets)"
                )
            return [], said
        variable = options.get("env", "")
        if variable:
            self.env[variable] = _text(identity, content)
        if variable and not options.get("target"):
            return [], said
        where = target_of(target)
        return [MountPoint("bind", where, self._file(options, content), read_write=False)], said

    def _file(self, options: Mapping[str, str], content: bytes) -> str:
        if not self._folder:
            self._folder = tempfile.mkdtemp(dir=self._build.world.secrets)
            self._stack.callback(_forget, self._folder)
        mode = owners.mode(options.get("mode", ""))
        uid, gid = number(options, "uid"), number(options, "gid")
        fd, path = tempfile.mkstemp(dir=self._folder)
        with open(fd, "wb") as file:
            file.write(content)
            os.fchown(fd, uid, gid)
            os.fchmod(fd, _MODE if mode is None else mode)
        return path


def _forget(folder: str) -> None:
    with tree.opened(os.path.dirname(folder)) as parent:
        tree.remove_tree(parent, os.path.basename(folder))


def _names(options: Mapping[str, str]) -> tuple[str, str]:
    """A secret's id and where it is mounted: each stands for the other when it is left out."""
    target = options.get("target", "")
    identity = options.get("id") or options.get("source") or posixpath.basename(target)
    if not identity:
        raise invalid("invalid mount: a secret needs an id or a target")
    return identity, target or posixpath.join(_FOLDER, posixpath.basename(identity))


def _text(identity: str, content: bytes) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise invalid(f"secret {identity} can't be a variable: it is no text")
    return text
