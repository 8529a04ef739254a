"""Image references: the grammar of distribution/reference, docker.io defaults, familiar names.

Pure.  Every failure is an INVALID EngineError with docker's text, raised before any file or
network access.
"""

from __future__ import annotations

import re

from agent.errors import EngineError, invalid
from agent.images import digest as digests
from agent.values import frozen

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_LEGACY_DOMAIN = "index.docker.io"
_NAME_LIMIT = 255
_TEXT_LIMIT = 1024

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(
    rf"(?:(?P<host>{_LABEL}(?:\.{_LABEL})*)|\[(?P<six>[a-fA-F0-9:]+)\])(?::(?P<port>[0-9]+))?"
)
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
_HEX_PREFIX = re.compile(r"[a-f0-9]{1,64}")


@frozen
class Reference:
    """A normalised reference.  With both tag and digest, the digest decides and nothing is tagged."""

    domain: str  # "docker.io", "10.0.0.1:5000", "[::1]:5000"
    path: str  # "library/debian"
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """The full repository name, "docker.io/library/debian"."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """As docker shows it: "debian", "bitnami/redis", "10.0.0.1:5000/x"."""
        return familiar(self.name)

    @property
    def familiar(self) -> str:
        """Familiar name with tag and digest."""
        return self.familiar_name + self._suffix()

    def __str__(self) -> str:
        return self.name + self._suffix()

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return tag + (f"@{self.digest}" if self.digest else "")

    def tagged(self) -> Reference:
        """With ":latest" when there is neither tag nor digest."""
        if self.tag or self.digest:
            return self
        return Reference(self.domain, self.path, DEFAULT_TAG)


def familiar(name: str) -> str:
    """Familiar form of a full repository name."""
    prefix = DEFAULT_DOMAIN + "/"
    if not name.startswith(prefix):
        return name
    rest = name.removeprefix(prefix)
    official = rest.removeprefix("library/")
    return official if "/" not in official else rest


def bad_format(detail: str = "") -> EngineError:
    """docker's INVALID error."""
    return invalid("invalid reference format" + (f": {detail}" if detail else ""))


def parse(text: str) -> Reference:
    """Parse and normalise; the tag stays "" when there is none (see `tagged`)."""
    if not text or len(text) > _TEXT_LIMIT or not text.isascii():
        raise bad_format()
    if _IDENTIFIER.fullmatch(text):
        raise invalid(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    rest, at, digest = text.partition("@")
    if at and not digests.valid(digest):
        raise bad_format()
    rest, tag = _cut_tag(rest)
    domain, path = _split_domain(rest)
    _check_path(path)
    if len(f"{domain}/{path}") > _NAME_LIMIT:
        raise invalid(f"repository name must not be more than {_NAME_LIMIT} characters")
    return Reference(domain, path, tag, digest)


def with_tag(repository: str, tag: str) -> Reference:
    """The reference that `docker tag` makes; the repository may carry neither tag nor digest."""
    found = parse(repository)
    if found.digest or (found.tag and tag):
        raise bad_format()
    tag = tag or found.tag or DEFAULT_TAG
    if not _TAG.fullmatch(tag):
        raise invalid(f"invalid tag format: {tag!r}" if tag.isprintable() else "invalid tag format")
    if found.domain == DEFAULT_DOMAIN and found.familiar_name == "sha256":
        raise invalid("refusing to create an ambiguous tag using digest algorithm as name")
    return Reference(found.domain, found.path, tag)


def is_tag(text: str) -> bool:
    """Whether it can be a tag."""
    return _TAG.fullmatch(text) is not None


def id_prefix(text: str) -> str | None:
    """The hex part when `text` could be an image id or a prefix of one, else None."""
    text = text.removeprefix("sha256:")
    return text if _HEX_PREFIX.fullmatch(text) else None


def _cut_tag(rest: str) -> tuple[str, str]:
    slash = rest.rfind("/")
    colon = rest.find(":", slash + 1)
    if colon < 0:
        return rest, ""
    tag = rest[colon + 1 :]
    if not _TAG.fullmatch(tag):
        raise bad_format()
    return rest[:colon], tag


def _split_domain(rest: str) -> tuple[str, str]:
    first, slash, path = rest.partition("/")
    named = "." in first or ":" in first or first == "localhost" or first.lower() != first
    if not slash or not named:
        domain, path = DEFAULT_DOMAIN, rest
    else:
        domain = first
        _check_domain(domain)
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    return domain, path


def _check_domain(domain: str) -> None:
    match = _DOMAIN.fullmatch(domain)
    if match is None:
        raise bad_format()
    port = match["port"]
    if port is not None and (len(port) > 5 or not 0 < int(port) < 65536):
        raise bad_format()


def _check_path(path: str) -> None:
    if _PATH.fullmatch(path):
        return
    if _PATH.fullmatch(path.lower()):
        raise bad_format(f"repository name ({path}) must be lowercase")
    raise bad_format()
