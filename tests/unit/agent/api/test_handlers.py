"""Requests through the application to a backend in memory."""

import json
import select

import pytest

from agent.api.application import EngineApplication
from agent.api.backend import AttachRequest, WaitResult
from agent.api.handlers.images import pull_reference
from agent.engine.model import (
    EndpointRequest,
    Event,
    ExecConfig,
    IpamPool,
    LogQuery,
    Progress,
    Volume,
)
from agent.errors import EngineError, Kind, not_found
from agent.wire.http import (
    MULTIPLEXED_STREAM,
    RAW_STREAM,
    BlockingStream,
    Body,
    BodyKind,
    Headers,
    Hijack,
    Reply,
    Request,
    Stream,
    parse_target,
)
from tests.unit.agent.api.backend import EXITED, NOW, RUNNING, FakeBackend


@pytest.fixture
def backend():
    return FakeBackend()


@pytest.fixture
def ask(backend):
    application = EngineApplication(backend, lambda: NOW)

    def send(method, target, body=None, headers=()):
        path, query = parse_target(target)
        request = Request(method, target, path, query, Headers(headers))
        handling = application.resolve(request)
        data = b"" if body is None else json.dumps(body).encode()
        assert not data or handling.body is BodyKind.JSON
        return handling.handler(request, Body(data))

    return send


def shown(reply):
    assert isinstance(reply, Reply)
    return json.loads(reply.body)


def test_headers_of_every_answer(backend):
    assert dict(EngineApplication(backend, lambda: NOW).common_headers) == {
        "Api-Version": "1.51",
        "Docker-Experimental": "false",
        "Ostype": "linux",
        "Server": "Machine/0.1.0 (linux)",
    }


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_ping(ask, method):
    reply = ask(method, "/_ping")
    assert (reply.status, reply.body, reply.content_type) == (
        200,
        b"OK",
        "text/plain; charset=utf-8",
    )
    assert ("Swarm", "inactive") in reply.headers


def test_version_and_info(ask):
    version = shown(ask("GET", "/version"))
    assert (version["ApiVersion"], version["MinAPIVersion"]) == ("1.51", "1.24")
    assert [one["Name"] for one in version["Components"]] == ["Engine", "crun", "conmon"]
    info = shown(ask("GET", "/v1.24/info"))
    assert (info["Containers"], info["ContainersRunning"], info["ContainersStopped"]) == (2, 1, 1)
    assert info["RegistryConfig"]["IndexConfigs"]["docker.io"]["Official"]


def test_create(ask, backend):
    reply = ask("POST", "/v1.50/containers/create?name=web&platform=linux/amd64", {"Image": "x"})
    assert reply.status == 201
    assert shown(reply) == {"Id": "f" * 64, "Warnings": ["a warning"]}
    request = backend.containers.calls[0][1]
    assert (request.name, request.config.image, request.platform) == ("web", "x", "linux/amd64")


def test_name_servers_of_the_configuration(backend):
    application = EngineApplication(backend, lambda: NOW, ("9.9.9.9",))
    for given, used in (([], ("9.9.9.9",)), (["1.1.1.1"], ("1.1.1.1",))):
        request = Request("POST", "", "/containers/create")
        body = json.dumps({"Image": "x", "HostConfig": {"Dns": given}}).encode()
        application.resolve(request).handler(request, Body(body))
        created = backend.containers.calls[-1][1]
        assert created.host_config.dns == used
        assert created.given_host_config["Dns"] == given


def test_create_is_checked_before_anything_is_done(ask, backend):
    for body in (None, {"Image": 1}, {"Image": "x", "HostConfig": {"Links": [1]}}):
        with pytest.raises(EngineError):
            ask("POST", "/containers/create", body)
    with pytest.raises(EngineError):
        ask("POST", "/containers/create?name=a%2Fb", {"Image": "x"})
    assert backend.containers.calls == []


def names(reply):
    return [one["Names"][0] for one in shown(reply)]


