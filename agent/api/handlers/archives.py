"""Images as archives: save, load, import.  Pruning them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from agent.api.call import Api, Call
from agent.api.filters import labels_match, parse
from agent.api.schema.changes import applied
from agent.api.schema.images import created_seconds
from agent.api.schema.times import SECOND, moment_or_ago
from agent.api.streams import PullLines
from agent.engine.model import Image, Progress
from agent.engine.transfers import ImportRequest
from agent.errors import invalid
from agent.wire.http import Answer, BlockingStream, json_reply, printable, public

TAR: Final = "application/x-tar"
_PRUNE_KEYS: Final = frozenset({"dangling", "label", "label!", "until"})


def platform_of(text: str) -> str:
    """A `platform` parameter of save, load, inspect: a JSON object (API 1.48)."""
    if not text:
        return ""
    try:
        found = json.loads(text)
        parts = [found.get("os"), found.get("architecture"), found.get("variant") or ""]
    except (ValueError, RecursionError, AttributeError) as error:
        raise invalid("invalid platform: not a JSON object") from error
    if not all(isinstance(part, str) for part in parts) or not parts[0] or not parts[1]:
        raise invalid("invalid platform: os and architecture are needed")
    return "/".join(part for part in parts if part)


def only_platform(call: Call) -> str:
    """The one platform that save or load was asked for, "" for none."""
    given = call.query.all("platform")
    if len(given) > 1:
        raise invalid("an image here is of one platform: more than one can't be asked for")
    return platform_of(given[0]) if given else ""


def save_one(api: Api, call: Call) -> Answer:
    """GET /images/{name}/get"""
    return BlockingStream(api.backend.transfers.save((call.name,), only_platform(call)), TAR)


def save_many(api: Api, call: Call) -> Answer:
    """GET /images/get?names=..."""
    names = call.query.all("names")
    if not names:
        raise invalid("no image to save was named")
    return BlockingStream(api.backend.transfers.save(names, only_platform(call)), TAR)


def load(api: Api, call: Call) -> Answer:
    """POST /images/load: the archive is the body."""
    platform = only_platform(call)
    quiet = call.query.flag("quiet", default=True)

    def run(progress: Callable[[Progress], None], gone: Callable[[], bool]) -> object:
        return api.backend.transfers.load(
            call.body.reader.read, platform=platform, quiet=quiet, progress=progress, gone=gone
        )

    return BlockingStream(PullLines(run, call.body.gone))


def import_tree(api: Api, call: Call) -> Answer:
    """POST /images/create?fromSrc=-: the body is a file system's tar, or it is to be downloaded."""
    query = call.query
    source = query.get("fromSrc")
    repo, tag = query.get("repo"), query.get("tag")
    if repo and not tag and ":" in repo.rpartition("/")[2]:
        repo, _, tag = repo.rpartition(":")
    request = ImportRequest(
        repo=repo,
        tag=tag or ("latest" if repo else ""),
        message=query.get("message") or f"Imported from {printable(public(source))}",
        platform=query.get("platform"),
        config_document=applied(query.all("changes")),
        url="" if source == "-" else _import_url(source),
    )

    def run(progress: Callable[[Progress], None], gone: Callable[[], bool]) -> object:
        return api.backend.transfers.import_tree(
            call.body.reader.read, request, progress=progress, gone=gone
        )

    return BlockingStream(PullLines(run, call.body.gone))


def _import_url(source: str) -> str:
    """A URL as it is, and what has no scheme as a host's, as docker takes it."""
    url = source if "://" in source else f"http://{source}"
    if not url.startswith(("http://", "https://")):
        raise invalid(
            f"importing from {printable(public(url)[:200])} is not possible: http or https only"
        )
    return url


def prune(api: Api, call: Call) -> Answer:
    """POST /images/prune: dangling images, or with dangling=false all that no container uses."""
    filters = parse(call.query.get("filters"), _PRUNE_KEYS)
    dangling = filters.flag("dangling")
    untils = filters.get("until")
    if len(untils) > 1:
        raise invalid("more than one until filter specified")
    until = moment_or_ago(untils[0], "until", api.now()) if untils else None

    def chosen(image: Image) -> bool:
        if dangling is not False and image.tags:
            return False
        if until is not None and created_seconds(image) * SECOND > until:
            return False
        labels = image.config.labels
        if any(labels_match((one,), labels) for one in filters.get("label!")):
            return False
        return labels_match(filters.get("label"), image.config.labels)

    removed, freed = api.backend.transfers.prune(chosen)
    lines = [
        {"Untagged": one.untagged} if one.untagged else {"Deleted": one.deleted} for one in removed
    ]
    return json_reply({"ImagesDeleted": lines or None, "SpaceReclaimed": freed})
