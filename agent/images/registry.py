"""One repository of one registry: manifests and blobs by the distribution specification v1.1.

Retries with exponential back-off (Retry-After is honoured), blobs resume with Range, credentials
stay with their registry.  Waits and reads end when the pull is cancelled.
"""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import TypeVar
from urllib.parse import urlsplit

from agent.engine.model import RegistryAuth
from agent.errors import EngineError, Kind, data_loss, invalid, not_found, unauthorized
from agent.images import addresses, auth, documents
from agent.images import digest as digests
from agent.images.auth import Challenge
from agent.images.cancel import Cancellation
from agent.images.connection import Connector, Request, Response, TlsError, TransientError
from agent.images.manifest import MANIFEST_TYPES, Descriptor
from agent.images.partial import Partial
from agent.images.reference import DEFAULT_DOMAIN, Reference
from agent.images.settings import RegistrySettings, Timeouts
from agent.values import frozen

_HUB = "https://registry-1.docker.io"
_PIECE = 256 << 10
_AUTH_ROUNDS = 2
_MAX_RESUMES = 50
_ERROR_LIMIT = 64 << 10
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_T = TypeVar("_T")


@frozen
class Endpoint:
    """A base URL under which a reference's repository may be found."""

    url: str
    mirror: bool = False
    insecure: bool = False  # on the operator's list: any certificate will do


@frozen
class Fetched:
    """A manifest's bytes; `digest` is computed from them."""

    raw: bytes
    content_type: str
    digest: str


class DigestMismatchError(Exception):
    """The bytes are not what the descriptor names.  `resumed`: a Range answer may be to blame."""

    def __init__(self, digest: str, *, resumed: bool) -> None:
        super().__init__(digest)
        self.digest = digest
        self.resumed = resumed

    def refused(self) -> EngineError:
        return data_loss(f"filesystem layer verification failed for digest {self.digest}")


def endpoints(
    reference: Reference, settings: RegistrySettings, known: Mapping[str, str]
) -> tuple[Endpoint, ...]:
    """Where to look, in order.  An insecure registry is tried by https, then by http.

    `known`: for insecure registries, the URL that answered last; it is tried first.
    """
    if reference.domain == DEFAULT_DOMAIN:
        mirrors = tuple(Endpoint(url.rstrip("/"), mirror=True) for url in settings.mirrors)
        return (*mirrors, Endpoint(_HUB))
    parts = urlsplit(f"//{reference.domain}")
    host, port = parts.hostname or "", parts.port or 443
    if addresses.insecure(host, port, settings.insecure):
        both = (
            Endpoint(f"https://{reference.domain}", insecure=True),
            Endpoint(f"http://{reference.domain}"),
        )
        return both[::-1] if known.get(reference.domain) == both[1].url else both
    return (Endpoint(f"https://{reference.domain}"),)


