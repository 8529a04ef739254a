"""COPY and ADD."""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from agent.build import gitcontext, origins, overlay, owners, sources
from agent.build.context import unpack_into
from agent.build.copying import Copier, Rules, ensure_directory
from agent.build.instructions import Copy
from agent.build.parser import Heredoc
from agent.build.scope import Build, StageState
from agent.build.sources import Item
from agent.build.treesum import TreeSum
from agent.errors import EngineError, Kind, invalid, no_space
from agent.host import openat, untar
from agent.host.decompress import DecompressError
from agent.host.inflate import inflated
from agent.host.tarheader import Headers, TarError
from agent.wire.http import public
from agent.wire.ignorefile import PatternError, Patterns

_URL = ("http://", "https://")
_RESERVE = 256 << 20
_DOWNLOAD_LIMIT = 8 << 30


@dataclass(frozen=True)
class Plan:
    """A COPY with everything expanded."""

    verb: str
    add: bool
    items: tuple[Item, ...]
    target: str  # absolute, with its slash at the end when it was given
    chown: str
    chmod: int | None
    parents: bool
    unpack: bool
    excluded: Callable[[str], bool] | None


def copy(stage: StageState, one: Copy) -> None:
    """Raises EngineError with docker's texts."""
    with contextlib.ExitStack() as stack:
        root, context = _root(stage, one, stack)
        try:
            _copy(stage, one, root, context=context)
        except OSError as error:
            verb = "ADD" if one.add else "COPY"
            raise _os_error(verb, error) from error


def _os_error(verb: str, error: OSError) -> EngineError:
    if error.errno in (28, 122):  # ENOSPC, EDQUOT
        return no_space(f"{verb} failed: no space left on device")
    return EngineError(Kind.INVALID, f"{verb} failed: {error.strerror or error}")


def _root(stage: StageState, one: Copy, stack: contextlib.ExitStack) -> tuple[int, bool]:
    """Where sources are looked for: the context, a stage, an image, or a folder of what was
    downloaded or written down in the Dockerfile itself."""
    build = stage.build
    if "from" in one.flags:
        draft = origins.resolve(stage, one.flags["from"])
        lower = build.world.layers.lower(draft.diff_ids)
        if not lower:
            return stack.enter_context(_opened(build.temporary())), False
        return stack.enter_context(overlay.readable(build.home, lower)), False
    return build.context.root, True


