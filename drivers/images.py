"""Base images: the newest Debian cloud image by query, or the user's; verified and cached.

An image is asked for by `Images.fetch`. "" is the newest release's "generic" cloud image, found in
the directory of https://cloud.debian.org/images/cloud/ (never a frozen id); else a PATH, or a URL
whose checksum is in a SHA512SUMS or SHA256SUMS file beside it, or given as its fragment:
URL#sha512=HEX. A file in the cache is whole and verified: it gets its name after that.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from drivers.api import DriverContext
from drivers.errors import DriverError, GoneError, InvalidError, TransientError
from drivers.locks import locked
from drivers.polling import retried

DEBIAN: Final = "https://cloud.debian.org/images/cloud/"
MOST: Final = 64 << 30  # bytes of an image
_SUMS: Final = (("SHA512SUMS", "sha512"), ("SHA256SUMS", "sha256"))
_LISTING_LIMIT: Final = 4 << 20
_FRESH: Final = 24 * 3600.0  # seconds that an answer about the newest image is good for
_LOCK_SECONDS: Final = 3600.0
_RETRY_SECONDS: Final = 3600.0  # a slow line that breaks now and then must get to its end
_HEX: Final = {"sha512": 128, "sha256": 64}


class Web(Protocol):
    """What images are read from."""

    def read(self, url: str, *, limit: int) -> bytes:
        """The whole body. Raises GoneError for 404, TransientError, InvalidError."""

    def stream(
        self, url: str, *, start: int
    ) -> AbstractContextManager[tuple[int, Iterator[bytes]]]:
        """(where the body really begins: `start` or 0, its chunks). Raises as `read` does."""


@dataclasses.dataclass(frozen=True, slots=True)
class Offer:
    """An image that can be had: where, and what its bytes must hash to."""

    url: str
    kind: str  # sha512 or sha256
    digest: str  # hexadecimal, lower case

    @property
    def name(self) -> str:
        return _file_name(self.url)


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """An image on this computer. `digest` is "" for the user's own file, which is used as it is."""

    path: Path
    name: str
    digest: str = ""


class Images:
    """Finds, downloads and keeps images; `index` is the directory of Debian's releases."""

    def __init__(self, web: Web | None = None, index: str = DEBIAN) -> None:
        self._web = web or _https()
        self._index = index

    def problems(self, given: str) -> list[str]:
        """What is wrong with the user's PATH or URL, for `check`. Asks nobody."""
        if not given:
            return []
        if not is_url(given):
            path = Path(given).expanduser()
            return [] if path.is_file() else [f"{path}: no such image file"]
        try:
            _fragment(given)
        except InvalidError as err:
            return [err.message]
        return [] if _allowed(given) else [f"{given}: images are read from https:// only"]

    def fetch(self, ctx: DriverContext, given: str, *, arch: str = "amd64") -> Image:
        """The image, downloaded when it isn't here yet; goes on where a broken download stopped.

        `arch` is Debian's name (amd64, arm64) and counts when `given` is "". Raises DriverError.
        """
        if given and not is_url(given):
            path = Path(given).expanduser().absolute()
            if not path.is_file():
                raise GoneError(f"{path}: no such image file")
            return Image(path, path.name)
        offer = self._given(ctx, given) if given else self._newest(ctx, arch)
        folder = ctx.cache / "images"
        lock = folder / f".lock-{offer.digest[:16]}"
        with locked(lock, what="an image download", seconds=_LOCK_SECONDS, clock=ctx.clock):
            path = folder / f"{offer.digest[:16]}-{offer.name}"
            if not path.exists():
                self._download(ctx, offer, path)
        return Image(path, offer.name, offer.digest)

    # -- which one

    def _given(self, ctx: DriverContext, given: str) -> Offer:
        url, kind, digest = _fragment(given)
        if not _allowed(url):
            raise InvalidError(f"{url}: images are read from https:// only")
        if digest:
            return Offer(url, kind, digest)
        for name, known in _SUMS:
            try:
                sums = self._listing(ctx, urljoin(url, name))
            except GoneError:
                continue
            found = checksums(sums, known).get(_file_name(url))
            if found:
                return Offer(url, known, found)
        raise InvalidError(
            f"{url}: there is no SHA512SUMS or SHA256SUMS beside it that names it",
            hint=f"Give the checksum with it: {url}#sha512=HEX",
        )

    def _newest(self, ctx: DriverContext, arch: str) -> Offer:
        memo = ctx.cache / "images" / f"newest-{arch}.json"
        known = _remembered(memo)
        if known and ctx.clock.now() - known[1] < _FRESH:
            return known[0]
        try:
            offer = self._ask_newest(ctx, arch)
        except TransientError:
            if known and (memo.parent / f"{known[0].digest[:16]}-{known[0].name}").exists():
                return known[0]  # without a network, what is here is the newest that can be had
            raise
        _remember(memo, offer, ctx.clock.now())
        return offer

    def _ask_newest(self, ctx: DriverContext, arch: str) -> Offer:
        """Every release has CODENAME/latest/SHA512SUMS; testing and sid have no number there."""
        found: dict[int, Offer] = {}
        pattern = re.compile(rf"debian-(\d+)-generic-{re.escape(arch)}\.qcow2")
        for codename in releases(self._listing(ctx, self._index)):
            folder = f"{self._index}{codename}/latest/"
            try:
                sums = self._listing(ctx, f"{folder}SHA512SUMS")
            except GoneError:
                continue
            for name, digest in checksums(sums, "sha512").items():
                match = pattern.fullmatch(name)
                if match:
                    found[int(match[1])] = Offer(folder + name, "sha512", digest)
        if not found:
            raise GoneError(
                f"{self._index} has no Debian cloud image for {arch}",
                hint="Give one yourself, as a file or a URL.",
            )
        return found[max(found)]

    def _listing(self, ctx: DriverContext, url: str) -> str:
        def read() -> bytes:
            return ctx.door.call(
                f"GET {_file_name(url) or 'listing'}",
                lambda: self._web.read(url, limit=_LISTING_LIMIT),
            )

        return retried(read, clock=ctx.clock, seconds=60.0).decode("utf-8", "replace")

    # -- its bytes

    def _download(self, ctx: DriverContext, offer: Offer, path: Path) -> None:
        part = path.with_name(f"{path.name}.part")
        for last in (False, True):
            retried(
                lambda: ctx.door.call("GET image", lambda: self._append(offer.url, part)),
                clock=ctx.clock,
                seconds=_RETRY_SECONDS,
            )
            if _digest(part, offer.kind) == offer.digest:
                part.replace(path)
                return
            part.unlink()
            if last:
                raise InvalidError(
                    f"{offer.url}: its {offer.kind} is not the one that was announced",
                    hint="It may have been replaced a moment ago: run the same command again.",
                )

    def _append(self, url: str, part: Path) -> None:
        """Read on from where `part` ends; a server that can't do that sends all again."""
        try:
            have = part.stat().st_size if part.exists() else 0
            with self._web.stream(url, start=have) as (start, chunks), part.open("ab") as file:
                if start != have:
                    file.truncate(start)
                for chunk in chunks:
                    file.write(chunk)
                    if file.tell() > MOST:
                        raise InvalidError(f"{url}: more than {MOST >> 30} GiB")
                file.flush()
                os.fsync(file.fileno())
        except OSError as err:
            raise DriverError(f"cannot write {part}: {err.strerror}") from err


