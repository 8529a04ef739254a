import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from agent.engine.codec import CodecError, dumps, loads
from agent.engine.model import (
    Container,
    ContainerConfig,
    DeviceMapping,
    Endpoint,
    HostConfig,
    MountPoint,
    MountRequest,
    Phase,
    PortBinding,
    PublishedPort,
    Resources,
    RestartPolicy,
    State,
    Ulimit,
)

FULL = Container(
    id="i" * 64,
    name="wéb\x1b\n\u2028",
    created=1,
    config=ContainerConfig(cmd=("a", ""), entrypoint=None, labels={"": "x" * 1000}, stop_timeout=0),
    host_config=HostConfig(
        mounts=(MountRequest("tmpfs", "/t", tmpfs_mode=0o1777),),
        port_bindings=(PortBinding(80, "tcp"),),
        restart_policy=RestartPolicy("on-failure", 3),
        init=False,
        masked_paths=(),
        resources=Resources(
            ulimits=(Ulimit("nofile", 1, 2),), devices=(DeviceMapping("/dev/null", "/dev/x"),)
        ),
    ),
    image_id="sha256:x",
    image_ref="x",
    path="a",
    args=("",),
    mounts=(MountPoint("volume", "/v", name="n", copy_up=True),),
    state=State(
        phase=Phase.PAUSED,
        endpoints=(
            Endpoint("b", "n", "e", "m", "1.2.3.4", 16, "g", (PublishedPort(80, "tcp", "::", 1),)),
        ),
    ),
    given_config={"Cmd": ["a"], "Nested": {"x": [1, None, True, 1.5]}},
)


def test_round_trip():
    again = loads(Container, dumps(FULL))
    assert again == FULL
    assert isinstance(again.state.phase, Phase)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[]", "Container: not an object"),
        ("{}", "missing"),
        (dumps(FULL).replace('"created":1', '"created":true'), "Container.created: not int"),
        (dumps(FULL).replace('"created":1', '"created":1.0'), "Container.created: not int"),
        (dumps(FULL).replace('"paused"', '"sleeping"'), "Container.state: State.phase"),
        (dumps(FULL).replace('"created":1', '"created":1,"new":1'), "unknown field 'new'"),
        (dumps(FULL).replace('"args":[""]', '"args":""'), "Container.args: not a list"),
    ],
)
def test_what_does_not_fit_is_refused(text, message):
    with pytest.raises(CodecError, match=message):
        loads(Container, text)


@dataclass(frozen=True)
class Odd:
    thing: complex = 0j


def test_a_type_without_codec_is_a_bug():
    with pytest.raises(TypeError):
        dumps(Odd())


@dataclass(frozen=True)
class Nested:
    by_name: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)


def test_containers_of_containers():
    assert loads(Nested, dumps(Nested({"a": (1, 2)}))) == Nested({"a": (1, 2)})
