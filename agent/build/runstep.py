"""RUN: a container on what was built so far; its upper directory becomes the layer."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import hashlib
import os
import posixpath
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent.build import origins, overlay, owners
from agent.build.copying import Copier, Rules
from agent.build.instructions import Mount, Run
from agent.build.mountoptions import number
from agent.build.scope import Build, StageState
from agent.build.secretmounts import SecretMounts
from agent.build.sshforward import SshMounts
from agent.build.treesum import TreeSum
from agent.engine import names
from agent.engine.building import CommandFailedError
from agent.engine.model import Container, ContainerConfig, HostConfig, MountPoint
from agent.engine.ports import Rootfs
from agent.errors import forbidden, invalid
from agent.host import openat

_RED, _PLAIN = "\x1b[91m", "\x1b[0m"


@dataclass(frozen=True)
class Prepared:
    """A RUN with everything expanded.  `digest`: of what its mounts read."""

    command: tuple[str, ...]
    env: tuple[str, ...]
    created_by: str
    mounts: tuple[MountPoint, ...]
    network: str
    digest: str


def run(stage: StageState, one: Run) -> None:
    """Raises CommandFailedError, EngineError."""
    _check(stage, one)
    with contextlib.ExitStack() as stack:
        prepared = _prepare(stage, one, stack)
        wanted = stage.draft
        extra = prepared.digest
        stage.step(prepared.created_by, wanted, lambda: _layer(stage, prepared), extra)


def _check(stage: StageState, one: Run) -> None:
    if one.security == "insecure" and not stage.build.request.isolation_privileged:
        raise forbidden("RUN --security=insecure is not allowed by this engine")


def _prepare(stage: StageState, one: Run, stack: contextlib.ExitStack) -> Prepared:
    draft = stage.draft
    words = (*draft.shell(), *one.words) if one.in_shell else one.words
    env = draft.env()
    given = stage.args.allowed(env)
    shown = stage.args.shown(given)
    prefix = (f"|{len(shown)}", *shown) if shown else ()
    created_by = " ".join((*prefix, *words))
    secrets = SecretMounts(stage.build, stage.word, stack)
    agents = SshMounts(stage.build.agent_of, stage.build.world.secrets, stage.word, stack)
    mounts, digest = _mounts(stage, one.mounts, (secrets, agents), stack)
    if one.network in ("none", "host"):
        digest += f" network={one.network}"
    whole = {**given, **env, **secrets.env, **agents.env}
    return Prepared(
        command=tuple(words),
        env=tuple(f"{name}={value}" for name, value in whole.items()),
        created_by=created_by,
        mounts=mounts,
        network=one.network if one.network in ("none", "host") else "",
        digest=digest.strip(),
    )


def _layer(stage: StageState, prepared: Prepared) -> str:
    build, layers = stage.build, stage.build.world.layers
    if not prepared.command:
        raise invalid("No command specified")
    folder = layers.stage(stage.draft.diff_ids)
    try:
        lower = layers.lower(stage.draft.diff_ids)
        made = _missing(build, lower, prepared.mounts)
        code = _execute(stage, prepared, folder)
        _succeeded(prepared, code)
        _remove_mountpoints(os.path.join(folder, "diff"), made)
        return build.commit(folder)
    except BaseException:
        layers.discard(folder)
        raise


def _succeeded(prepared: Prepared, code: int) -> None:
    if code != 0:
        command = " ".join(prepared.command)
        text = f"The command '{command}' returned a non-zero code: {code}"
        raise CommandFailedError(text, code)


def _execute(stage: StageState, prepared: Prepared, folder: str) -> int:
    build, layers = stage.build, stage.build.world.layers
    container = _container(stage, prepared)
    rootfs = Rootfs(
        lower=(layers.init(), *layers.lower(stage.draft.diff_ids)),
        upper=os.path.join(folder, "diff"),
        work=os.path.join(folder, "work"),
    )
    build.say(f" ---> Running in {container.id[:12]}\n")
    texts = {1: _Text("", ""), 2: _Text(_RED, _PLAIN)}

    def output(stream: int, data: bytes) -> None:
        text = texts[2 if stream == 2 else 1].feed(data)
        if text:
            build.say(text)

    code = build.world.runs.run(container, rootfs, output, build.gone)
    if code == 0:
        build.say(f" ---> Removed intermediate container {container.id[:12]}\n")
    return code


class _Text:
    """Output bytes as text, whatever way a character is cut."""

    def __init__(self, before: str, after: str) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._marks = (before, after)

    def feed(self, data: bytes) -> str:
        text = self._decoder.decode(data)
        return f"{self._marks[0]}{text}{self._marks[1]}" if text else ""


def _container(stage: StageState, prepared: Prepared) -> Container:
    draft, request = stage.draft, stage.build.request
    identity = names.random_id()
    volumes = _volumes(stage, {one.target for one in prepared.mounts})
    config = ContainerConfig(
        image=draft.image_id,
        hostname=identity[:12],
        user=draft.text("User"),
        attach_stdout=True,
        attach_stderr=True,
        env=prepared.env,
        cmd=prepared.command,
        working_dir=draft.text("WorkingDir"),
        labels={},
    )
    return Container(
        id=identity,
        name=f"build-{identity[:12]}",
        created=stage.build.world.now(),
        config=config,
        host_config=HostConfig(
            network_mode=prepared.network or request.network_mode or "default",
            extra_hosts=request.extra_hosts,
            shm_size=request.shm_size,
            resources=request.resources,
        ),
        image_id=draft.image_id,
        image_ref=draft.image_id,
        path=prepared.command[0],
        args=prepared.command[1:],
        mounts=(*prepared.mounts, *volumes),
    )


def _volumes(stage: StageState, taken: set[str]) -> list[MountPoint]:
    """VOLUMEs of the image: what a RUN writes there is not kept, as docker's."""
    found = []
    for target in stage.draft.names("Volumes"):
        clean = posixpath.normpath(target)
        if clean not in taken and clean.startswith("/"):
            source = os.path.join(stage.build.temporary(), "volume")
            os.mkdir(source, 0o755)
            found.append(MountPoint("volume", clean, source, copy_up=True))
    return found


