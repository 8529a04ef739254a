"""The route table: complete against the specification, and how paths find their rows."""

from typing import cast

import pytest

from agent.api.backend import Backend
from agent.api.call import Api, Call
from agent.api.routes import ROUTES, Router, Service
from agent.api.version import CURRENT, MINIMUM, parse, split
from agent.errors import EngineError, Kind
from agent.wire.http import Request
from tests.unit.agent.api.backend import NOW, FakeBackend
from tests.unit.agent.api.spec import paths

ROUTER = Router()


def test_the_table_is_the_specification():
    found = {(row.method, row.template) for row in ROUTES}
    ours = {one for one in found if "/checkpoints" not in one[1]}  # docker has them outside of it
    theirs = {(method, path) for path, methods in paths().items() for method in methods}
    assert ours == theirs
    assert len(found) == len(ROUTES), "a row twice"


def find(method, path, version=CURRENT):
    return ROUTER.find(method, path, version)


@pytest.mark.parametrize(
    ("method", "path", "template", "params"),
    [
        ("GET", "/_ping", "/_ping", {}),
        ("GET", "/containers/json", "/containers/json", {}),
        ("GET", "/containers/json/json", "/containers/{id}/json", {"id": "json"}),
        ("DELETE", "/containers/x", "/containers/{id}", {"id": "x"}),
        ("GET", "/images/json", "/images/json", {}),
        ("GET", "/images/a/b/c:1/json", "/images/{name}/json", {"name": "a/b/c:1"}),
        ("GET", "/images/h:5/json/json", "/images/{name}/json", {"name": "h:5/json"}),
        ("POST", "/images/h:5000/x@sha256:00/tag", "/images/{name}/tag",
         {"name": "h:5000/x@sha256:00"}),
        ("DELETE", "/images/a/b", "/images/{name}", {"name": "a/b"}),
        ("GET", "/images/get", "/images/get", {}),
        ("GET", "/distribution/a/b/json", "/distribution/{name}/json", {"name": "a/b"}),
        ("POST", "/containers/create", "/containers/create", {}),
    ],
)  # fmt: skip
def test_find(method, path, template, params):
    match = find(method, path)
    assert match.row.template == template
    assert match.params == params


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", ""),
        ("GET", "/nope"),
        ("POST", "/_ping"),
        ("DELETE", "/info"),
        ("GET", "/containers//json"),
        ("GET", "/containers/a/b/json"),
        ("GET", "/containers/x"),
        ("PUT", "/images/json"),
        ("get", "/info"),
        ("TRACE", "/info"),
        ("GET", "/info/"),
        ("GET", "//info"),
    ],
)
def test_case_090_unknown_routes_and_wrong_methods_are_one_404(method, path):
    with pytest.raises(EngineError) as caught:
        find(method, path)
    assert (caught.value.kind, caught.value.message) == (Kind.NOT_FOUND, "page not found")


@pytest.mark.parametrize(
    ("path", "version", "rest"),
    [
        ("/v1.24/info", (1, 24), "/info"),
        ("/v1.51/info", (1, 51), "/info"),
        ("/info", CURRENT, "/info"),
        ("/version", CURRENT, "/version"),
        ("/volumes", CURRENT, "/volumes"),
        ("/v1.41/images/v1.2/json", (1, 41), "/images/v1.2/json"),
        ("/vabc/info", CURRENT, "/vabc/info"),
        ("/v1.41", CURRENT, "/v1.41"),
    ],
)
def test_versions(path, version, rest):
    assert split(path) == (version, rest)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1.99/info", "client version 1.99 is too new. Maximum supported API version is 1.51"),
        ("/v1.999/x", "client version 1.999 is too new. Maximum supported API version is 1.51"),
        (
            "/v1.12/info",
            (
                "client version 1.12 is too old. Minimum supported API version is 1.24, "
                "please upgrade your client to a newer version"
            ),
        ),
        (
            "/v0.1/info",
            (
                "client version 0.1 is too old. Minimum supported API version is 1.24, "
                "please upgrade your client to a newer version"
            ),
        ),
        ("/v2/info", "client version 2 is too new. Maximum supported API version is 1.51"),
    ],
)
def test_case_090_versions_not_spoken(path, message):
    with pytest.raises(EngineError) as caught:
        split(path)
    assert (caught.value.kind, caught.value.message) == (Kind.INVALID, message)


def test_odd_versions():
    assert parse("1..2") == (1, 0, 2)
    assert split("/v" + "1" * 4000 + "/x")[0] == CURRENT
    assert MINIMUM < CURRENT


@pytest.mark.parametrize("row", [r for r in ROUTES if r.service is not Service.SERVED])
def test_what_is_not_served_says_so(row):
    call = Call(Request(row.method, row.template, row.template))
    with pytest.raises(EngineError) as caught:
        row.handler(Api(cast("Backend", FakeBackend()), lambda: NOW), call)
    if row.service is Service.LATER:
        assert caught.value.kind is Kind.NOT_IMPLEMENTED
        assert caught.value.message.endswith("is not served by this engine yet")
    else:
        assert caught.value.kind is Kind.UNAVAILABLE


def test_reading_never_changes_and_changing_never_runs_on_the_loop():
    reading = [row for row in ROUTES if row.mutating and row.method in {"GET", "HEAD"}]
    assert [row.template for row in reading] == ["/containers/{id}/attach/ws"]  # stdin
    assert not [row for row in ROUTES if row.mutating and row.inline]
