"""The same requests to our engine and to Debian's dockerd: what a client could tell them apart by.

dockerd 20.10 speaks 1.41; where newer engines or the specification differ from it, the row in
`_KNOWN` says why.
"""

import re
from collections.abc import Iterator

import pytest

from bench.yardsticks import bookworm
from tests.lab.lab import Lab
from tests.lab.registry import Registry
from tests.support.installed import Installed, request
from tests.support.twins import Difference, Twins

_BODY: dict[str, object] = {
    "Image": "busybox", "Cmd": ["sh", "-c", "echo out; echo err >&2; sleep 1000"],
    "Labels": {"a": "b"}, "ExposedPorts": {"80/tcp": {}},
    "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "18080"}]}, "Memory": 67108864,
                   "Binds": ["store:/data"]},
}  # fmt: skip
# (request, what) that may differ, and why
_KNOWN = {
    (r"HEAD /_ping", "headers"): "no body, so the length is free",
    (r"GET /info", "keys"): "fields of later API versions, and those that left",
    (r"GET /containers/\w+/json", "keys"): "KernelMemory left the API in 1.42",
    (r"GET /containers/json", "keys"): "SizeRw is given when asked for, also when it is 0",
    (r"GET /images/busybox/json", "keys"): "ContainerConfig left the API in 1.45",
    (r"GET /networks(/bridge)?", "keys"): "EnableIPv4 came in 1.47; the gateway is said",
    (r"GET /system/df", "keys"): "BuilderSize left the API in 1.42",
    (r"POST /containers/\w+/wait", "keys"): "Error is omitted when there is none, since 1.42",
    (r"POST /containers/\w+/(un)?pause", "status"): "500 became 409",
    (r"POST /images/busybox/tag", "status"): "500 became 400",
    (
        r"POST /images/create",
        "status",
    ): "the mirror's 404 is told, dockerd's fallback has no network",
    (r"POST /containers/nosuch/attach", "headers"): "dockerd calls its error text a raw stream",
}
_NEWER = r"(GET|POST|DELETE) "  # error texts: ours are those of Docker Engine 28


@pytest.fixture(scope="module")
def their_socket(lab: Lab, registry: Registry) -> Iterator[str]:
    """Debian's dockerd in a lab host of its own."""
    engine = bookworm(lab, registry.url)
    try:
        yield engine.url.removeprefix("unix://")
    finally:
        if engine.stop:
            engine.stop()
        if engine.host:
            engine.host.destroy()


@pytest.fixture
def twins(box: Installed, their_socket: str) -> Iterator[Twins]:
    """Both with busybox and nothing else."""
    made = Twins(box.socket, their_socket)
    pulled = request(their_socket, "POST", "/images/create", None, version="v1.41",
                     fromImage="busybox", tag="latest")  # fmt: skip
    assert pulled.status == 200
    yield made
    for one in ("one", "two"):
        request(their_socket, "DELETE", f"/containers/{one}", None, version="v1.41", force=1, v=1)
    for volume in ("store", "vol"):
        request(their_socket, "DELETE", f"/volumes/{volume}", None, version="v1.41", force=1)


def _surprises(differences: list[Difference]) -> list[Difference]:
    """Those that nothing explains."""
    return [d for d in differences if not _explained(d)]


def _explained(one: Difference) -> bool:
    for pattern, where in _KNOWN:
        if where == one.where and re.fullmatch(pattern, one.request):
            return True
    if one.where == "headers" and isinstance(one.ours, dict) and isinstance(one.theirs, dict):
        # a length instead of chunks, the content type of logs, engine headers on 404 too: newer
        differing = {k for k in one.ours | one.theirs if one.ours.get(k) != one.theirs.get(k)}
        free = {"content-length", "transfer-encoding", "docker-experimental", "ostype"}
        return not differing - (free | ({"content-type"} if "/logs" in one.request else set()))
    return one.where == "message" and re.match(_NEWER, one.request) is not None