def test_list(ask):
    assert names(ask("GET", "/containers/json")) == ["/apache"]
    assert names(ask("GET", "/containers/json?all=1")) == ["/apache", "/job"]
    assert names(ask("GET", "/containers/json?limit=1")) == ["/apache"]
    assert names(ask("GET", "/containers/json?limit=5")) == ["/apache", "/job"]
    assert names(ask("GET", "/containers/json?limit=-1")) == ["/apache"]
    assert names(ask("GET", '/containers/json?filters={"status":["exited"]}')) == ["/job"]
    sized = shown(ask("GET", "/containers/json?size=1"))[0]
    assert (sized["SizeRw"], sized["SizeRootFs"]) == (10, 1000)
    with pytest.raises(EngineError, match="invalid filter 'x'"):
        ask("GET", '/containers/json?filters={"x":["1"]}')


def test_inspect(ask):
    assert shown(ask("GET", "/containers/apache/json"))["Id"] == RUNNING.id
    assert shown(ask("GET", "/containers/apache/json?size=true"))["SizeRw"] == 10
    with pytest.raises(EngineError, match="No such container: nope"):
        ask("GET", "/containers/nope/json")


@pytest.mark.parametrize(
    ("method", "target", "status", "call"),
    [
        ("POST", "/containers/apache/start", 204, ("start", "apache")),
        ("POST", "/containers/apache/stop?t=5&signal=INT", 204, ("stop", "apache", 5, "INT")),
        ("POST", "/containers/apache/stop", 204, ("stop", "apache", None, "")),
        ("POST", "/v1.41/containers/apache/stop?signal=INT", 204, ("stop", "apache", None, "")),
        ("POST", "/containers/apache/restart?t=-1", 204, ("restart", "apache", -1, "")),
        ("POST", "/containers/apache/kill", 204, ("kill", "apache", "SIGKILL")),
        ("POST", "/containers/apache/kill?signal=HUP", 204, ("kill", "apache", "HUP")),
        ("POST", "/containers/apache/pause", 204, ("pause", "apache")),
        ("POST", "/containers/apache/unpause", 204, ("unpause", "apache")),
        ("POST", "/containers/apache/rename?name=/new", 204, ("rename", "apache", "new")),
        ("POST", "/containers/apache/resize?h=24&w=80", 200, ("resize", "apache", 24, 80)),
        ("DELETE", "/containers/apache?force=1&v=true", 204, ("remove", "apache", True, True)),
        ("DELETE", "/containers/apache?force=0&v=", 204, ("remove", "apache", False, False)),
    ],
)
def test_verbs(ask, backend, method, target, status, call):
    reply = ask(method, target)
    assert (reply.status, reply.body) == (status, b"")
    assert backend.containers.calls == [call]


@pytest.mark.parametrize(
    "target",
    [
        "/containers/apache/resize?h=x&w=1",
        "/containers/apache/resize?h=1",
        "/containers/apache/resize?h=1&w=70000",
        "/containers/apache/rename",
        "/containers/apache/rename?name=a%20b",
        "/containers/apache/wait?condition=bored",
        "/containers/apache/stop?t=soon",
        "/containers/apache/attach?stream=1&detachKeys=ctrl-1",
    ],
)
def test_bad_parameters(ask, target):
    with pytest.raises(EngineError) as caught:
        ask("POST", target)
    assert caught.value.kind is Kind.INVALID


def test_already_started_or_stopped_is_not_modified(ask, backend):
    backend.containers.changed = False
    for verb in ("start", "stop"):
        with pytest.raises(EngineError) as caught:
            ask("POST", f"/containers/apache/{verb}")
        assert caught.value.kind is Kind.NOT_MODIFIED


def test_wait_answers_at_once_and_tells_later(ask, backend):
    answer = ask("POST", "/containers/apache/wait?condition=next-exit")
    assert isinstance(answer, Stream)
    assert answer.content_type == "application/json"
    assert answer.source.read() is None
    backend.containers.waiter.answer = WaitResult(3, "lost")
    piece = answer.source.read()
    assert piece is not None
    assert json.loads(piece) == {"StatusCode": 3, "Error": {"Message": "lost"}}
    assert answer.source.read() == b""
    answer.source.close()
    assert backend.containers.waiter.closed