@contextlib.contextmanager
def _opened(folder: str) -> Iterator[int]:
    fd = os.open(folder, openat.DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def _copy(stage: StageState, one: Copy, root: int, *, context: bool) -> None:
    verb = "ADD" if one.add else "COPY"
    words = [stage.word(word) for word in one.sources]
    remote = [word for word in words if one.add and _is_remote(word)]
    local = [word for word in words if word not in remote]
    found: list[tuple[int, Item, bool]] = []  # (root, item, whether an archive is unpacked)
    items = sources.find(root, local, verb=verb, context=context) if local else []
    found += [(root, item, one.add) for item in items]
    with contextlib.ExitStack() as stack:
        if remote or one.inline:
            fetched = stack.enter_context(_opened(_fetch(stage, one, remote)))
            names = sorted(os.listdir(f"/proc/self/fd/{fetched}"))
            unpack = one.flags.get("unpack") == "true"
            found += [(fetched, Item(f"/{name}", name, name), unpack) for name in names]
        if not found:
            raise invalid(f"{verb} failed: no source files were specified")
        if one.flags.get("unpack") == "false":
            found = [(fd, item, False) for fd, item, _ in found]
        plan = _plan(stage, one, tuple(item for _, item, _ in found))
        _perform(stage, plan, found)


def _is_remote(word: str) -> bool:
    return word.startswith((*_URL, "git@", "git://"))


def _plan(stage: StageState, one: Copy, items: tuple[Item, ...]) -> Plan:
    verb = "ADD" if one.add else "COPY"
    target = stage.word(one.target)
    if not target:
        raise invalid(f"{verb} requires a destination")
    folder = target.endswith(("/", "/.")) or target == "."
    if len(items) > 1 and not folder:
        raise invalid(
            f"When using {verb} with more than one source file, the destination must be a "
            "directory and end with a /"
        )
    base = stage.draft.text("WorkingDir") or "/"
    clean = posixpath.normpath(posixpath.join(base, target))
    excluded = None
    if one.excludes:
        try:
            excluded = Patterns(one.excludes).matches
        except PatternError as error:
            raise invalid(str(error)) from error
    return Plan(
        verb=verb,
        add=one.add,
        items=items,
        target=clean.rstrip("/") + "/" if folder else clean,
        chown=stage.word(one.flags.get("chown", "")),
        chmod=owners.mode(stage.word(one.flags.get("chmod", ""))),
        parents=one.flags.get("parents") == "true",
        unpack=True,
        excluded=excluded,
    )


def _perform(stage: StageState, plan: Plan, found: Sequence[tuple[int, Item, bool]]) -> None:
    digest = _digest(stage.build, plan, found)
    flags = f"--chown={plan.chown} " if plan.chown else ""
    flags += f"--chmod={plan.chmod:o} " if plan.chmod is not None else ""
    shell = " ".join(stage.draft.shell())
    created_by = f"{shell} #(nop) {plan.verb} {flags}{digest} in {plan.target} "
    stage.step(created_by, stage.draft, lambda: _layer(stage, plan, found))


def _digest(build: Build, plan: Plan, found: Sequence[tuple[int, Item, bool]]) -> str:
    """ "file:HEX", "dir:HEX" or "multi:HEX"."""
    total = TreeSum(build.gone, plan.excluded)
    total.text("parents" if plan.parents else "")
    directory = False
    for root, item, unpack in found:
        fd, directory = sources.opened(root, item)
        try:
            total.text(f"{item.path if plan.parents or not directory else ''}\0{unpack}")
            if directory:
                total.directory(fd)
            else:
                total.file(fd, item.name)
        finally:
            os.close(fd)
    kind = "multi" if len(found) > 1 else ("dir" if directory else "file")
    return f"{kind}:{total.hex()}"


def _layer(stage: StageState, plan: Plan, found: Sequence[tuple[int, Item, bool]]) -> str:
    build, layers = stage.build, stage.build.world.layers
    folder = layers.stage(stage.draft.diff_ids)
    try:
        lower = layers.lower(stage.draft.diff_ids)
        with overlay.writable(build.home, lower, folder) as root:
            _fill(build, plan, found, root)
        return build.commit(folder)
    except BaseException:
        layers.discard(folder)
        raise


def _fill(build: Build, plan: Plan, found: Sequence[tuple[int, Item, bool]], root: int) -> None:
    owner = owners.owner(root, plan.chown)
    copier = Copier(Rules(owner, plan.chmod, plan.excluded), build.gone)
    for source, item, unpack in found:
        fd, directory = sources.opened(source, item)
        try:
            if directory:
                target = plan.target
                if plan.parents:
                    target = posixpath.join(target, item.kept)
                made = ensure_directory(root, target, owner)
                try:
                    copier.contents(fd, made)
                finally:
                    os.close(made)
            elif unpack and is_archive(fd):
                _unpack(build, plan, fd, root, owner)
            elif plan.excluded is None or not plan.excluded(item.name):
                _file(copier, plan, item, fd, (root, owner))
        finally:
            os.close(fd)


def _file(
    copier: Copier, plan: Plan, item: Item, fd: int, place: tuple[int, tuple[int, int]]
) -> None:
    root, owner = place
    target = plan.target
    if plan.parents:
        target = posixpath.join(target, posixpath.dirname(item.kept)) + "/"
    if target.endswith("/") or _is_directory(root, target):
        folder, name = target, item.name
    else:
        folder, name = posixpath.split(target)
    made = ensure_directory(root, folder, owner)
    try:
        copier.file(fd, made, name)
    finally:
        os.close(made)


def _is_directory(root: int, path: str) -> bool:
    try:
        os.close(openat.open_in_root(root, os.fsencode(path), openat.DIRECTORY))
    except OSError:
        return False
    return True


# ---------------------------------------------------------------------------------------- archives


def is_archive(fd: int) -> bool:
    """Whether a regular file begins as a tar archive, plain or compressed, does."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return False
    position = 0

    def read() -> bytes:
        nonlocal position
        data = os.pread(fd, 64 << 10, position)
        position += len(data)
        return data

    block = b""
    try:
        pieces = inflated(read)
        while len(block) < 512 and (piece := next(pieces, b"")):
            block += piece
        return Headers(_taker(block)).next() is not None
    except (TarError, DecompressError, ValueError):
        # A long name's, PAX or sparse header alone is enough: the rest lies beyond this one block.
        return len(block) >= 512 and block[156] in b"LKxgS" and block[257:262] == b"ustar"


def _taker(data: bytes) -> Callable[[int], bytes]:
    view = [data]

    def take(size: int) -> bytes:
        found, view[0] = view[0][:size], view[0][size:]
        return found

    return take


def _unpack(build: Build, plan: Plan, fd: int, root: int, owner: tuple[int, int]) -> None:
    made = ensure_directory(root, plan.target, owner)
    os.close(made)
    position = 0

    def read(size: int) -> bytes:
        nonlocal position
        data = os.pread(fd, size, position)
        position += len(data)
        return data

    rules = untar.Rules(owner=owner if plan.chown else None)
    unpack_into(read, (root, os.fsencode(plan.target)), build.home, rules, build.gone)


# ------------------------------------------------------------------------ downloads and heredocs


def _fetch(stage: StageState, one: Copy, remote: Sequence[str]) -> str:
    """A folder with what URLs gave, and with the heredocs' files."""
    folder = stage.build.temporary()
    for word in remote:
        try:
            path = urlsplit(word).path
        except ValueError as error:  # "[" without its "]"
            raise invalid(f"invalid url: {public(word)[:200]}") from error
        if word.startswith(_URL) and not path.endswith(".git"):
            _download(stage, one, word, folder)
        else:
            _clone(stage, one, word, folder)
    for inline in one.inline:
        _write(stage, inline, folder)
    return folder


def _write(stage: StageState, inline: Heredoc, folder: str) -> None:
    text = inline.text()
    if inline.expand:
        text = stage.heredoc(text)
    if "/" in inline.name or inline.name in (".", ".."):
        raise invalid(f"invalid heredoc name {inline.name!r}")
    with open(os.path.join(folder, inline.name), "xb") as file:
        file.write(text.encode("utf-8", "surrogateescape"))
    os.chmod(os.path.join(folder, inline.name), 0o644)
    os.utime(os.path.join(folder, inline.name), ns=(0, 0))


def _download(stage: StageState, one: Copy, url: str, folder: str) -> None:
    build = stage.build
    name = unquote(posixpath.basename(urlsplit(url).path)) or ""
    if not name and stage.word(one.target).endswith("/"):
        raise invalid(f"cannot determine filename from url: {public(url)}")
    name = name or "download"
    if "/" in name or "\0" in name or name in (".", ".."):
        raise invalid(f"cannot determine filename from url: {public(url)}")
    state = hashlib.sha256()
    space = os.statvfs(folder)
    limit = min(_DOWNLOAD_LIMIT, space.f_bavail * space.f_frsize - _RESERVE)
    path = os.path.join(folder, name)
    build.say("Downloading\n")
    with open(path, "xb") as file:

        def sink(piece: bytes) -> None:
            if file.tell() + len(piece) > limit:
                raise invalid(
                    f"ADD failed: {public(url)} is larger than the limit of {limit} bytes"
                )
            state.update(piece)
            file.write(piece)

        _, _, stamp = build.world.layers.download(url, sink, build.gone)
    wanted = stage.word(one.flags.get("checksum", ""))
    if wanted and wanted != f"sha256:{state.hexdigest()}":
        raise invalid(f"ADD failed: digest mismatch sha256:{state.hexdigest()}: {wanted}")
    os.chmod(path, 0o600)
    os.utime(path, ns=(stamp, stamp))


def _clone(stage: StageState, one: Copy, word: str, folder: str) -> None:
    """A git source: its files, or those of the folder that it names."""
    name = posixpath.basename(urlsplit(word.partition("#")[0]).path).removesuffix(".git") or "git"
    stage.build.say("Cloning\n")
    cloned = os.path.join(stage.build.temporary(), "git")
    os.mkdir(cloned, 0o755)
    keep = one.flags.get("keep-git-dir", "false") not in ("false", "0")
    commit = stage.word(one.flags.get("checksum", ""))
    below = gitcontext.fetch(word, cloned, stage.build.gone, keep=keep, commit=commit)
    while os.path.lexists(os.path.join(folder, name)):
        name += "_"  # only its contents are copied
    os.rename(_below(cloned, below) if below else cloned, os.path.join(folder, name))


def _below(folder: str, path: str) -> str:
    """A folder of a clone, its links followed inside the clone only."""
    try:
        with _opened(folder) as root:
            fd = openat.open_in_root(root, os.fsencode(path), openat.DIRECTORY)
        try:
            return os.readlink(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
    except OSError as error:
        raise invalid(f"ADD failed: the git repository has no folder {path[:100]!r}") from error