# -------------------------------------------------------------------------------- RUN --mount


def _mounts(
    stage: StageState,
    mounts: Sequence[Mount],
    given: tuple[SecretMounts, SshMounts],
    stack: contextlib.ExitStack,
) -> tuple[tuple[MountPoint, ...], str]:
    found: list[MountPoint] = []
    digests: list[str] = []
    for one in mounts:
        if one.type in ("secret", "ssh"):
            kind = given[one.type == "ssh"]
            some, said = kind.add(one, lambda text: _target(stage, text))
            found += some
            digests.append(said)
            continue
        options = {name: stage.word(value) for name, value in one.options.items()}
        target = _target(stage, options["target"])
        if one.type == "tmpfs":
            size = f"size={options['size']}" if options.get("size") else ""
            found.append(MountPoint("tmpfs", target, tmpfs_options=size))
            digests.append(f"tmpfs {target} {size}")
        elif one.type == "cache":
            found.append(_cache(stage, options, target, stack))
            digests.append(f"cache {target} {options.get('id', '')}")
        else:
            mount, digest = _bind(stage, options, target)
            found.append(mount)
            digests.append(f"bind {target} {digest}")
    return tuple(found), "\n".join(digests)


def _target(stage: StageState, text: str) -> str:
    base = stage.draft.text("WorkingDir") or "/"
    clean = posixpath.normpath(posixpath.join(base, text))
    if clean.startswith("//"):
        clean = clean[1:]
    if clean == "/":
        raise invalid('invalid mount target "/"')
    return clean


def _flag(options: Mapping[str, str], *keys: str) -> bool:
    return any(key in options and options[key].lower() not in ("false", "0") for key in keys)


def _cache(
    stage: StageState, options: Mapping[str, str], target: str, stack: contextlib.ExitStack
) -> MountPoint:
    """A folder of the engine's that lasts: one for each id.  `private` gets its own."""
    build = stage.build
    sharing = options.get("sharing") or "shared"
    if sharing not in ("shared", "private", "locked"):
        raise invalid(f'unsupported sharing value "{sharing}"')
    name = hashlib.sha256(os.fsencode(options.get("id") or target)).hexdigest()
    folder = os.path.join(build.world.mounts, name)
    fresh = not os.path.isdir(folder)
    if sharing == "private":
        folder, fresh = build.temporary(), True
    os.makedirs(folder, mode=0o755, exist_ok=True)
    if sharing == "locked":
        stack.enter_context(_locked(build, folder))
    if fresh:
        mode = owners.mode(options.get("mode", "")) or 0o755
        os.chmod(folder, mode)
        os.chown(folder, number(options, "uid"), number(options, "gid"))
        if options.get("from"):
            _fill(stage, options, folder)
    read_only = _flag(options, "ro", "readonly")
    return MountPoint("bind", target, folder, read_write=not read_only)


