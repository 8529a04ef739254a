"""The real reader against a server on this computer's loopback."""

import http.client
import http.server
import io
import threading
import urllib.request
from collections.abc import Iterator
from typing import Final

import pytest

from drivers.download import HttpsWeb, StaysSecure
from drivers.errors import GoneError, InvalidError, TransientError

BODY: Final = bytes(range(256)) * 20


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if self.path == "/file" and start >= len(BODY):
            self._answer(416, b"", {"Content-Range": f"bytes */{len(BODY)}"})
        elif self.path == "/file" and start:
            self._answer(206, BODY[start:], {})
        elif self.path == "/short":
            self._answer(200, BODY[:100], {}, length=len(BODY))
        elif self.path.startswith("/to/"):
            self._answer(302, b"", {"Location": self.path[4:].replace("PORT", self._port())})
        elif self.path[1:].isdecimal():
            self._answer(int(self.path[1:]), b"why", {"Retry-After": "7"})
        else:
            self._answer(200, BODY, {})

    def _port(self) -> str:
        return str(self.connection.getsockname()[1])

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str], length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def at() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.05))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def body(url: str, start: int = 0) -> tuple[int, bytes]:
    with HttpsWeb().stream(url, start=start) as (begins, chunks):
        return begins, b"".join(chunks)


def test_all_or_the_rest_of_a_file(at: str) -> None:
    assert HttpsWeb().read(f"{at}/file", limit=len(BODY)) == BODY
    assert body(f"{at}/file") == (0, BODY)
    assert body(f"{at}/file", 1000) == (1000, BODY[1000:])


def test_nothing_is_left_of_a_file_that_is_here_already(at: str) -> None:
    assert body(f"{at}/file", len(BODY)) == (len(BODY), b"")


def test_a_file_that_became_shorter_is_read_again(at: str) -> None:
    assert body(f"{at}/file", len(BODY) + 5) == (0, BODY)


def test_a_server_without_ranges_sends_all(at: str) -> None:
    assert body(f"{at}/other", 1000) == (0, BODY)


def test_a_body_that_ends_early_is_told(at: str) -> None:
    with pytest.raises(TransientError, match=f"ended {len(BODY) - 100} bytes early"):
        body(f"{at}/short")


def test_too_much_for_a_listing(at: str) -> None:
    with pytest.raises(InvalidError, match="more than 99 bytes"):
        HttpsWeb().read(f"{at}/file", limit=99)


def test_redirects_are_followed_but_not_to_where_anyone_reads(at: str) -> None:
    assert body(f"{at}/to/http://127.0.0.1:PORT/file") == (0, BODY)
    with pytest.raises(InvalidError, match="which is not https"):
        body(f"{at}/to/http://192.0.2.1/file")


@pytest.mark.parametrize(
    ("of", "to", "allowed"),
    [
        ("https://images.example/a", "http://127.0.0.1:8080/admin", False),
        ("https://images.example/a", "http://localhost/admin", False),
        ("https://images.example/a", "https://mirror.example/a", True),
        ("http://localhost:1/a", "http://127.0.0.1:2/b", True),
        ("http://localhost:1/a", "http://images.example/a", False),
    ],
)
def test_a_server_elsewhere_leads_to_no_service_of_this_computer(
    of: str, to: str, *, allowed: bool
) -> None:
    def follow() -> urllib.request.Request | None:
        request = urllib.request.Request(of)
        return StaysSecure().redirect_request(
            request, io.BytesIO(), 302, "Found", http.client.HTTPMessage(), to
        )

    if allowed:
        assert follow() is not None
        return
    with pytest.raises(InvalidError, match="which is not https"):
        follow()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, GoneError),
        (410, GoneError),
        (403, InvalidError),
        (429, TransientError),
        (500, TransientError),
        (503, TransientError),
    ],
)
def test_statuses_are_the_contracts_kinds(at: str, status: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=f"{status} ") as told:
        HttpsWeb().read(f"{at}/{status}", limit=10)
    assert not isinstance(told.value, TransientError) or told.value.retry_after == 7


def test_nobody_there_is_worth_another_try() -> None:
    with pytest.raises(TransientError, match="refused"):
        HttpsWeb().read("http://127.0.0.1:9/x", limit=10)
