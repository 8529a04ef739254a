"""What goes to registries besides pulls: login, push, distribution, search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agent.api.call import Api, Call
from agent.api.filters import parse
from agent.api.schema.fields import Document, built
from agent.api.schema.images import AUTH_CONFIG, registry_auth
from agent.api.streams import PullLines
from agent.engine.model import Progress, RegistryAuth
from agent.engine.transfers import SearchHit
from agent.errors import invalid
from agent.wire.http import Answer, BlockingStream, json_reply

_SEARCH_KEYS: Final = frozenset({"is-automated", "is-official", "stars"})
_LIMIT: Final = 25
_MAX_LIMIT: Final = 100


def _auth(call: Call) -> RegistryAuth | None:
    return registry_auth(call.request.headers.get("x-registry-auth"))


def login(api: Api, call: Call) -> Answer:
    """POST /auth.  Nothing is kept: clients send their credentials with each request (C22)."""
    document = call.body.json()
    auth = built(RegistryAuth, AUTH_CONFIG.decode(document if document is not None else {}))
    api.backend.transfers.login(auth)
    return json_reply({"Status": "Login Succeeded", "IdentityToken": ""})


def push(api: Api, call: Call) -> Answer:
    """POST /images/{name}/push; without `tag` all tags of the name."""
    if call.query.get("platform"):
        raise invalid("an image here is of one platform: platform can't be asked for")
    name, tag, auth = call.name, call.query.get("tag"), _auth(call)

    def run(progress: Callable[[Progress], None], gone: Callable[[], bool]) -> object:
        return api.backend.transfers.push(name, tag, auth=auth, progress=progress, gone=gone)

    return BlockingStream(PullLines(run, call.body.gone))


def distribution(api: Api, call: Call) -> Answer:
    """GET /distribution/{name}/json"""
    found = api.backend.transfers.distribution(call.name, _auth(call))
    platforms: list[Document] = []
    for os_name, architecture, variant in found.platforms:
        one: Document = {"architecture": architecture, "os": os_name}
        if variant:
            one["variant"] = variant
        platforms.append(one)
    descriptor = {"mediaType": found.media_type, "digest": found.digest, "size": found.size}
    return json_reply({"Descriptor": descriptor, "Platforms": platforms})


def search(api: Api, call: Call) -> Answer:
    """GET /images/search"""
    term = call.query.get("term")
    if not term:
        raise invalid("a term to search for is needed")
    limit = call.query.integer("limit", _LIMIT) or _LIMIT
    if not 1 <= limit <= _MAX_LIMIT:
        raise invalid(f"limit {limit} is outside the range of [1, {_MAX_LIMIT}]")
    filters = parse(call.query.get("filters"), _SEARCH_KEYS)
    official, stars = filters.flag("is-official"), filters.get("stars")
    if not all(one.isdecimal() for one in stars):
        raise invalid("invalid filter 'stars'")
    least = max((int(one) for one in stars), default=0)
    found = api.backend.transfers.search(term, limit, _auth(call))
    return json_reply(
        [
            _hit(one)
            for one in found
            if one.stars >= least and (official is None or one.official == official)
        ]
    )


def _hit(one: SearchHit) -> Document:
    return {
        "star_count": one.stars,
        "is_official": one.official,
        "name": one.name,
        "is_automated": False,
        "description": one.description,
    }
