"""The wire below python-digitalocean's objects.

The library (1.17, its last release) makes requests without a time-out, forgets the status and the
rate-limit headers of refusals, does not look at the status of a list's further pages (a 429 there
ends the list silently), follows the server's link for them with the token, and posts without its
own session. Its classes all go through one public method, `get_data`: ours stands between them and
the library's `BaseAPI`. What the library knows - paths, parameters, shapes - stays its own.
"""

from __future__ import annotations

import functools
import json
import urllib.parse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from drivers.digitalocean.refusals import refusal
from drivers.errors import CannotError, DriverError, InvalidError, TransientError

if TYPE_CHECKING:
    import requests

CONNECT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 60.0
PER_PAGE: Final = 200
_MOST_PAGES: Final = 500
_LIBRARY_HINT: Final = "pip install 'machine[digitalocean]'"


class Wire:
    """One keep-alive session with the API. For one thread."""

    def __init__(self, endpoint: str, token: str, now: Callable[[], float]) -> None:
        import requests

        self._endpoint = endpoint.rstrip("/") + "/"
        self._now = now
        self._session = requests.Session()
        # As an auth object: an entry of ~/.netrc would replace a plain header.
        self._session.auth = functools.partial(_sign, token)
        self._session.headers["Content-Type"] = "application/json"

    def ask(self, method: str, path: str, params: Mapping[str, object]) -> object:
        """The answer's document, True for 204. Raises a kind of DriverError."""
        if method != "GET":
            return self._once(method, path, params)
        whole = self._once(method, path, {"per_page": PER_PAGE, **params})
        if "page" in params or not isinstance(whole, dict):
            return whole
        page: object = whole
        number = 1
        while isinstance(page, dict) and _more(page):
            number += 1
            if number > _MOST_PAGES:
                raise DriverError(f"DigitalOcean: the list {path} does not end")
            page = self._once(method, path, {"per_page": PER_PAGE, **params, "page": number})
            _join(whole, page)
        return whole

    def _once(self, method: str, path: str, params: Mapping[str, object]) -> object:
        import requests

        url = urllib.parse.urljoin(self._endpoint, path)
        get = method == "GET"
        try:
            answer = self._session.request(
                method,
                url,
                params=_query(params) if get else None,
                data=None if get else json.dumps(params),
                timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
                allow_redirects=False,
            )
        except requests.exceptions.SSLError as err:
            raise DriverError(f"DigitalOcean: {_cause(err)}", hint=_TLS_HINT) from None
        except (requests.exceptions.Timeout, requests.exceptions.ConnectionError) as err:
            raise TransientError(f"DigitalOcean: {_cause(err)}") from None
        except (requests.exceptions.RequestException, ValueError) as err:
            raise InvalidError(f"DigitalOcean: {_cause(err)}") from None
        return self._read(answer)

    def _read(self, answer: requests.Response) -> object:
        if answer.status_code == 204:
            return True
        try:
            document = answer.json()
        except ValueError:
            document = None
        if not 200 <= answer.status_code < 300:
            # requests' headers are case-insensitive; a plain dict of them would not be.
            raise refusal(answer.status_code, document, answer.headers, self._now())
        if document is None:
            raise TransientError("DigitalOcean: an answer was cut off or is no JSON")
        return document


_TLS_HINT: Final = (
    "Behind a proxy that opens TLS, set REQUESTS_CA_BUNDLE to the certificate of its authority."
)


class _Wired(Protocol):
    """An object of the library, with our wire in it."""

    wire: Wire


def library(wire: Wire) -> Callable[..., Any]:
    """`make(KIND, **attributes)`: an object of the library's class KIND on this wire.

    Raises CannotError when python-digitalocean can't be imported.
    """
    kinds = _kinds()

    def make(kind: str, **attributes: object) -> Any:
        # The token stays in the wire: the library's objects take theirs from the environment
        # unless told otherwise, and put it into debug logs.
        return kinds[kind](**attributes, wire=wire, token="")

    return make


@functools.cache
def _kinds() -> Mapping[str, Callable[..., Any]]:
    """The library's classes with our `get_data` between them and its BaseAPI."""
    try:
        import digitalocean
        from digitalocean.baseapi import BaseAPI
    except ImportError as err:
        raise CannotError(
            f"python-digitalocean can't be imported: {err}", hint=_LIBRARY_HINT
        ) from err
    seam = type("Seam", (BaseAPI,), {"get_data": _get_data})
    names = (
        *("Account", "Droplet", "Firewall", "Image", "Manager"),
        *("Snapshot", "SSHKey", "Tag", "Volume", "VPC"),
    )
    return {name: type(name, (getattr(digitalocean, name), seam), {}) for name in names}


def _get_data(self: _Wired, url: str, **given: object) -> object:
    """Stands for BaseAPI.get_data(url, type=GET, params=None)."""
    params = given.get("params")
    method = str(given.get("type", "GET"))
    return self.wire.ask(method, url, params if isinstance(params, Mapping) else {})


def _sign(token: str, request: requests.PreparedRequest) -> requests.PreparedRequest:
    request.headers["Authorization"] = f"Bearer {token}"
    return request


def _query(params: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in params.items()}


def _more(page: Mapping[str, object]) -> bool:
    links = page.get("links")
    pages = links.get("pages") if isinstance(links, Mapping) else None
    return bool(pages.get("next")) if isinstance(pages, Mapping) else False


def _join(whole: dict[str, object], page: object) -> None:
    """Lists grow by the further page's items."""
    if not isinstance(page, Mapping):
        return
    for name, value in page.items():
        mine = whole.get(name)
        if isinstance(value, list) and isinstance(mine, list):
            mine.extend(value)


def _cause(err: Exception) -> str:
    """The innermost reason: requests wraps urllib3's wrapping of the system's error."""
    inner: BaseException = err
    while inner.__context__ is not None:
        inner = inner.__context__
    return str(inner)[:300] or type(inner).__name__