def test_attach(ask, backend):
    query = "stream=1&stdin=1&stdout=1&stderr=0&detachKeys=ctrl-a"
    answer = ask("POST", f"/containers/apache/attach?{query}")
    assert isinstance(answer, Hijack)
    assert answer.content_type == MULTIPLEXED_STREAM
    assert answer.detach_keys == b"\x01"
    assert answer.stdin
    assert backend.containers.calls == [
        ("attach", "apache", AttachRequest(stdin=True, stdout=True, stream=True))
    ]
    assert ask("POST", "/v1.41/containers/apache/attach?stream=1").content_type == RAW_STREAM
    assert ask("POST", "/containers/job/attach?stream=1").content_type == RAW_STREAM


def test_logs(ask, backend):
    answer = ask("GET", "/containers/apache/logs?stdout=1&follow=1&tail=5&since=1700000000.5")
    assert answer.content_type == MULTIPLEXED_STREAM
    wanted = LogQuery(stderr=False, follow=True, tail=5, since=NOW + 500_000_000)
    assert backend.containers.calls[-1] == ("logs", RUNNING.id, wanted)
    answer = ask("GET", "/containers/job/logs?stderr=1&timestamps=1&tail=all")
    assert answer.content_type == RAW_STREAM
    wanted = LogQuery(stdout=False, timestamps=True, framed=False)
    assert backend.containers.calls[-1] == ("logs", EXITED.id, wanted)
    with pytest.raises(EngineError, match="you must choose at least one stream"):
        ask("GET", "/containers/apache/logs")


def drain(duplex):
    """What comes until the end; waits for the thread that starts the exec."""
    pieces = []
    while (found := duplex.read()) != []:
        if found is None:
            assert select.select([duplex.fileno()], [], [], 5)[0]
        else:
            pieces += found
    duplex.close()
    return pieces


def test_exec(ask, backend):
    body = {"Cmd": ["sh"], "AttachStdin": True, "AttachStdout": True, "Tty": True, "Env": None}
    reply = ask("POST", "/containers/apache/exec", body)
    assert (reply.status, shown(reply)) == (201, {"Id": "e1"})
    assert backend.execs.info["e1"].config == ExecConfig(
        ("sh",), attach_stdin=True, attach_stdout=True, tty=True
    )
    assert shown(ask("GET", "/exec/e1/json"))["ProcessConfig"]["entrypoint"] == "sh"
    answer = ask("POST", "/exec/e1/start", {"Tty": True, "ConsoleSize": [24, 80]})
    assert isinstance(answer, Hijack)
    assert answer.content_type == RAW_STREAM
    assert answer.stdin
    assert backend.execs.calls == [], "the head goes out before the process starts"
    assert drain(answer.duplex) == []
    assert ask("POST", "/exec/e1/start", {"Detach": True}) == Reply(200)
    ask("POST", "/exec/e1/resize?h=1&w=2")
    assert backend.execs.calls == [
        ("start", "e1", False, True),
        ("resize", "e1", 24, 80),
        ("start", "e1", True, False),
        ("resize", "e1", 1, 2),
    ]
    ask("POST", "/containers/apache/exec", {"Cmd": ["sh"]})
    assert ask("POST", "/exec/e1/start", {}).content_type == MULTIPLEXED_STREAM
    with pytest.raises(EngineError, match="No exec command specified"):
        ask("POST", "/containers/apache/exec", {"Tty": True})
    with pytest.raises(EngineError, match="ConsoleSize"):
        ask("POST", "/exec/e1/start", {"ConsoleSize": [1]})


DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("name", "tag", "reference"),
    [
        ("httpd", "latest", "httpd:latest"),
        ("httpd:2", "", "httpd:2"),
        ("httpd:2", "3", "httpd:3"),
        ("h:5000/x", "1", "h:5000/x:1"),
        ("httpd", DIGEST, f"httpd@{DIGEST}"),
        (f"httpd@{DIGEST}", "", f"httpd@{DIGEST}"),
        ("", "x", None),
        ("httpd", "", ""),
        ("h:5000/x", "", ""),
    ],
)
def test_pull_reference(name, tag, reference):
    if reference is None:
        with pytest.raises(EngineError):
            pull_reference(name, tag)
    else:
        assert pull_reference(name, tag) == reference