def test_life_of_a_container(twins: Twins) -> None:
    for method, path, body in (
        ("GET", "/_ping", None), ("HEAD", "/_ping", None), ("GET", "/version", None), ("GET", "/info", None),
    ):  # fmt: skip
        twins.ask(method, path, body)
    for name in ("one", "one", "-bad", "x"):
        twins.ask("POST", "/containers/create", _BODY, name=name)
    twins.ask("GET", "/containers/one/json")
    for verb in ("start", "start", "pause", "pause", "unpause", "unpause"):
        twins.ask("POST", f"/containers/one/{verb}")
    twins.ask("GET", "/containers/one/json")
    twins.ask("GET", "/containers/json")
    twins.ask("GET", "/containers/json", size=1)
    twins.ask("DELETE", "/containers/one")
    twins.ask("POST", "/containers/one/rename", name="two")
    twins.ask("POST", "/containers/two/rename", name="two")
    twins.ask("POST", "/containers/two/resize", h=10, w=10)
    twins.ask("POST", "/containers/two/kill", signal="NOSUCH")
    twins.ask("POST", "/containers/two/exec", {})
    for verb in ("stop", "stop", "kill", "wait", "pause"):
        twins.ask("POST", f"/containers/two/{verb}", **({"t": 0} if verb == "stop" else {}))
    twins.ask("POST", "/containers/two/exec", {"Cmd": ["x"]})
    twins.ask("GET", "/containers/json", all=1)
    twins.ask("GET", "/containers/two/logs")
    ours, theirs = twins.ask("GET", "/containers/two/logs", stdout=1, stderr=1)
    assert sorted(_frames(ours.body)) == sorted(_frames(theirs.body))
    twins.ask("DELETE", "/containers/two", v=1)
    assert _surprises(twins.differences) == []


def _frames(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        size = int.from_bytes(data[4:8])
        found.append((data[0], data[8 : 8 + size]))
        data = data[8 + size :]
    return found


def test_exec(twins: Twins) -> None:
    bodies, documents = [], []
    twins.ask("POST", "/containers/create", _BODY, name="one")
    twins.ask("POST", "/containers/one/start")
    wanted = {"Cmd": ["sh", "-c", "echo x; exit 3"], "AttachStdout": True}
    made = twins.ask("POST", "/containers/one/exec", wanted)
    for socket, answer in zip((twins.ours, twins.theirs), made, strict=True):
        path = f"/exec/{answer.document['Id']}"
        bodies.append(
            request(socket, "POST", f"{path}/start", {"Detach": False}, version="v1.41").body
        )
        documents.append(request(socket, "GET", f"{path}/json", version="v1.41").document)
    assert bodies[0] == bodies[1] == b"\x01\0\0\0\0\0\0\x02x\n"
    assert documents[0].keys() == documents[1].keys()
    assert documents[0]["ExitCode"] == documents[1]["ExitCode"] == 3
    twins.ask("GET", "/exec/nosuch/json")
    assert _surprises(twins.differences) == []


def test_what_is_missing_or_wrong(twins: Twins) -> None:
    for method, verb in (
        ("GET", "/json"), ("POST", "/start"), ("POST", "/stop"), ("POST", "/kill"), ("POST", "/wait"),
        ("GET", "/logs"), ("POST", "/restart"), ("POST", "/attach"), ("POST", "/pause"), ("DELETE", ""),
    ):  # fmt: skip
        twins.ask(method, f"/containers/nosuch{verb}")
    twins.ask("POST", "/containers/nosuch/exec", {"Cmd": ["x"]})
    twins.ask("POST", "/containers/create", {"Image": "nosuch:x"})
    twins.ask("POST", "/containers/create", {})
    for method, path in (
        ("GET", "/images/nosuch/json"), ("DELETE", "/images/nosuch"), ("GET", "/volumes/nosuch"),
        ("DELETE", "/volumes/nosuch"), ("GET", "/networks/nosuch"), ("GET", "/nosuch"), ("PUT", "/containers/json"),
    ):  # fmt: skip
        twins.ask(method, path)
    twins.ask("POST", "/images/nosuch/tag", repo="own/x", tag="v1")
    twins.ask("POST", "/images/busybox/tag", repo="BAD", tag="v1")
    twins.ask("POST", "/volumes/create", {"Name": "a/b"})
    twins.ask("GET", "/containers/json", filters='{"x":["y"]}')
    assert _surprises(twins.differences) == []
    # where both have a text, the object that it names is the same
    for one in twins.differences:
        if one.where == "message" and "nosuch" in str(one.theirs):
            assert "nosuch" in str(one.ours), one


def test_images_volumes_networks(twins: Twins) -> None:
    twins.ask("GET", "/images/json")
    twins.ask("GET", "/images/busybox/json")
    twins.ask("GET", "/images/busybox/history")
    twins.ask("POST", "/images/busybox/tag", repo="own/x", tag="v1")
    twins.ask("DELETE", "/images/own/x:v1")
    twins.ask("POST", "/volumes/create", {"Name": "vol", "Labels": {"a": "b"}})
    twins.ask("GET", "/volumes")
    twins.ask("GET", "/volumes/vol")
    twins.ask("DELETE", "/volumes/vol")
    twins.ask("GET", "/networks")
    twins.ask("GET", "/networks/bridge")
    twins.ask("GET", "/system/df")
    assert _surprises(twins.differences) == []
