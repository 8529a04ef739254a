"""Registry authentication, the pure half: challenges, token requests, who may see credentials.

Follows RFC 7235/6750 as used by the distribution token specification.  Credentials belong to one
registry: they go to its own host, or to a realm host that is on its list, never elsewhere (C22).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from urllib.parse import urlencode, urlsplit

from agent.engine.model import RegistryAuth
from agent.errors import EngineError, unauthorized
from agent.images import documents
from agent.values import frozen

TOKEN_LIMIT = 256 << 10
_MAX_TOKEN = 64 << 10
_MIN_EXPIRY = 60.0
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9_-]*)\s*")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_HUB_NAMES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


@frozen
class Challenge:
    """One WWW-Authenticate challenge; scheme in lower case."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""


@frozen
class TokenRequest:
    """What to send to a token server.  repr() never shows credentials."""

    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | None

    def __repr__(self) -> str:
        return f"TokenRequest(url={self.url!r})"


@frozen
class Token:
    """A bearer token and its life in seconds."""

    value: str
    expires_in: float

    def __repr__(self) -> str:
        return f"Token(expires_in={self.expires_in})"


def challenges(values: Iterable[str]) -> list[Challenge]:
    """Parse WWW-Authenticate values; what can't be parsed is left out."""
    found: list[Challenge] = []
    for value in values:
        scheme = _SCHEME.match(value[:4096])
        if scheme is None:
            continue
        fields: dict[str, str] = {}
        position = scheme.end()
        while match := _PARAMETER.match(value, position):
            quoted, bare = match[2], match[3]
            text = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else bare
            fields.setdefault(match[1].lower(), text)
            position = match.end()
        realm = fields.get("realm", "")
        if _is_url(realm):
            service, scope = fields.get("service", ""), fields.get("scope", "")
            found.append(Challenge(scheme[1].lower(), realm, service, scope))
    return found


def _is_url(text: str) -> bool:
    try:
        return urlsplit(text) is not None
    except ValueError:  # "[" without its "]"
        return False


def belongs(auth: RegistryAuth | None, domain: str) -> RegistryAuth | None:
    """The credentials if they were given for this registry (or name none), else None."""
    if auth is None:
        return None
    server = auth.server_address
    if not _is_url(server):
        return None
    host = (urlsplit(server).netloc if "://" in server else server.partition("/")[0]).lower()
    if not host or host == domain.lower() or (host in _HUB_NAMES and domain in _HUB_NAMES):
        return auth
    return None


def has_secret(auth: RegistryAuth | None) -> bool:
    """Whether there is anything to authenticate with."""
    return auth is not None and bool(
        auth.username or auth.password or auth.identity_token or auth.registry_token
    )


def basic(auth: RegistryAuth) -> str:
    """The Authorization value of HTTP Basic."""
    pair = f"{auth.username}:{auth.password}".encode()
    return "Basic " + base64.b64encode(pair).decode("ascii")


def realm_may_see_credentials(realm: str, registry_url: str, allowed: Iterable[str]) -> bool:
    """The realm rule: the registry's own host or a listed one, and never from https to http."""
    target, own = urlsplit(realm), urlsplit(registry_url)
    if target.scheme not in ("http", "https") or not target.hostname:
        return False
    if target.scheme == "http" and (own.scheme == "https" or target.hostname != own.hostname):
        return False
    return target.hostname == own.hostname or target.hostname in allowed


def token_request(challenge: Challenge, scope: str, auth: RegistryAuth | None) -> TokenRequest:
    """The request for a token: GET with Basic, or POST with a refresh token (oauth2)."""
    service = [("service", challenge.service)] if challenge.service else []
    if auth is not None and auth.identity_token:
        form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", auth.identity_token),
            ("client_id", "docker"),
            *((("scope", scope),) if scope else ()),
            *service,
        ]
        content = ("Content-Type", "application/x-www-form-urlencoded")
        return TokenRequest(challenge.realm, (content,), urlencode(form).encode())
    query = [*service, *(("scope", part) for part in scope.split())]
    headers: tuple[tuple[str, str], ...] = ()
    if auth is not None and auth.username:
        query.insert(0, ("account", auth.username))
        headers = (("Authorization", basic(auth)),)
    joint = "&" if urlsplit(challenge.realm).query else "?"
    return TokenRequest(challenge.realm + joint + urlencode(query), headers, None)


def token(raw: bytes) -> Token:
    """Decode a token server's answer; UNAUTHORIZED when it is no token."""
    try:
        document = documents.decode(raw, TOKEN_LIMIT)
        value = documents.text(document, "token") or documents.text(document, "access_token")
    except documents.BadDocumentError as error:
        raise no_token(str(error)) from error
    if not value or len(value) > _MAX_TOKEN or not _TOKEN.fullmatch(value):
        raise no_token("it has no usable token")
    expiry = document.get("expires_in")
    seconds = float(expiry) if isinstance(expiry, int | float) else _MIN_EXPIRY
    return Token(value, max(_MIN_EXPIRY, min(seconds, 86400.0)))


def no_token(reason: str) -> EngineError:
    """UNAUTHORIZED: the token server's answer could not be used."""
    return unauthorized(f"unauthorized: the token server's answer could not be used: {reason}")