def is_url(given: str) -> bool:
    """Whether an image option names a URL rather than a file."""
    return re.match(r"[a-z][a-z0-9+.-]*://", given, re.IGNORECASE) is not None


def releases(listing: str) -> list[str]:
    """Codenames in the directory listing (HTML); no backports, dailies or sid."""
    names = re.findall(r'href="([a-z]+)/"', listing)
    return sorted({name for name in names if name != "sid"})


def checksums(text: str, kind: str) -> dict[str, str]:
    """name -> digest of a SHA512SUMS or SHA256SUMS file; lines of another shape are no matter."""
    rows = re.findall(rf"^([0-9a-fA-F]{{{_HEX[kind]}}}) [ *](\S+)$", text, re.MULTILINE)
    return {name: digest.lower() for digest, name in rows}


def _file_name(url: str) -> str:
    name = unquote(urlsplit(url).path.rpartition("/")[2])
    return re.sub(r"[^A-Za-z0-9._+-]", "_", name).lstrip(".")[:120]


def _fragment(given: str) -> tuple[str, str, str]:
    """(URL, kind, digest) of URL#sha512=HEX; ("", "") without one. Raises InvalidError."""
    url, fragment = urldefrag(given)
    if not fragment:
        return url, "", ""
    kind, _, digest = fragment.partition("=")
    if not re.fullmatch(f"[0-9a-fA-F]{{{_HEX.get(kind, 0)}}}", digest) or kind not in _HEX:
        raise InvalidError(f"{given}: its checksum must be #sha512=HEX or #sha256=HEX")
    return url, kind, digest.lower()


def _allowed(url: str) -> bool:
    """https, or this very computer."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (
        parts.scheme == "http" and parts.hostname in {"127.0.0.1", "localhost"}
    )


def _digest(path: Path, kind: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, kind).hexdigest()
    except OSError as err:
        raise DriverError(f"cannot read {path}: {err.strerror}") from err


def _remembered(memo: Path) -> tuple[Offer, float] | None:
    try:
        raw = json.loads(memo.read_text())
        return Offer(str(raw["url"]), "sha512", str(raw["sha512"])), float(raw["at"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(memo: Path, offer: Offer, now: float) -> None:
    try:
        memo.parent.mkdir(parents=True, exist_ok=True)
        part = memo.with_name(f"{memo.name}.part{os.getpid()}")
        part.write_text(json.dumps({"url": offer.url, "sha512": offer.digest, "at": now}))
        part.replace(memo)
    except OSError as err:
        raise DriverError(f"cannot write {memo}: {err.strerror}") from err


def _https() -> Web:
    from drivers.download import HttpsWeb

    return HttpsWeb()
