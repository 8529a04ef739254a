"""Large files over verified HTTPS, from any byte on, along redirects that stay on HTTPS."""

from __future__ import annotations

import contextlib
import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import IO, Any, Final
from urllib.parse import urlsplit

from drivers.errors import GoneError, InvalidError, TransientError

_CHUNK: Final = 1 << 20
_TIMEOUT: Final = 60.0  # seconds without a byte
_MAY_PASS: Final = frozenset({408, 425, 429})
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost"})


class HttpsWeb:
    """drivers.images.Web by the standard library, which heeds the environment's proxies."""

    def read(self, url: str, *, limit: int) -> bytes:
        with _told(url), _open(url, 0) as answer:
            data = bytes(answer.read(limit + 1))
        if len(data) > limit:
            raise InvalidError(f"{url}: more than {limit} bytes")
        return data

    @contextlib.contextmanager
    def stream(self, url: str, *, start: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        try:
            with _told(url):
                answer = _open(url, start)
        except _RangeError as err:
            if err.whole:
                yield start, iter(())
                return
            with _told(url):  # the file has become shorter than what we have of it
                answer = _open(url, 0)
        with answer:
            yield (start if answer.status == 206 else 0), _chunks(url, answer)


class _RangeError(Exception):
    """The server has nothing from that byte on; `whole`: since the file ends there."""

    def __init__(self, *, whole: bool) -> None:
        super().__init__("416")
        self.whole = whole


class StaysSecure(urllib.request.HTTPRedirectHandler):
    """Redirects to HTTPS only. Raises InvalidError for others."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str,
        headers: http.client.HTTPMessage, newurl: str,
    ) -> urllib.request.Request | None:  # fmt: skip
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        # Only what is on this computer may lead to another service of it.
        near = new.hostname in _LOOPBACK and old.hostname in _LOOPBACK
        if new.scheme != "https" and not near:
            raise InvalidError(f"{req.full_url} leads to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, start: int) -> Any:
    """An answer with a body; Any, since the library's own types say no more."""
    context = ssl.create_default_context()
    opener = urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=context), StaysSecure()
    )
    opener.addheaders = [("User-Agent", "machine"), ("Accept-Encoding", "identity")]
    if start:
        opener.addheaders.append(("Range", f"bytes={start}-"))
    try:
        return opener.open(url, timeout=_TIMEOUT)
    except urllib.error.HTTPError as err:
        with err:
            if err.code == 416 and start:
                whole = str(err.headers.get("Content-Range", "")).endswith(f"*/{start}")
                raise _RangeError(whole=whole) from err
            raise


def _chunks(url: str, answer: http.client.HTTPResponse) -> Iterator[bytes]:
    left = answer.length  # None when the server did not say
    with _told(url):
        while data := answer.read(_CHUNK):
            left = left - len(data) if left is not None else None
            yield data
    if left:
        raise TransientError(f"{url}: the connection ended {left} bytes early")


@contextlib.contextmanager
def _told(url: str) -> Iterator[None]:
    """The library's errors as the contract's."""
    try:
        yield
    except urllib.error.HTTPError as err:
        text = f"{url}: {err.code} {err.reason}"
        if err.code in {404, 410}:
            raise GoneError(text) from err
        if err.code >= 500 or err.code in _MAY_PASS:
            raise TransientError(
                text, retry_after=_seconds(err.headers.get("Retry-After"))
            ) from err
        raise InvalidError(text) from err
    except ssl.SSLCertVerificationError as err:
        raise InvalidError(f"{url}: {err.verify_message}") from err
    except urllib.error.URLError as err:
        if isinstance(err.reason, ssl.SSLCertVerificationError):
            raise InvalidError(f"{url}: {err.reason.verify_message}") from err
        raise TransientError(f"{url}: {err.reason}") from err
    except (OSError, http.client.HTTPException) as err:
        raise TransientError(f"{url}: {err}") from err


def _seconds(header: str | None) -> float:
    return float(header) if header and header.isdecimal() else 0.0
