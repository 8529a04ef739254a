"""The Python SDK (PyPI docker) against a created machine, from the environment of `machine env`."""

import gc
import socket
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import docker
import docker.errors
import pytest

from tests.support.installed import Installed

# The library leaves hijacked sockets to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def client(box: Installed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """docker.from_env() as after `eval "$(machine env ...)"`."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # requests prefers them to docker's own
        monkeypatch.delenv(name, raising=False)
    made = docker.from_env(environment=box.environment, timeout=30)
    try:
        yield made
    finally:
        made.close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()  # here, not in a later test


def test_negotiates_and_describes(client: Any, box: Installed) -> None:
    assert client.ping() is True
    assert client.version()["ApiVersion"] == "1.51"
    assert client.info()["Name"] == box.host.name


def test_run(client: Any) -> None:
    assert client.containers.run("busybox", "echo one", remove=True) == b"one\n"
    lines = client.containers.run(
        "busybox", ["sh", "-c", "echo a; echo b >&2"], stderr=True, remove=True
    )
    assert sorted(lines.splitlines()) == [b"a", b"b"]
    stream = client.containers.run("busybox", "seq 3", stream=True, remove=True)
    assert b"".join(stream) == b"1\n2\n3\n"
    assert client.containers.list(all=True) == []


def test_errors(client: Any) -> None:
    with pytest.raises(docker.errors.ContainerError) as failed:
        client.containers.run("busybox", ["sh", "-c", "echo why >&2; exit 4"], remove=True)
    assert (failed.value.exit_status, failed.value.stderr) == (4, b"why\n")
    with pytest.raises(docker.errors.NotFound):
        client.containers.run("nosuchimage", "true")
    with pytest.raises(docker.errors.NotFound) as missing:
        client.containers.get("nosuch")
    assert missing.value.explanation == "No such container: nosuch"
    with pytest.raises(docker.errors.APIError) as refused:
        client.containers.create("busybox", name="-bad")
    assert refused.value.response.status_code == 400
    client.containers.create("busybox", name="twice")
    with pytest.raises(docker.errors.APIError) as conflict:
        client.containers.create("busybox", name="twice")
    assert conflict.value.response.status_code == 409


def test_life_of_a_container(client: Any) -> None:
    container = client.containers.run(
        "busybox", ["sh", "-c", "echo out; echo err >&2; sleep 1000"], detach=True, name="one",
        labels={"a": "b"}, environment={"X": "1"}, mem_limit="64m", ports={"80/tcp": 8080},
        volumes={"store": {"bind": "/data", "mode": "rw"}}, restart_policy={"Name": "always"},
        tmpfs={"/scratch": "size=1m"}, cap_drop=["ALL"], read_only=True,
    )  # fmt: skip
    assert container.status == "created"
    container.reload()
    assert container.status == "running"
    assert container.attrs["HostConfig"]["Memory"] == 64 << 20
    assert container.ports["80/tcp"][0] == {"HostIp": "0.0.0.0", "HostPort": "8080"}
    assert [c.name for c in client.containers.list(filters={"label": "a=b"})] == ["one"]
    for chunk in container.logs(stream=True, follow=True, stdout=False):
        assert chunk == b"err\n"
        break
    assert container.logs(stderr=False) == b"out\n"
    container.pause()
    container.unpause()
    container.rename("two")
    container.kill()
    container.restart(timeout=0)
    container.stop(timeout=0)
    assert container.wait()["StatusCode"] == 137
    container.remove(v=True)
    with pytest.raises(docker.errors.NotFound):
        container.reload()


def test_wait_and_removal(client: Any) -> None:
    container = client.containers.create("busybox", ["sh", "-c", "exit 6"])
    container.start()
    assert container.wait(timeout=20)["StatusCode"] == 6
    short = client.containers.create("busybox", "sleep 2", auto_remove=True)
    short.start()
    assert short.wait(condition="removed")["StatusCode"] == 0
    with pytest.raises(docker.errors.NotFound):
        short.reload()