def test_pull(ask, backend):
    backend.images.lines = (Progress("Pulling from library/x", "1"), Progress("Status: done"))
    auth = [("X-Registry-Auth", "eyJ1c2VybmFtZSI6Im1lIn0=")]
    answer = ask("POST", "/images/create?fromImage=x&tag=1&platform=linux/arm64", headers=auth)
    assert isinstance(answer, BlockingStream)
    assert [json.loads(line) for line in answer.chunks] == [
        {"status": "Pulling from library/x", "id": "1"},
        {"status": "Status: done"},
    ]
    _, reference, platform, given = backend.images.calls[0]
    assert (reference, platform, given.username) == ("x:1", "linux/arm64", "me")


def test_pull_error_before_the_first_line(ask, backend):
    backend.images.error = not_found("manifest for x:1 not found: manifest unknown")
    answer = ask("POST", "/images/create?fromImage=x&tag=1")
    with pytest.raises(EngineError, match="manifest unknown"):
        next(answer.chunks)


def test_pull_error_after_lines(ask, backend):
    backend.images.lines = (Progress("a"),)
    backend.images.error = not_found("gone")
    answer = ask("POST", "/images/create?fromImage=x&tag=1")
    assert next(answer.chunks)
    with pytest.raises(EngineError, match="gone"):
        next(answer.chunks)
    with pytest.raises(StopIteration):
        next(answer.chunks)


def test_images(ask, backend):
    assert shown(ask("GET", "/images/json"))[0]["RepoTags"] == ["httpd:latest", "httpd:2.4"]
    assert shown(ask("GET", "/images/httpd/json"))["Architecture"] == "amd64"
    assert len(shown(ask("GET", "/images/httpd:2.4/history"))) == 2
    assert ask("POST", "/images/httpd/tag?repo=h:5/a/b&tag=1").status == 201
    reply = ask("DELETE", "/images/a/b:1?force=1")
    assert shown(reply)[0] == {"Untagged": "a/b:1"}
    assert backend.images.calls == [("tag", "httpd", "h:5/a/b", "1"), ("remove", "a/b:1", True)]
    with pytest.raises(EngineError, match="No such image: no/such"):
        ask("GET", "/images/no/such/json")


def test_volumes(ask, backend):
    body = {"Name": "data", "Driver": "local", "DriverOpts": None, "Labels": {"a": "b"}}
    reply = ask("POST", "/volumes/create", body)
    assert reply.status == 201
    assert shown(reply)["Labels"] == {"a": "b"}
    assert len(shown(ask("POST", "/volumes/create", {}))["Name"]) == 64
    listed = shown(ask("GET", '/volumes?filters={"name":["^data$"]}'))
    assert [one["Name"] for one in listed["Volumes"]] == ["data"]
    assert shown(ask("GET", "/volumes/data"))["Scope"] == "local"
    assert ask("DELETE", "/volumes/data").status == 204
    with pytest.raises(EngineError, match="no such volume"):
        ask("DELETE", "/volumes/data")
    with pytest.raises(EngineError, match="includes invalid characters"):
        ask("POST", "/volumes/create", {"Name": "a/b"})


def test_networks(ask):
    assert [one["Name"] for one in shown(ask("GET", "/networks"))] == ["bridge", "host", "none"]
    bridge = shown(ask("GET", "/networks/bbbb"))
    assert bridge["Containers"][RUNNING.id]["IPv4Address"] == "172.17.0.2/16"
    with pytest.raises(EngineError, match="network nope not found"):
        ask("GET", "/networks/nope")


