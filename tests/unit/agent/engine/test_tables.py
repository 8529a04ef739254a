"""Tables for the small pure modules: merging, signals, names, limits, publishing, failures."""

import signal

import pytest

from agent.engine import capnames, limits, merging, names, publishing, signals
from agent.engine.failures import failure_code
from agent.engine.images_use import _repository
from agent.engine.model import ContainerConfig, HostConfig, ImageConfig, PortBinding, Resources
from agent.errors import EngineError, Kind

IMAGE = ImageConfig(
    user="www",
    env=("PATH=/bin", "A=image"),
    entrypoint=("/entry",),
    cmd=("serve",),
    exposed_ports=("80/tcp",),
    volumes=("/data",),
    working_dir="/srv",
    labels={"a": "image", "b": "image"},
    stop_signal="SIGQUIT",
)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ContainerConfig(), ("/entry", "serve")),
        (ContainerConfig(cmd=("x",)), ("/entry", "x")),
        (ContainerConfig(entrypoint=("e",)), ("e",)),
        (ContainerConfig(entrypoint=("e",), cmd=("x", "y")), ("e", "x", "y")),
        (ContainerConfig(entrypoint=("",), cmd=("x",)), ("x",)),
        (ContainerConfig(entrypoint=()), ("serve",)),
    ],
)
def test_command(config, words):
    assert merging.command(merging.merge(config, IMAGE)) == (words[0], words[1:])


def test_no_command():
    with pytest.raises(EngineError) as caught:
        merging.command(merging.merge(ContainerConfig(entrypoint=("",)), IMAGE))
    assert (caught.value.kind, caught.value.message) == (Kind.INVALID, "No command specified")


def test_merge():
    given = ContainerConfig(env=("A=mine", "B="), labels={"b": "mine"}, user="me")
    merged = merging.merge(given, IMAGE)
    assert merged.env == ("A=mine", "B=", "PATH=/bin")
    assert merged.labels == {"a": "image", "b": "mine"}
    assert (merged.user, merged.working_dir, merged.stop_signal) == ("me", "/srv", "SIGQUIT")
    assert (merged.exposed_ports, merged.volumes) == (("80/tcp",), ("/data",))


@pytest.mark.parametrize(
    "config",
    [
        ContainerConfig(working_dir="relative"),
        ContainerConfig(env=("=x",)),
        ContainerConfig(env=("A=\0",)),
        ContainerConfig(cmd=("a\0b",)),
    ],
)
def test_refused_configs(config):
    with pytest.raises(EngineError):
        merging.validate(config)


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("SIGTERM", 15),
        ("term", 15),
        ("9", 9),
        ("RTMIN", signal.SIGRTMIN),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("rtmax-1", signal.SIGRTMAX - 1),
    ],
)
def test_signals(word, number):
    assert signals.number(word) == number


@pytest.mark.parametrize(
    "word", ["", "0", "65", "99", "-9", "BOGUS", "_DFL", "RTMIN+99", "1_5", "٩"]
)
def test_refused_signals(word):
    with pytest.raises(EngineError) as caught:
        signals.number(word)
    assert caught.value.message == f"invalid signal: {word}"


@pytest.mark.parametrize("name", ["a", "-ab", "a b", "ab/c", "//ab", "é1", "ab\n", "x" * 256])
def test_refused_names(name):
    with pytest.raises(EngineError) as caught:
        names.valid(name)
    assert "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed" in caught.value.message


def test_names():
    assert names.valid("/web_1.x-y") == "web_1.x-y"
    assert all(names.valid(names.random_name(attempt)) for attempt in range(4))
    assert not names.random_id()[:12].isdigit()
    assert len(names.ADJECTIVES) * len(names.SURNAMES) > 10_000


@pytest.mark.parametrize(
    "resources",
    [
        Resources(memory=1),
        Resources(memory_swap=1 << 30),
        Resources(memory=64 << 20, memory_swap=1 << 20),
        Resources(memory=64 << 20, memory_reservation=128 << 20),
        Resources(memory_swappiness=101),
        Resources(nano_cpus=5_000_000_000),
        Resources(nano_cpus=1, cpu_quota=1),
        Resources(cpu_period=1),
        Resources(cpu_quota=10),
        Resources(cpu_shares=-1),
    ],
)
def test_refused_limits(resources):
    with pytest.raises(EngineError) as caught:
        limits.validate(resources, cpus=4, realtime=False)
    assert caught.value.kind is Kind.INVALID


@pytest.mark.parametrize(
    ("resources", "known", "says"),
    [
        (Resources(cpu_realtime_runtime=1), False, "(CpuRealtimeRuntime)"),
        (Resources(cpu_realtime_period=1), False, "(CpuRealtimePeriod)"),
        (Resources(cpu_realtime_runtime=2, cpu_realtime_period=1), True, "cannot be higher"),
        (Resources(cpu_realtime_runtime=-1), True, "must not be negative"),
    ],
)
def test_real_time(resources, known, says):
    with pytest.raises(EngineError) as caught:
        limits.validate(resources, cpus=4, realtime=known)
    assert says in caught.value.message
    good = Resources(cpu_realtime_runtime=1000, cpu_realtime_period=2000)
    assert limits.validate(good, cpus=4, realtime=True) == ()


def test_unknown_capabilities():
    capnames.validate(["net_admin", "CAP_SYS_TIME", "all"], ["ALL"])
    for add, drop, says in (
        (["NET_ADMIN", "nonsense"], [], 'invalid CapAdd: unknown capability: "CAP_NONSENSE"'),
        ([], ["CAP_"], 'invalid CapDrop: unknown capability: "CAP_"'),
    ):
        with pytest.raises(EngineError) as caught:
            capnames.validate(add, drop)
        assert (caught.value.kind, caught.value.message) == (Kind.INVALID, says)


def test_limits():
    good = Resources(memory=64 << 20, memory_swap=-1, nano_cpus=4_000_000_000, pids_limit=-1)
    assert limits.validate(good, cpus=4, realtime=False) == ()


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("", "bridge"),
        ("default", "bridge"),
        ("host", "host"),
        ("none", "none"),
        ("container:x", "container"),
        ("front", "custom"),
    ],
)
def test_network_modes(word, wanted):
    assert publishing.mode(word) == wanted


def test_publish_all():
    config = ContainerConfig(
        exposed_ports=("80/tcp", "90-91/udp", "x/tcp", "0/tcp", "99999", "7/sctp")
    )
    asked = PortBinding(80, "tcp", host_port="8080")
    host = HostConfig(port_bindings=(asked,), publish_all_ports=True)
    assert publishing.bindings(config, host) == (
        asked,
        PortBinding(7, "sctp"),
        PortBinding(90, "udp"),
        PortBinding(91, "udp"),
    )


def test_host_network_warns_and_container_network_refuses():
    published = (PortBinding(80, "tcp"),)
    host = HostConfig(network_mode="host", port_bindings=published)
    assert publishing.validate(ContainerConfig(), host)
    shared = HostConfig(network_mode="container:x", port_bindings=published)
    with pytest.raises(EngineError, match="port publishing and the container type"):
        publishing.validate(ContainerConfig(), shared)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('exec: "x": executable file not found in $PATH', 127),
        ("no such file or directory", 127),
        ("Permission denied", 126),
        ("port is already allocated", 128),
    ],
)
def test_failure_codes(text, code):
    assert failure_code(text) == code


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("debian:12", "debian"),
        ("h:5000/x", "h:5000/x"),
        ("h:5000/x:y", "h:5000/x"),
        ("x@sha256:a", "x"),
    ],
)
def test_repository(reference, name):
    assert _repository(reference) == name
