"""What else a registry can be asked: its index (docker search), a repository's tags."""

from __future__ import annotations

import json
import time
from contextlib import closing
from urllib.parse import quote, urlencode

from agent.engine.model import RegistryAuth
from agent.engine.transfers import SearchHit
from agent.errors import EngineError, Kind, invalid, not_found
from agent.images import documents, platforms, reference, registry
from agent.images.cancel import Cancellation
from agent.images.connection import Connector, Request, TlsError, TransientError
from agent.images.documents import BadDocumentError, Document
from agent.images.reference import DEFAULT_DOMAIN, Reference
from agent.images.registry import Endpoint, Repository
from agent.images.settings import RegistrySettings

_HUB_INDEX = "https://index.docker.io"
_LIMIT = 4 << 20
_PAGES = 100
_PAGE_SIZE = 1000
_MAX_TAGS = 100_000
_STALL = 30.0
_TOLD = frozenset({Kind.NOT_FOUND, Kind.UNAUTHORIZED, Kind.FORBIDDEN, Kind.INVALID})


def better(told: EngineError | None, error: EngineError) -> EngineError:
    """An answer tells more than "could not be reached"."""
    if error.kind is Kind.CANCELLED:
        raise error
    return error if told is None or told.kind not in _TOLD else told


def tags(repository: Repository, cancel: Cancellation) -> list[str]:
    """GET /v2/NAME/tags/list, page by page (distribution-spec, Listing Tags)."""
    found: list[str] = []
    last = ""
    for _ in range(_PAGES):
        page = _tag_page(repository, last, cancel)
        new = [one for one in page if reference.is_tag(one)]
        found += new
        if not new or new[-1] == last or len(found) >= _MAX_TAGS:
            break
        last = new[-1]
        if len(page) < _PAGE_SIZE:
            break
    return list(dict.fromkeys(found))


def _tag_page(repository: Repository, last: str, cancel: Cancellation) -> tuple[str, ...]:
    query = f"?n={_PAGE_SIZE}" + (f"&last={quote(last)}" if last else "")

    def ask() -> tuple[str, ...]:
        request = Request(f"{repository.base}/tags/list{query}", {"Accept": "application/json"})
        response = repository.request(request, (200,), cancel)
        with closing(response):
            raw = response.document(_LIMIT, time.monotonic() + _STALL)
        try:
            return documents.texts(documents.decode(raw, _LIMIT), "tags", _MAX_TAGS)
        except BadDocumentError as error:
            raise documents.refuse("list of tags", error) from error

    return repository.retried(ask, cancel)


def search(
    term: str, limit: int, auth: RegistryAuth | None, settings: RegistrySettings
) -> list[SearchHit]:
    """GET /v1/search of docker.io's index or of the registry that the term begins with.

    NOT_FOUND with a clear text when the registry has no index, as most have none.
    """
    if "://" in term:
        raise invalid(f"invalid repository name ({term[:200]}): remove the scheme")
    first, slash, rest = term.partition("/")
    named = bool(slash) and ("." in first or ":" in first or first == "localhost")
    domain, words = (first, rest) if named else (DEFAULT_DOMAIN, term)
    target = reference.parse(f"{domain}/search/check")
    where = Reference(target.domain, "")
    cancel = Cancellation("search")
    told: EngineError | None = None
    with closing(Connector(settings, cancel)) as connector:
        for endpoint in _indexes(where, settings):
            repository = Repository(connector, settings, endpoint, where, auth, ())
            try:
                return _hits(_ask(repository, words, limit, domain, cancel))
            except EngineError as error:
                told = better(told, error)
    raise told or not_found(f"{domain} has no index to search in")


def _indexes(where: Reference, settings: RegistrySettings) -> list[Endpoint]:
    if where.domain == DEFAULT_DOMAIN:
        mirrors = [Endpoint(url.rstrip("/"), mirror=True) for url in settings.mirrors]
        return [*mirrors, Endpoint(_HUB_INDEX)]
    return list(registry.endpoints(where, settings, {}))


def _ask(
    repository: Repository, words: str, limit: int, domain: str, cancel: Cancellation
) -> Document:
    query = urlencode({"q": words, "n": limit})
    request = Request(f"{repository.endpoint.url}/v1/search?{query}", {})

    def ask() -> Document:
        response = repository.request(request, (200, 404, 405, 501), cancel)
        with closing(response):
            if response.status != 200:
                raise not_found(
                    f"registry {domain} can't be searched: it has no /v1/search "
                    f"(it answered {response.status})"
                )
            raw = response.document(_LIMIT, time.monotonic() + _STALL)
        try:
            return documents.decode(raw, _LIMIT)
        except BadDocumentError as error:
            raise not_found(f"registry {domain} gave no usable search results: {error}") from error

    try:
        return repository.retried(ask, cancel)
    except (TransientError, TlsError) as error:
        raise EngineError(Kind.UNAVAILABLE, str(error)) from error


def _hits(found: Document) -> list[SearchHit]:
    try:
        return [
            SearchHit(
                documents.text(one, "name"),
                documents.text(one, "description"),
                documents.integer(one, "star_count", 0),
                one.get("is_official") is True,
            )
            for one in documents.objects(found, "results", 1000)
        ]
    except BadDocumentError as error:
        raise documents.refuse("search results", error) from error


def platforms_of_config(raw: bytes) -> tuple[tuple[str, str, str], ...]:
    """The platform that an image's config names."""
    try:
        found = documents.decode(raw, documents.CONFIG_LIMIT)
        one = platforms.normalise(
            documents.text(found, "os"),
            documents.text(found, "architecture"),
            documents.text(found, "variant"),
        )
    except BadDocumentError as error:
        raise documents.refuse("image config", error) from error
    return ((one.os, one.architecture, one.variant),)


def media_type(raw: bytes, content_type: str) -> str:
    """A manifest's own word for what it is, else the header's."""
    inside = json.loads(raw).get("mediaType")  # decoded and checked before
    return str(inside) if inside else content_type.partition(";")[0].strip()
