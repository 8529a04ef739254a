"""The `filters` parameter."""

from dataclasses import replace

import pytest

from agent.api.filters import (
    CONTAINER_KEYS,
    EVENT_KEYS,
    IMAGE_KEYS,
    NETWORK_KEYS,
    VOLUME_KEYS,
    ContainerLookups,
    container_predicate,
    event_predicate,
    image_selection,
    network_matches,
    parse,
    reference_matches,
    volume_matches,
)
from agent.api.schema.images import created_seconds
from agent.engine.model import Event, HostConfig, Phase, PortBinding, State, Volume
from agent.engine.ports import NetworkInfo
from agent.errors import EngineError, Kind
from tests.unit.agent.api.backend import (
    BRIDGE_ID,
    EXITED,
    IMAGE,
    NETWORKS,
    RUNNING,
    FakeBackend,
)


def test_both_forms():
    new = parse('{"status":["running","exited"]}', CONTAINER_KEYS)
    old = parse('{"status":{"running":true,"exited":true,"dead":false}}', CONTAINER_KEYS)
    assert new == old
    assert not parse("", CONTAINER_KEYS)
    assert not parse('{"status":[]}', CONTAINER_KEYS)
    assert not parse("null", CONTAINER_KEYS)


@pytest.mark.parametrize(
    "text", ["{", "[]", '"x"', '{"id":1}', '{"id":[1]}', '{"id":{"a":[]}', "[" * 9999]
)
def test_malformed(text):
    with pytest.raises(EngineError, match="invalid filter"):
        parse(text, CONTAINER_KEYS)


def test_unknown():
    with pytest.raises(EngineError) as caught:
        parse('{"colour":["red"]}', CONTAINER_KEYS)
    assert caught.value.message == "invalid filter 'colour'"


PAUSED = replace(
    EXITED,
    id="c3" * 32,
    name="web-2",
    host_config=HostConfig(port_bindings=(PortBinding(5000, "udp"),)),
    created=RUNNING.created - 1,
    state=State(Phase.PAUSED, started_at=1),
)
ALL = [RUNNING, EXITED, PAUSED]


def select(text):
    backend = FakeBackend()
    backend.containers.known = {one.id: one for one in ALL}
    lookups = ContainerLookups(
        backend.containers.get,
        lambda name: IMAGE.id if name == "httpd" else None,
        {one.name: one.id for one in NETWORKS},
    )
    matches = container_predicate(parse(text, CONTAINER_KEYS), lookups)
    return [one.name for one in ALL if matches(one)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('{"id":["a1a1"]}', ["apache"]),
        ('{"id":["^b2"]}', ["job"]),
        ('{"name":["apache"]}', ["apache"]),
        ('{"name":["^/(apache|job)$"]}', ["apache", "job"]),
        ('{"name":["b"]}', ["job", "web-2"]),
        ('{"label":["site=home"]}', ["apache"]),
        ('{"label":["site","app=web"]}', ["apache"]),
        ('{"label":["site"]}', ["apache", "job", "web-2"]),
        ('{"label":["sit"]}', []),
        ('{"status":["exited"]}', ["job"]),
        ('{"status":["running","paused"]}', ["apache", "web-2"]),
        ('{"exited":["3"]}', ["job"]),
        ('{"exited":["0"]}', []),
        ('{"ancestor":["httpd"]}', ["apache", "job", "web-2"]),
        ('{"ancestor":["nope"]}', []),
        ('{"before":["apache"]}', ["job", "web-2"]),
        ('{"since":["job"]}', ["apache", "web-2"]),
        ('{"volume":["data"]}', ["apache"]),
        ('{"volume":["/srv/www"]}', ["apache"]),
        ('{"network":["bridge"]}', ["apache", "web-2"]),
        ('{"network":["none"]}', ["job"]),
        ('{"network":["' + BRIDGE_ID[:12] + '"]}', ["apache", "web-2"]),
        ('{"publish":["8080"]}', ["apache"]),
        ('{"publish":["80/tcp"]}', ["apache"]),
        ('{"publish":["4999-5001/udp"]}', ["web-2"]),
        ('{"expose":["443"]}', ["apache", "job", "web-2"]),
        ('{"expose":["443/udp"]}', []),
        ('{"is-task":["true"]}', []),
        ('{"is-task":["false"]}', ["apache", "job", "web-2"]),
        ('{"health":["none"]}', ["apache", "job", "web-2"]),
        ('{"health":["healthy"]}', []),
        ('{"status":["running"],"label":["site=away"]}', []),
    ],
)  # fmt: skip
def test_containers(text, names):
    assert select(text) == names


@pytest.mark.parametrize(
    "text",
    [
        '{"status":["happy"]}',
        '{"exited":["x"]}',
        '{"publish":["x"]}',
        '{"publish":["1/icmp"]}',
        '{"is-task":["maybe"]}',
        '{"health":["odd"]}',
        '{"name":["("]}',
        '{"name":["(a+)+$"]}',
        '{"name":["(a)\\\\1"]}',
        '{"name":["' + "a" * 300 + '"]}',
    ],
)
def test_container_filter_values_that_are_refused(text):
    with pytest.raises(EngineError) as caught:
        select(text)
    assert caught.value.kind is Kind.INVALID
    assert caught.value.message.startswith("invalid filter '")


