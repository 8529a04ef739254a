"""Content digests as strings, checked before they reach a path or a URL (security.md C21)."""

from __future__ import annotations

import hashlib
import re
from typing import Protocol

_DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")


class Hash(Protocol):
    """The part of hashlib's objects that is used here."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


def valid(text: str) -> bool:
    """Whether `text` is a digest that we can verify: sha256 or sha512, lower-case hex."""
    return _DIGEST.fullmatch(text) is not None


def split(digest: str) -> tuple[str, str]:
    """(algorithm, hex) of a checked digest."""
    algorithm, _, hexadecimal = digest.partition(":")
    return algorithm, hexadecimal


def hasher(digest: str) -> Hash:
    """A new hash object of the digest's algorithm."""
    return hashlib.sha512() if digest.startswith("sha512:") else hashlib.sha256()


def of(data: bytes) -> str:
    """The canonical (sha256) digest of a document."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def matches(data: bytes, digest: str) -> bool:
    """Whether `data` is what `digest` names."""
    state = hasher(digest)
    state.update(data)
    return state.hexdigest() == split(digest)[1]


def short(digest: str) -> str:
    """The 12 hex digits that docker shows (stringid.TruncateID)."""
    return split(digest)[1][:12] if ":" in digest else digest[:12]


def chain_ids(diff_ids: tuple[str, ...]) -> tuple[str, ...]:
    """OCI image-spec chain IDs, base first."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return tuple(chain)
