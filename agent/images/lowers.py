"""The folders that lie below a container or a build step: an image's layers and their fits.

    layers/NAME/implicit          directories that no entry of the layer describes, NUL-separated
    layers/NAME/fKEY/[diff]       what fitting.py made for one stack below; no diff: nothing needed

KEY stands for the names of all layers of the stack.  A fit goes with its layer.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress

from agent.host import tree
from agent.images.disk import Disk
from agent.images.fitting import Fit, Merged
from agent.images.metadata import Layer

IMPLICIT = "implicit"


def note_implicit(staged: str, paths: Iterable[bytes]) -> None:
    """Keep what the unpack worker reported beside the staged layer."""
    raw = b"\0".join(paths)
    if raw:
        with open(os.path.join(staged, IMPLICIT), "xb") as file:
            file.write(raw)


def lower_names(disk: Disk, layers: Sequence[Layer]) -> tuple[str, ...]:
    """Folder names (for `Disk.layer_path`), top first, with the fits that this stack needs.

    Makes a fit at its first use.  The layers must be held or pinned.  Raises OSError.
    """
    found: list[str] = []
    for name in reversed(stacked(layers)):
        found.insert(0, name)
        fit = _fit(disk, found)
        if fit:
            found.insert(0, fit)
    return tuple(found)


def stacked(layers: Sequence[Layer]) -> list[str]:
    """Names top first, each once (overlayfs refuses a repeated one; the topmost counts).

    A layer whose root is opaque hides all below it; overlayfs has no such mark on a root.
    """
    names: list[str] = []
    for layer in reversed(layers):
        if layer.name not in names:
            names.append(layer.name)
        if layer.cut:
            break
    return names


def root_metadata(layers: Sequence[Layer]) -> tuple[int, int, int]:
    """Mode, uid, gid of the container's /: of the topmost layer that has an entry for it."""
    for layer in reversed(layers):
        if layer.root is not None:
            return layer.root
    return 0o755, 0, 0


def _fit(disk: Disk, names: Sequence[str]) -> str:
    """The fit for the topmost of `names`; "" when it needs none."""
    if len(names) == 1:
        return ""
    folder = disk.layer_folder(names[0])
    try:
        with open(os.path.join(folder, IMPLICIT), "rb") as file:
            implicit = file.read().split(b"\0")
    except FileNotFoundError:
        return ""
    key = "f" + hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
    made = os.path.join(folder, key)
    if not os.path.isdir(made):
        _make(disk, names, implicit, made)
    return f"{names[0]}/{key}" if os.path.isdir(os.path.join(made, "diff")) else ""


def _make(disk: Disk, names: Sequence[str], implicit: Iterable[bytes], made: str) -> None:
    staged = disk.stage_layer()
    diff = os.path.join(staged, "diff")
    with ExitStack() as stack:
        roots = [stack.enter_context(tree.opened(disk.layer_path(name))) for name in names]
        out = stack.enter_context(tree.opened(diff))
        try:
            needed = Fit(roots[0], implicit, Merged(roots[1:]), out).run()
        except FileExistsError:
            needed = False  # the layer contradicts itself (a path is a link and a folder): as it is
        except BaseException:
            disk.discard(staged)
            raise
    if not needed:
        with tree.opened(staged) as folder:
            tree.remove_tree(folder, "diff")
    with suppress(OSError):  # another thread was faster
        os.rename(staged, made)
        return
    disk.discard(staged)