def test_exec(client: Any) -> None:
    container = client.containers.run("busybox", "sleep 1000", detach=True)
    code, output = container.exec_run(["sh", "-c", "echo a; echo b >&2; exit 3"], demux=True)
    assert (code, output) == (3, (b"a\n", b"b\n"))
    code, output = container.exec_run("id -u", user="33", workdir="/tmp", environment={"A": "1"})
    assert (code, output) == (0, b"33\n")
    code, stream = container.exec_run("seq 2", stream=True)
    assert b"".join(stream) == b"1\n2\n"
    _, sock = container.exec_run("cat", stdin=True, socket=True, tty=True)
    sock.sendall(b"typed\n")
    seen = b""
    while seen.count(b"typed") < 2:  # the terminal's echo, then cat's
        seen += sock.recv(100)
    sock.close()


def test_attach_socket(client: Any) -> None:
    container = client.containers.create("busybox", ["sh", "-c", "cat; echo done"], stdin_open=True)
    low = client.api
    sock = low.attach_socket(container.id, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    container.start()
    raw = sock
    raw.sendall(b"hello")
    frame = _exactly(raw, 8)
    assert frame == b"\x01\0\0\0\0\0\0\x05"
    assert _exactly(raw, 5) == b"hello"
    raw.close()


def _exactly(sock: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        data = sock.recv(size - len(found))
        assert data, found
        found += data
    return found


def test_attach_stream_and_logs(client: Any) -> None:
    container = client.containers.run(
        "busybox", ["sh", "-c", "read x; seq 3"], stdin_open=True, detach=True
    )
    stream = container.attach(stream=True, logs=True)
    sock = container.attach_socket(params={"stdin": 1, "stream": 1})
    sock.sendall(b"go\n")
    assert b"".join(stream) == b"1\n2\n3\n"
    sock.close()


def test_images(client: Any) -> None:
    image = client.images.pull("alpine", tag="3.19")
    assert "alpine:3.19" in image.tags
    assert image.tag("own/alpine", "x") is True
    assert any("own/alpine:x" in one.tags for one in client.images.list())
    assert client.images.list("own/alpine")[0].id == image.id
    assert client.images.get("own/alpine:x").attrs["Os"] == "linux"
    progress = list(client.api.pull("alpine", tag="3.19", stream=True, decode=True))
    assert progress[-1]["status"].startswith("Status: Image is up to date")
    client.images.remove("own/alpine:x")
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("own/alpine:x")
    with pytest.raises(docker.errors.NotFound):
        client.images.pull("nosuchimage", tag="latest")


def test_volumes(client: Any) -> None:
    volume = client.volumes.create("store", labels={"a": "b"})
    assert [v.name for v in client.volumes.list(filters={"label": "a=b"})] == ["store"]
    client.containers.run("busybox", "touch /data/x", volumes=["store:/data"], remove=True)
    listing = client.containers.run("busybox", "ls /data", volumes=["store:/data"], remove=True)
    assert listing == b"x\n"
    volume.remove()
    with pytest.raises(docker.errors.NotFound):
        client.volumes.get("store")


def test_networks(client: Any) -> None:
    assert {n.name for n in client.networks.list()} == {"bridge", "host", "none"}
    (bridge,) = client.networks.list(names=["bridge"])
    assert bridge.attrs["Driver"] == "bridge"


def test_events(client: Any) -> None:
    since = datetime.now(tz=UTC)
    container = client.containers.run("busybox", "true", detach=True, name="seen")
    container.wait()
    container.remove()
    events = client.events(
        since=since.timestamp() - 1,
        decode=True,
        filters={"container": ["seen"], "type": "container"},
    )
    seen: list[str] = []
    for event in events:
        seen.append(event["Action"])
        if event["Action"] == "destroy":
            events.close()
            break
    assert [a for a in seen if a in ("create", "start", "die", "destroy")] == [
        "create", "start", "die", "destroy",
    ]  # fmt: skip


def test_what_is_not_served_says_so(client: Any) -> None:
    with pytest.raises(docker.errors.APIError) as refused:
        client.swarm.init()
    assert refused.value.response.status_code == 503
    assert "not a swarm manager" in refused.value.explanation