def test_networks_come_and_go(ask, backend):
    body = {
        "Name": "mine", "Driver": "", "Labels": {"a": "b"}, "EnableIPv6": True,
        "IPAM": {"Driver": "default", "Config": [{"Subnet": "10.0.0.0/24", "IPRange": "",
                 "AuxiliaryAddresses": {"router": "10.0.0.9"}}]},
    }  # fmt: skip
    answer = ask("POST", "/networks/create", body)
    assert (answer.status, shown(answer)) == (201, {"Id": "e" * 64, "Warning": ""})
    spec = backend.networking.asked[-1][1]
    assert (spec.driver, spec.enable_ipv6, spec.labels) == ("bridge", True, {"a": "b"})
    assert spec.pools == (IpamPool("10.0.0.0/24", aux_addresses={"router": "10.0.0.9"}),)
    shape = shown(ask("GET", "/networks/mine"))["IPAM"]
    assert shape["Config"] == [
        {"Subnet": "10.0.0.0/24", "AuxiliaryAddresses": {"router": "10.0.0.9"}}
    ]
    settings = {"Aliases": ["web"], "IPAMConfig": {"IPv4Address": "10.0.0.7"}, "GwPriority": 3}
    asked = {"Container": "apache", "EndpointConfig": settings}
    assert ask("POST", "/networks/mine/connect", asked).status == 200
    request = EndpointRequest("mine", "10.0.0.7", aliases=("web",), gw_priority=3)
    assert backend.networking.asked[-1] == ("connect", "mine", "apache", request)
    ask("POST", "/networks/mine/disconnect", {"Container": "apache", "Force": True})
    assert backend.networking.asked[-1] == ("disconnect", "mine", "apache", True)
    assert shown(ask("POST", "/networks/prune")) == {"NetworksDeleted": ["mine"]}
    assert shown(ask("POST", '/networks/prune?filters={"label":["x"]}')) == {
        "NetworksDeleted": None
    }
    assert ask("DELETE", "/networks/mine").status == 204


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/networks/create", {"Name": " "}, "name is empty"),
        ("/networks/create", {"Name": "x", "Scope": "swarm"}, "need a swarm"),
        ("/networks/create", {"Name": "x", "ConfigOnly": True}, "ConfigOnly"),
        ("/networks/create", {"Name": "x", "Internal": "yes"}, "of type bool"),
        ("/networks/x/connect", {}, "value is empty"),
        ("/networks/x/connect", {"Container": "a", "EndpointConfig": {"Aliases": ["a\n1 b"]}},
         "invalid network alias"),
        ("/networks/x/connect", {"Container": "a", "EndpointConfig": {"Links": ["a:b c"]}},
         "bad format for links"),
        ("/networks/x/connect", {"Container": "a", "EndpointConfig": {"IPAMConfig":
            {"IPv4Address": "fd00::1"}}}, "invalid IPv4 address: fd00::1"),
    ],
)  # fmt: skip
def test_wrong_network_requests(ask, path, body, says):
    with pytest.raises(EngineError, match=says):
        ask("POST", path, body)


def test_events(ask, backend):
    event = Event("container", "start", "a1", {}, NOW)
    backend.subscription.events.append(event)
    answer = ask("GET", '/events?since=1&until=2&filters={"type":["container"]}')
    assert backend.asked == (10**9, 2 * 10**9)
    assert backend.matches(event)
    assert json.loads(answer.source.read())["Action"] == "start"
    assert answer.source.read() is None
    backend.subscription.done = True
    assert answer.source.read() == b""
    with pytest.raises(EngineError, match="cannot be after"):
        ask("GET", "/events?since=2&until=1")


def test_disk_usage(ask, backend):
    backend.volumes.known["data"] = Volume("data", "/x", NOW)
    document = shown(ask("GET", "/system/df"))
    assert set(document) == {"LayersSize", "Images", "Containers", "Volumes", "BuildCache"}
    assert document["Images"][0]["Containers"] == 2
    assert document["Volumes"][0]["UsageData"] == {"RefCount": 1, "Size": 4}
    assert set(shown(ask("GET", "/system/df?type=volume"))) == {"Volumes"}
    with pytest.raises(EngineError, match="unknown object type"):
        ask("GET", "/system/df?type=moon")
