"""Images: pull, list, inspect, history, tag, remove."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from agent.api.call import Api, Call
from agent.api.filters import IMAGE_KEYS, image_selection, parse
from agent.api.handlers.archives import import_tree, platform_of
from agent.api.schema.fields import Document, not_served
from agent.api.schema.images import (
    created_seconds,
    history,
    image_inspect,
    image_summary,
    manifest_summaries,
    registry_auth,
)
from agent.api.schema.times import SECOND, moment_or_ago
from agent.api.streams import PullLines
from agent.engine.model import Image, Progress
from agent.errors import invalid, not_found
from agent.wire.http import Answer, BlockingStream, Reply, json_reply, printable

_DIGEST: Final = re.compile(r"[a-z0-9]+:[0-9a-f]{32,}")
_PLATFORM: Final = re.compile(r"[a-z0-9_.-]+(/[a-z0-9_.-]+){0,2}", re.IGNORECASE)


def pull_reference(name: str, tag: str) -> str:
    """fromImage and tag of the query as one reference; the tag may be a digest.

    "" = all tags of the repository.  Raises EngineError: INVALID without a name.
    """
    name = name.removesuffix(":")
    if not name:
        raise invalid("invalid reference format")
    has_tag = ":" in name.rpartition("/")[2] or "@" in name
    if not tag:
        if has_tag:
            return name
        return ""  # all tags of the repository
    if _DIGEST.fullmatch(tag):
        return f"{name}@{tag}"
    if has_tag:
        # As in Docker Engine the parameter replaces the tag in the name.
        name = _without_tag(name)
    return f"{name}:{tag}"


def _without_tag(name: str) -> str:
    name = name.partition("@")[0]
    head, colon, last = name.rpartition(":")
    return head if colon and "/" not in last else name


def create(api: Api, call: Call) -> Answer:
    """POST /images/create: a pull or an import, with its progress."""
    query = call.query
    platform = query.get("platform")
    if platform and not _PLATFORM.fullmatch(platform):
        raise invalid(f'"{printable(platform)}" is an invalid platform')
    if query.get("fromSrc"):
        return import_tree(api, call)
    reference = pull_reference(query.get("fromImage"), query.get("tag"))
    auth = registry_auth(call.request.headers.get("x-registry-auth"))

    def pull_all(progress: Callable[[Progress], None], gone: Callable[[], bool]) -> object:
        return api.backend.transfers.pull_all(
            query.get("fromImage"), platform=platform, auth=auth, progress=progress, gone=gone
        )

    if not reference:
        return BlockingStream(PullLines(pull_all, call.body.gone))

    def pull(progress: Callable[[Progress], None], cancelled: Callable[[], bool]) -> Image:
        return api.backend.images.pull(
            reference, platform=platform, auth=auth, progress=progress, cancelled=cancelled
        )

    return BlockingStream(PullLines(pull, call.body.gone))


def list_all(api: Api, call: Call) -> Answer:
    filters = parse(call.query.get("filters"), IMAGE_KEYS)
    images = image_selection(
        api.backend.images.all(), filters, created_seconds, api.backend.images.get
    )
    for until in filters.get("until"):
        limit = moment_or_ago(until, "until", api.now())
        images = [one for one in images if limit is None or created_seconds(one) * SECOND <= limit]
    images.sort(key=created_seconds, reverse=True)
    lines = [image_summary(one, call.version) for one in images]
    if call.query.flag("shared-size"):
        shared = api.backend.transfers.space().shared
        for line in lines:
            line["SharedSize"] = shared.get(str(line["Id"]), 0)
    if call.query.flag("manifests"):
        for line in lines:
            line["Manifests"] = _manifests(api, str(line["Id"]))
    return json_reply(lines)


def inspect(api: Api, call: Call) -> Answer:
    image = api.backend.images.get(call.name)
    platform = platform_of(call.query.get("platform"))
    manifests = call.query.flag("manifests")
    if platform and manifests:
        raise invalid("conflicting options: manifests and platform options cannot both be set")
    _check_platform(image, platform)
    document = image_inspect(image, call.version)
    if manifests:
        document["Manifests"] = _manifests(api, image.id)
    return json_reply(document)


def _manifests(api: Api, image_id: str) -> list[Document]:
    users = [one.id for one in api.backend.containers.all() if one.image_id == image_id]
    return manifest_summaries(api.backend.transfers.manifests(image_id), users)


def show_history(api: Api, call: Call) -> Answer:
    image = api.backend.images.get(call.name)
    _check_platform(image, platform_of(call.query.get("platform")))
    return json_reply(history(image, api.backend.transfers.layer_sizes(image.id)))


def _check_platform(image: Image, wanted: str) -> None:
    """An image here is of one platform; another one is not there (docker's text)."""
    if not wanted:
        return
    parts = wanted.split("/")
    found = [image.os, image.architecture, image.variant]
    if parts != found[: len(parts)]:
        raise not_found(
            f"image with reference {printable(image.tags[0] if image.tags else image.id)} was "
            f"found but does not provide the specified platform ({printable(wanted)})"
        )


def tag(api: Api, call: Call) -> Answer:
    repo = call.query.get("repo")
    if not repo:
        raise invalid("invalid reference format")
    api.backend.images.tag(call.name, repo, call.query.get("tag") or "latest")
    return Reply(201)


def remove(api: Api, call: Call) -> Answer:
    """DELETE.  `noprune` changes nothing: images here have no untagged parents."""
    if call.query.get("platforms"):
        raise not_served("parameter platforms of image remove")
    removed = api.backend.images.remove(call.name, force=call.query.flag("force"))
    return json_reply(
        [
            {"Untagged": one.untagged} if one.untagged else {"Deleted": one.deleted}
            for one in removed
        ]
    )