def test_before_an_unknown_container():
    with pytest.raises(EngineError, match="No such container: nope"):
        select('{"before":["nope"]}')


@pytest.mark.parametrize(
    ("pattern", "tag", "matches"),
    [
        ("httpd", "httpd:latest", True),
        ("httpd:2", "httpd:latest", False),
        ("httpd:l*", "httpd:latest", True),
        ("http?", "httpd:latest", True),
        ("*", "me/httpd:latest", False),
        ("*/*", "me/httpd:latest", True),
        ("10.0.0.1:5000/x", "10.0.0.1:5000/x:1", True),
        ("10.0.0.1:5000/x:1", "10.0.0.1:5000/x:1", True),
        ("httpd*", "httpd-old:1", True),
        ("[", "a:1", False),
    ],
)
def test_references(pattern, tag, matches):
    assert reference_matches(pattern, tag) is matches


OLD = replace(IMAGE, id="sha256:" + "9" * 64, created="2020-01-01T00:00:00Z", tags=())


def images(text):
    backend = FakeBackend()
    chosen = image_selection(
        [IMAGE, OLD], parse(text, IMAGE_KEYS), created_seconds, backend.images.get
    )
    return [(one.id[7], one.tags) for one in chosen]


def test_images():
    new, old = ("1", IMAGE.tags), ("9", ())
    assert images("") == [new, old]
    assert images('{"dangling":["true"]}') == [old]
    assert images('{"dangling":["0"]}') == [new]
    assert images('{"label":["maintainer=me"]}') == [new, old]
    assert images('{"before":["httpd"]}') == [old]
    assert images('{"since":["httpd"]}') == []
    assert images('{"reference":["httpd:2*"]}') == [("1", ("httpd:2.4",))]
    with pytest.raises(EngineError, match="invalid filter 'dangling=2'"):
        images('{"dangling":["2"]}')


def test_volumes():
    volume = Volume("data", "/x", 1, labels={"a": "b"})

    def passes(text, used=()):
        return volume_matches(volume, parse(text, VOLUME_KEYS), used)

    assert passes("")
    assert passes('{"name":["at"]}')
    assert not passes('{"name":["^at"]}')
    assert passes('{"label":["a=b"]}')
    assert not passes('{"driver":["nfs"]}')
    assert passes('{"dangling":["true"]}')
    assert not passes('{"dangling":["true"]}', ("data",))
    assert passes('{"dangling":["false"]}', ("data",))


MINE = NetworkInfo("mine", "e" * 64, "bridge", labels={"team": "a"})


def test_networks():
    def names(text):
        filters = parse(text, NETWORK_KEYS)
        return [one.name for one in [*NETWORKS, MINE] if network_matches(one, filters)]

    assert not network_matches(MINE, parse('{"dangling":["true"]}', NETWORK_KEYS), {MINE.id})
    assert network_matches(MINE, parse('{"dangling":["false"]}', NETWORK_KEYS), {MINE.id})
    assert names("") == ["bridge", "host", "none", "mine"]
    assert names('{"name":["o"]}') == ["host", "none"]
    assert names('{"driver":["null"]}') == ["none"]
    assert names('{"type":["custom"]}') == ["mine"]
    assert names('{"type":["builtin","custom"]}') == ["bridge", "host", "none", "mine"]
    assert names('{"scope":["swarm"]}') == []
    assert names('{"id":["ccc"]}') == ["host"]
    assert names('{"dangling":["true"]}') == ["mine"]
    assert names('{"label":["team=a"]}') == ["mine"]
    assert names('{"label":["team=b"]}') == []
    with pytest.raises(EngineError, match="invalid filter 'type=odd'"):
        names('{"type":["odd"]}')


START = Event(
    "container", "start", "a1" * 32, {"name": "apache", "image": "httpd:2.4", "x": "y"}, 1
)
EXEC = replace(START, action="exec_start: sh -c ls")
PULL = Event("image", "pull", "debian:12", {"name": "debian"}, 2)
MOUNT = Event("volume", "mount", "data", {"driver": "local"}, 3)


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("", [START, EXEC, PULL, MOUNT]),
        ('{"type":["image","volume"]}', [PULL, MOUNT]),
        ('{"event":["start"]}', [START]),
        ('{"action":["exec_start"]}', [EXEC]),
        ('{"container":["apache"]}', [START, EXEC]),
        ('{"container":["a1a1"]}', [START, EXEC]),
        ('{"container":["job"]}', []),
        ('{"image":["httpd"]}', [START, EXEC]),
        ('{"image":["httpd:2.4"]}', [START, EXEC]),
        ('{"image":["debian"]}', [PULL]),
        ('{"volume":["data"]}', [MOUNT]),
        ('{"label":["x=y"]}', [START, EXEC]),
        ('{"scope":["swarm"]}', []),
        ('{"node":["n"]}', []),
        ('{"type":["container"],"event":["start"],"container":["apache"]}', [START]),
    ],
)
def test_events(text, events):
    matches = event_predicate(parse(text, EVENT_KEYS))
    assert [one for one in (START, EXEC, PULL, MOUNT) if matches(one)] == events
