"""The writing half of the distribution specification v1.1: blobs and manifests into a repository."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator
from urllib.parse import quote, urljoin, urlsplit

from agent.errors import EngineError, Kind, forbidden
from agent.images import digest as digests
from agent.images.cancel import Cancellation
from agent.images.connection import Request, TransientError
from agent.images.manifest import MANIFEST_TYPES, Descriptor
from agent.images.registry import Repository, backoff
from agent.images.settings import RegistrySettings
from agent.values import frozen

Source = Callable[[], Generator[bytes, None, None]]


@frozen
class Uploaded:
    """What was sent."""

    digest: str
    size: int


class Uploads:
    """Writes to one repository.  Thread-safe: several blobs at a time."""

    def __init__(
        self, repository: Repository, settings: RegistrySettings, cancel: Cancellation
    ) -> None:
        self._repository = repository
        self._settings = settings
        self._cancel = cancel

    def ping(self) -> None:
        """The registry answers and takes our credentials.  Raises EngineError."""
        url = f"{self._repository.endpoint.url}/v2/"

        def ask() -> None:
            self._repository.request(Request(url, {}), (200,), self._cancel).close()

        self._repository.retried(ask, self._cancel)

    def head(self, target: str) -> Descriptor | None:
        """The manifest that a tag or digest names; None when there is none."""
        url = f"{self._repository.base}/manifests/{target}"
        headers = {"Accept": ", ".join(MANIFEST_TYPES)}

        def ask() -> Descriptor | None:
            request = Request(url, headers, "HEAD")
            response = self._repository.request(request, (200, 404), self._cancel)
            try:
                digest = response.headers.get("Docker-Content-Digest", "")
                if response.status == 404 or not digests.valid(digest):
                    return None
                kind = response.headers.get("Content-Type", "")
                return Descriptor(kind, digest, response.length() or 0)
            finally:
                response.close()

        return self._repository.retried(ask, self._cancel)

    def has_blob(self, digest: str) -> bool:
        url = f"{self._repository.base}/blobs/{digest}"

        def ask() -> bool:
            request = Request(url, {}, "HEAD")
            response = self._repository.request(request, (200, 404, 405), self._cancel)
            response.close()
            return response.status == 200

        return self._repository.retried(ask, self._cancel)

    def mount(self, digest: str, source: str) -> bool:
        """Have the registry take a blob over from its repository `source`; False when it won't."""
        query = f"?mount={quote(digest, safe=':')}&from={quote(source, safe='/')}"
        url = f"{self._repository.base}/blobs/uploads/{query}"

        def ask() -> str:
            request = Request(url, {"Content-Length": "0"}, "POST")
            response = self._repository.request(request, (201, 202), self._cancel)
            response.close()
            if response.status == 201:
                return ""
            return self._location(response.url, response.headers.get("Location"))

        session = self._repository.retried(ask, self._cancel)
        if session:
            self._abandon(session)
        return not session

    def blob(self, source: Source, sent: Callable[[int], None]) -> Uploaded:
        """Send a stream of unknown size and digest.  `sent` is told of each piece's bytes.

        Raises what `source` raises; nothing is left at the registry but an unfinished upload.
        """
        attempt = 0
        while True:
            try:
                return self._stream(source, sent)
            except TransientError as error:
                self._cancel.check()
                attempt += 1
                if attempt >= self._settings.timeouts.attempts:
                    raise EngineError(Kind.UNAVAILABLE, str(error)) from error
                pause = backoff(self._settings.timeouts, attempt, error.retry_after)
                self._cancel.wait(pause)

    def document(self, raw: bytes) -> None:
        """Send a small blob (a config) that is not there yet."""
        if self.has_blob(digests.of(raw)):
            return

        def whole() -> Generator[bytes, None, None]:
            yield raw

        self.blob(whole, lambda _: None)

    def manifest(self, target: str, raw: bytes, media_type: str) -> None:
        url = f"{self._repository.base}/manifests/{target}"
        headers = {"Content-Type": media_type}

        def put() -> None:
            request = Request(url, headers, "PUT", raw)
            self._repository.request(request, (200, 201), self._cancel).close()

        self._repository.retried(put, self._cancel)

    # ---------------------------------------------------------------------------------- uploads

    def _stream(self, source: Source, sent: Callable[[int], None]) -> Uploaded:
        session = self._begin()
        done: list[Uploaded] = []

        def body() -> Iterator[bytes]:
            done.clear()
            state, size = hashlib.sha256(), 0
            pieces = source()
            try:
                for piece in pieces:
                    self._cancel.check()
                    state.update(piece)
                    size += len(piece)
                    yield piece
                    sent(len(piece))
            finally:
                pieces.close()
            done.append(Uploaded(f"sha256:{state.hexdigest()}", size))

        headers = {"Content-Type": "application/octet-stream"}
        request = Request(session, headers, "PATCH", body)
        response = self._repository.request(request, (202, 204), self._cancel)
        response.close()
        session = self._location(session, response.headers.get("Location") or session)
        if not done:
            raise TransientError("the registry answered before it had everything")
        self._finish(session, done[0])
        return done[0]

    def _begin(self) -> str:
        url = f"{self._repository.base}/blobs/uploads/"

        def ask() -> str:
            request = Request(url, {"Content-Length": "0"}, "POST")
            response = self._repository.request(request, (202,), self._cancel)
            response.close()
            return self._location(url, response.headers.get("Location"))

        return self._repository.retried(ask, self._cancel)

    def _finish(self, session: str, blob: Uploaded) -> None:
        joint = "&" if urlsplit(session).query else "?"
        url = f"{session}{joint}digest={quote(blob.digest, safe='')}"
        request = Request(url, {"Content-Length": "0"}, "PUT")
        self._repository.request(request, (201, 204), self._cancel).close()

    def _abandon(self, session: str) -> None:
        request = Request(session, {}, "DELETE")
        try:
            self._repository.request(request, (200, 202, 204), self._cancel).close()
        except (TransientError, EngineError):
            self._cancel.check()  # the registry forgets it by itself in time

    def _location(self, url: str, location: str | None) -> str:
        """Where an upload goes on: at the registry itself, nowhere else gets our credentials."""
        if not location or len(location) > 8192 or not location.isprintable():
            raise forbidden("the registry gave no usable upload location")
        try:
            found = urlsplit(urljoin(url, location))
        except ValueError as error:
            raise forbidden("the registry gave no usable upload location") from error
        own = urlsplit(self._repository.endpoint.url)
        if found.netloc != own.netloc and found.hostname != own.hostname:
            raise forbidden("the registry sends uploads elsewhere, which is not allowed")
        # Behind a proxy that ends TLS, registries name themselves by http.
        return found._replace(scheme=own.scheme).geturl()
