"""Where a stage or a --from begins: an earlier stage, an image here, or one that is pulled."""

from __future__ import annotations

from agent.build import draft as drafts
from agent.build.draft import Draft
from agent.build.scope import Build, StageState
from agent.engine.model import Image, RegistryAuth
from agent.errors import EngineError, Kind, invalid

_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


def resolve(stage: StageState, name: str) -> Draft:
    """--from=NAME: a stage before this one, else an image."""
    build = stage.build
    index = build.dockerfile.find(name)
    if 0 <= index < build.number:
        return build.stages.wait(index, build.check)
    if index == build.number:
        raise invalid(f"invalid from flag value {name}: refers to current build stage")
    if name.isdigit():
        raise invalid(f"invalid from flag value {name}: not a stage before this one")
    return image(build, name, "")


def image(build: Build, name: str, platform: str) -> Draft:
    """The image, pulled when it is missing, wanted anew, or for another platform."""
    platform = platform or build.request.platform
    known = build.bases.get((name, platform))
    if known is None:
        found = _image(build, name, platform)
        raw = build.world.layers.document(found.id)
        known = build.bases[name, platform] = drafts.load(raw, found.id)
    build.hold(known.diff_ids)
    return known


def _image(build: Build, name: str, platform: str) -> Image:
    images = build.world.images
    if not build.request.pull:
        try:
            found = images.get(name)
        except EngineError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
        else:
            if fits(found, platform):
                return found
    return images.pull(
        name,
        platform=platform,
        auth=credentials(build, name),
        progress=build.output.progress,
        cancelled=build.gone,
    )


def fits(found: Image, platform: str) -> bool:
    """Whether an image is for "os[/arch[/variant]]"; "" fits all."""
    has = (found.os, found.architecture, found.variant)
    return all(
        not wanted or not actual or wanted == actual
        for wanted, actual in zip(platform.lower().split("/"), has, strict=False)
    )


def credentials(build: Build, name: str) -> RegistryAuth | None:
    """Those of X-Registry-Config for the image's registry and no other."""
    first, slash, _ = name.partition("/")
    named = bool(slash) and ("." in first or ":" in first or first == "localhost")
    host = first if named else "docker.io"
    for address, auth in build.request.auths.items():
        bare = address.removeprefix("https://").removeprefix("http://").partition("/")[0]
        if bare == host or (host in _HUB and bare in _HUB):
            return auth
    return None