def backoff(timeouts: Timeouts, attempt: int, retry_after: float | None) -> float:
    """Seconds before try number `attempt` + 1."""
    if retry_after is not None:
        return max(0.0, min(retry_after, timeouts.retry_after_limit))
    return float(min(timeouts.backoff * 2 ** (attempt - 1), timeouts.backoff_limit))


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds from a Retry-After header: a number or an HTTP date (RFC 9110, 10.2.3)."""
    if not value:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


class Repository:
    """A repository at one endpoint.  Thread-safe enough for parallel blobs of one pull."""

    def __init__(
        self,
        connector: Connector,
        settings: RegistrySettings,
        endpoint: Endpoint,
        reference: Reference,
        credentials: RegistryAuth | None,
        scopes: tuple[str, ...] | None = None,
    ) -> None:
        """`scopes`: what a token is asked for; by default pulling from the repository."""
        self._scopes = (f"repository:{reference.path}:pull",) if scopes is None else scopes
        self._pushing = scopes is not None
        self.endpoint = endpoint
        self._connector = connector
        self._settings = settings
        self._reference = reference
        own = None if endpoint.mirror else auth.belongs(credentials, reference.domain)
        self._credentials = own if auth.has_secret(own) else None
        self.base = f"{endpoint.url}/v2/{reference.path}"
        self._authorization = ""
        self._expires = 0.0
        if self._credentials and self._credentials.registry_token:
            self._authorization = f"Bearer {self._credentials.registry_token}"
            self._expires = float("inf")

    # ------------------------------------------------------------------------------- documents

    def manifest(self, target: str, cancel: Cancellation) -> Fetched:
        """By tag or digest.  NOT_FOUND, UNAUTHORIZED, ... with docker's texts."""

        def fetch() -> Fetched:
            headers = {"Accept": ", ".join(MANIFEST_TYPES)}
            response = self._get(f"{self.base}/manifests/{target}", headers, cancel)
            try:
                deadline = time.monotonic() + self._settings.timeouts.stall
                raw = response.document(documents.MANIFEST_LIMIT, deadline)
                _check_length(response, raw, "manifest")
                return Fetched(raw, response.headers.get("Content-Type", ""), digests.of(raw))
            finally:
                response.close()

        found = self.retried(fetch, cancel)
        if len(found.raw) > documents.MANIFEST_LIMIT:
            raise invalid(f"manifest is larger than {documents.MANIFEST_LIMIT} bytes")
        if ":" in target and not digests.matches(found.raw, target):
            raise data_loss(f"manifest verification failed for digest {target}")
        return found

    def document(self, descriptor: Descriptor, cancel: Cancellation) -> bytes:
        """A small blob (the config), verified."""
        pieces: list[bytes] = []
        try:
            self.blob(descriptor, pieces.append, cancel)
        except DigestMismatchError as error:
            raise data_loss(f"config verification failed for digest {error.digest}") from error
        return b"".join(pieces)

    # ------------------------------------------------------------------------------------ blobs

    def blob(
        self,
        descriptor: Descriptor,
        sink: Callable[[bytes], None],
        cancel: Cancellation,
        kept: Partial | None = None,
    ) -> None:
        """Stream a blob into `sink`; digest and size are checked before this returns.

        After a cut it goes on with Range where it was, and after `kept`, which an earlier try has
        left; a server that ignores Range is read over.
        Raises DigestMismatchError when all bytes came and they are wrong.
        """
        state = digests.hasher(descriptor.digest)
        got = resumes = failures = 0
        for piece in kept.pieces() if kept is not None else ():
            cancel.check()
            got += len(piece)
            resumes = 1
            state.update(piece)
            sink(piece)
        while got < descriptor.size or not resumes:
            before = got
            try:
                with closing(self._open_blob(descriptor, got, cancel)) as pieces:
                    for piece in pieces:
                        got += len(piece)
                        state.update(piece)
                        if kept is not None:
                            kept.add(piece)
                        sink(piece)
                break
            except TransientError as error:
                cancel.check()
                failures = failures + 1 if got == before else 1
                resumes += 1
                if failures >= self._settings.timeouts.attempts or resumes >= _MAX_RESUMES:
                    raise _gave_up(error) from error
                cancel.wait(backoff(self._settings.timeouts, failures, error.retry_after))
        if state.hexdigest() != digests.split(descriptor.digest)[1]:
            if kept is not None:
                kept.drop()
            raise DigestMismatchError(descriptor.digest, resumed=resumes > 0)

    def _open_blob(
        self, descriptor: Descriptor, start: int, cancel: Cancellation
    ) -> Generator[bytes, None, None]:
        headers = {"Range": f"bytes={start}-"} if start else {}
        url = f"{self.base}/blobs/{descriptor.digest}"
        response = self._get(url, headers, cancel)
        return _pieces(response, descriptor, start, self._settings.timeouts)

    # --------------------------------------------------------------------------- requests, auth

    def _get(self, url: str, headers: Mapping[str, str], cancel: Cancellation) -> Response:
        return self.request(Request(url, headers), (200, 206), cancel)

    def request(self, wanted: Request, expected: Collection[int], cancel: Cancellation) -> Response:
        """Send with authentication; a status that is not expected raises.

        Raises TransientError where another try may help, TlsError, EngineError.
        """
        rounds = 0
        while True:
            sent = {"User-Agent": self._settings.user_agent, "Accept-Encoding": "identity"}
            sent.update(wanted.headers)
            if self._authorization and time.monotonic() < self._expires:
                sent["Authorization"] = self._authorization
            request = replace(wanted, headers=sent, insecure=self.endpoint.insecure)
            response = self._connector.open(request, cancel)
            if response.status in expected:
                return response
            if response.status != 401 or rounds == _AUTH_ROUNDS:
                raise self._failure(response)
            rounds += 1
            asked = auth.challenges(response.headers.get_all("WWW-Authenticate") or ())
            response.close()
            self._authenticate(asked, cancel)

    def _authenticate(self, asked: list[Challenge], cancel: Cancellation) -> None:
        for challenge in asked:
            if challenge.scheme == "bearer" and challenge.realm:
                self._fetch_token(challenge, cancel)
                return
        if any(challenge.scheme == "basic" for challenge in asked):
            if self._credentials is None:
                raise unauthorized(f'Get "{self.endpoint.url}/v2/": no basic auth credentials')
            self._authorization = auth.basic(self._credentials)
            self._expires = float("inf")
            return
        raise self._denied()

    def _fetch_token(self, challenge: Challenge, cancel: Cancellation) -> None:
        allowed = self._settings.realms.get(self._reference.domain, ())
        trusted = auth.realm_may_see_credentials(challenge.realm, self.endpoint.url, allowed)
        if self._credentials is not None and not trusted:
            raise unauthorized(
                f"unauthorized: {self._reference.domain} asks to send its credentials to "
                f"{urlsplit(challenge.realm).netloc[:200]!r}, which is not allowed"
            )
        if urlsplit(challenge.realm).scheme == "http" and self.endpoint.url.startswith("https:"):
            raise unauthorized("unauthorized: refusing a token server over http for https")
        wanted = auth.token_request(challenge, " ".join(self._scopes), self._credentials)
        headers = {"User-Agent": self._settings.user_agent, **dict(wanted.headers)}
        method = "POST" if wanted.body is not None else "GET"
        same_host = urlsplit(challenge.realm).hostname == urlsplit(self.endpoint.url).hostname
        response = self._connector.open(
            Request(
                wanted.url, headers, method, wanted.body, self.endpoint.insecure, not same_host
            ),
            cancel,
        )
        try:
            if response.status in _RETRIED:
                raise self._failure(response)
            if response.status != 200:
                raise self._denied(_registry_text(response))
            deadline = time.monotonic() + self._settings.timeouts.stall
            found = auth.token(response.document(auth.TOKEN_LIMIT, deadline))
        finally:
            response.close()
        self._authorization = f"Bearer {found.value}"
        self._expires = time.monotonic() + found.expires_in

    # ----------------------------------------------------------------------------------- errors

    def _failure(self, response: Response) -> Exception:
        status = response.status
        wait = retry_after(response.headers.get("Retry-After"), time.time())
        try:
            text = _registry_text(response)
        finally:
            response.close()
        if status in _RETRIED:
            what = "toomanyrequests: " if status == 429 else ""
            message = f"{what}received unexpected HTTP status: {status} {text}".strip()
            return TransientError(message, retry_after=wait)
        name = self._reference.familiar_name
        if status == 401:
            return self._denied(text)
        if status == 403:
            return self._denied(text or "denied: requested access to the resource is denied")
        if status == 404 and text.startswith("name unknown"):
            return not_found(f"repository {name} not found: {text}")
        if status == 404:
            reason = text or "manifest unknown: manifest unknown"
            return not_found(f"manifest for {self._reference.familiar} not found: {reason}")
        message = f"{self.endpoint.url}: received unexpected HTTP status: {status} {text}".strip()
        return EngineError(Kind.INTERNAL, message)

    def _denied(self, text: str = "") -> EngineError:
        reason = text or "unauthorized: authentication required"
        if self._credentials is not None:
            return unauthorized(f"unauthorized: {reason.removeprefix('unauthorized: ')}")
        if self._pushing:
            return unauthorized(reason)
        return not_found(
            f"pull access denied for {self._reference.familiar_name}, repository does not exist "
            f"or may require 'docker login': {reason}"
        )

    def retried(self, action: Callable[[], _T], cancel: Cancellation) -> _T:
        """Do it again, with back-off, while it fails in a way that may pass."""
        attempts = self._settings.timeouts.attempts
        if self.endpoint.mirror or self.endpoint.insecure:
            attempts = min(2, attempts)  # there is another endpoint to try
        attempt = 0
        while True:
            try:
                return action()
            except TransientError as error:
                cancel.check()
                attempt += 1
                if attempt >= attempts or not error.reached:
                    raise _gave_up(error) from error
                cancel.wait(backoff(self._settings.timeouts, attempt, error.retry_after))
            except TlsError as error:
                message = f"Get {self.endpoint.url + '/v2/'!r}: {error}"
                raise EngineError(Kind.INTERNAL, message) from error