@contextlib.contextmanager
def _locked(build: Build, folder: str) -> Iterator[None]:
    fd = os.open(f"{folder}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            build.check()
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                build.wait(0.1)
        yield
    finally:
        os.close(fd)


def _bind(stage: StageState, options: Mapping[str, str], target: str) -> tuple[MountPoint, str]:
    """A part of the context, or a copy of a part of a stage or image.  Read-only unless `rw`, and
    then what is written goes away with the step: into a copy."""
    build = stage.build
    writable = _flag(options, "rw", "readwrite")
    if not options.get("from") and not writable:
        fd = _inside(build.context.root, options.get("source", ""))
        try:
            path = os.readlink(f"/proc/self/fd/{fd}")
            digest = _sum(build, fd)
        finally:
            os.close(fd)
        if os.path.commonpath((path, build.context.folder)) != build.context.folder:
            raise invalid("a mount's source leads out of the build context")
        return MountPoint("bind", target, path, read_write=False), digest
    folder = os.path.join(build.temporary(), "mount")
    os.mkdir(folder, 0o755)
    source = _fill(stage, options, folder)
    fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return MountPoint("bind", target, source, read_write=writable), _sum(build, fd)
    finally:
        os.close(fd)


def _sum(build: Build, fd: int) -> str:
    total = TreeSum(build.gone)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        total.directory(fd)
    else:
        total.file(fd, "")
    return total.hex()


def _inside(root: int, path: str) -> int:
    """A readable file or folder in a root.  INVALID when there is none."""
    try:
        fd = openat.open_in_root(root, os.fsencode(path or "/"), openat.O_PATH)
        try:
            mode = os.fstat(fd).st_mode
        finally:
            os.close(fd)
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            raise invalid(f"a mount's source is no file or directory: {path}")
        return openat.open_in_root(root, os.fsencode(path or "/"), os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise invalid(f"failed to find the mount's source {path!r}: {error.strerror}") from error


def _fill(stage: StageState, options: Mapping[str, str], folder: str) -> str:
    """Copy what `from` and `source` name into a folder of ours; the path of it there."""
    build = stage.build
    with contextlib.ExitStack() as stack:
        root = build.context.root
        if options.get("from"):
            draft = origins.resolve(stage, options["from"])
            lower = build.world.layers.lower(draft.diff_ids)
            if not lower:
                return folder
            root = stack.enter_context(overlay.readable(build.home, lower))
        fd = _inside(root, options.get("source", ""))
        stack.callback(os.close, fd)
        target = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, target)
        copier = Copier(Rules(owner=None), build.gone)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            copier.contents(fd, target)
            return folder
        copier.file(fd, target, "file")
        return os.path.join(folder, "file")


# --------------------------------------------------------------- mount points that RUN left


def _missing(build: Build, lower: Sequence[str], mounts: Sequence[MountPoint]) -> list[str]:
    """Targets that the image does not have, and their folders, deepest first: the runtime will
    make them, and they must go."""
    wanted = {path for one in mounts for path in _with_parents(one.target)}
    deepest = sorted(wanted, key=lambda path: path.count("/"), reverse=True)
    if not mounts or not lower:
        return deepest
    found = []
    with overlay.readable(build.home, lower) as root:
        for path in deepest:
            try:
                os.close(openat.open_in_root(root, os.fsencode(path), openat.O_PATH))
            except OSError:
                found.append(path)
    return found


def _with_parents(path: str) -> Iterator[str]:
    while path not in ("", "/"):
        yield path
        path = posixpath.dirname(path)


def _remove_mountpoints(upper: str, targets: Sequence[str]) -> None:
    """Empty mount points of ours, with the folders that were made for them.  Only real ones, below
    the upper directory, by descriptor: a link there leads nowhere."""
    with contextlib.suppress(OSError):
        root = os.open(upper, openat.DIRECTORY)
        try:
            for target in targets:
                _remove_one(root, target)
        finally:
            os.close(root)


def _remove_one(root: int, target: str) -> None:
    folder, name = posixpath.split(target)
    with contextlib.suppress(OSError):
        parent = openat.open_real(root, os.fsencode(folder), openat.DIRECTORY)
        try:
            info = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                os.rmdir(name, dir_fd=parent)
            elif stat.S_ISREG(info.st_mode) and info.st_size == 0:
                os.unlink(name, dir_fd=parent)
        finally:
            os.close(parent)