class _Pace:
    """Finds a registry that trickles.  Only time spent waiting for it counts, not unpacking's."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._waited = 0.0
        self._got = 0

    def read(self, response: Response, size: int) -> bytes:
        began = time.monotonic()
        piece = response.read(size)
        self._waited += time.monotonic() - began
        self._got += len(piece)
        if self._waited >= self._timeouts.stall:
            if piece and self._got < self._timeouts.stall_bytes:
                raise TransientError("the registry is too slow")
            self._waited, self._got = 0.0, 0
        return piece


def _pieces(
    response: Response, descriptor: Descriptor, start: int, timeouts: Timeouts
) -> Generator[bytes, None, None]:
    """The rest of a blob from `start`, reading never more than its size plus one byte."""
    try:
        _check_headers(response, descriptor, start)
        pace = _Pace(timeouts)
        skip = start if response.status == 200 else 0
        left = descriptor.size - start + skip
        while piece := pace.read(response, min(_PIECE, left + 1)):
            left -= len(piece)
            if left < 0:
                raise data_loss(f"blob {descriptor.digest} is longer than {descriptor.size} bytes")
            dropped = min(skip, len(piece))
            skip -= dropped
            if dropped < len(piece):
                yield piece[dropped:]
        if left:
            raise TransientError(f"blob {descriptor.digest} ended early")
    finally:
        response.close()


def _check_headers(response: Response, descriptor: Descriptor, start: int) -> None:
    length = response.length()
    expected = descriptor.size
    if response.status == 206:
        said = response.headers.get("Content-Range", "")
        if not said.startswith(f"bytes {start}-"):
            raise data_loss(f"the registry sent a wrong range of {descriptor.digest}")
        expected -= start
    if length is not None and length != expected:
        raise data_loss(f"blob {descriptor.digest} has {length} bytes, {expected} were expected")


def _check_length(response: Response, raw: bytes, what: str) -> None:
    length = response.length()
    if length is not None and len(raw) < length and len(raw) <= documents.MANIFEST_LIMIT:
        raise TransientError(f"{what} ended early")


def _gave_up(error: TransientError) -> EngineError:
    return EngineError(Kind.UNAVAILABLE if error.reached else Kind.INTERNAL, str(error))


def _registry_text(response: Response) -> str:
    """ "code: message" of the first error in the body, made printable; "" without one."""
    try:
        raw = response.document(_ERROR_LIMIT, time.monotonic() + 5)
        found = documents.objects(documents.decode(raw, _ERROR_LIMIT), "errors", 100)
        if not found:
            return ""
        code = documents.text(found[0], "code").replace("_", " ").lower()
        text = f"{code}: {documents.text(found[0], 'message')}"
    except (TransientError, documents.BadDocumentError):
        return ""
    return "".join(char if char.isprintable() else "?" for char in text[:300])
