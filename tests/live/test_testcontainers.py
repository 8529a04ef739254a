"""testcontainers-python, unmodified, in the ways its users use it, over a created machine's mutual TLS.

Its reaper is off, as its documentation says for engines that cannot pull from Docker Hub.
"""

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.errors import APIError, NotFound
from testcontainers.community.postgres import PostgresContainer
from testcontainers.compose import DockerCompose
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import (
    CompositeWaitStrategy,
    ExecWaitStrategy,
    HealthcheckWaitStrategy,
    HttpWaitStrategy,
    LogMessageWaitStrategy,
    PortWaitStrategy,
)

from tests.live.compose.project import PROJECTS, install_plugin
from tests.live.compose.stack.wire import Postgres, Redis
from tests.support.installed import Installed

# The libraries leave connections to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
READY = "Ready to accept connections"


@pytest.fixture
def there(box: Installed, monkeypatch: pytest.MonkeyPatch) -> Installed:
    """The process has the environment that a shell has after `eval "$(machine env ...)"`."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # requests prefers them to docker's own
        monkeypatch.delenv(name, raising=False)
    for name, value in box.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(testcontainers_config, "sleep_time", 0.05)
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)
    return box


@pytest.fixture
def alone(there: Installed) -> Iterator[Installed]:
    """`there`, and all that is started is gone at the end."""
    yield there
    assert there.docker("ps", "-aq").text == ""


def test_generic_container_with_a_port(alone: Installed) -> None:
    ready = LogMessageWaitStrategy(READY)
    with DockerContainer("redis:7").with_exposed_ports(6379).waiting_for(ready) as redis:
        assert redis.get_container_host_ip() == alone.host.ip
        address = f"{redis.get_container_host_ip()}:{redis.get_exposed_port(6379)}"
        client = Redis(address)
        assert client("SET", "key", "value") == "OK"
        assert client("GET", "key") == "value"
        out, err = redis.get_logs()
        assert READY.encode() in out + err
        assert redis.exec("redis-cli get key").output == b"value\n"
        assert redis.exec(["sh", "-c", "exit 3"]).exit_code == 3
        labels = redis.get_wrapped_container().labels
        assert labels["org.testcontainers.lang"] == "python"


def test_web_server_until_it_answers(alone: Installed) -> None:
    web = DockerContainer("nginx").with_exposed_ports(80)
    with web.waiting_for(HttpWaitStrategy(80).for_status_code(200)):
        url = f"http://{web.get_container_host_ip()}:{web.get_exposed_port(80)}/"
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert b"Welcome to nginx" in answer.read()
        assert web.status == "running"
        found = web.get_container_info()
        assert found is not None
        assert found.State is not None
        assert found.State.Running


def test_postgres(alone: Installed) -> None:
    with PostgresContainer("postgres:15", username="postgres", dbname="postgres") as database:
        assert database.get_connection_url(driver=None).startswith("postgresql://postgres:test@")
        host, port = database.get_container_host_ip(), database.get_exposed_port(5432)
        client = Postgres(f"{host}:{port}")
        assert client.rows("SELECT 6 * 7, 'x'") == [["42", "x"]]
        volume = database.get_wrapped_container().attrs["Mounts"][0]["Name"]
    with pytest.raises(NotFound):
        DockerClient().client.volumes.get(volume)


def test_settings_files_and_copies(alone: Installed, tmp_path: Path) -> None:
    source = tmp_path / "page"
    source.write_text("from a file")
    box = (
        DockerContainer("busybox")
        .with_command(["sh", "-c", "cat /given; sleep 1000"])
        .with_env("ONE", "1")
        .with_envs(TWO="2")
        .with_name("named")
        .with_tmpfs_mount("/quick", "size=1m")
        .with_kwargs(mem_limit="64m", hostname="inside", labels={"own": "label"})
        .with_copy_into_container(b"given before the start", "/given")
        .waiting_for(LogMessageWaitStrategy("given before"))
    )
    with box:
        box.copy_into_container(source, "/srv/page")
        assert box.exec("cat /srv/page").output == b"from a file"
        assert box.exec(["sh", "-c", "echo $ONE$TWO; hostname"]).output == b"12\ninside\n"
        assert b"/quick" in box.exec("mount").output
        box.copy_from_container("/given", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == b"given before the start"
        with pytest.raises(APIError, match="is already in use"):
            DockerContainer("busybox").with_name("named").start()


def test_network_with_aliases(alone: Installed) -> None:
    with Network() as network:
        redis = DockerContainer("redis:7").with_network(network).with_network_aliases("queue")
        asks = DockerContainer("redis:7").with_network(network).with_command("sleep 1000")
        with redis.waiting_for(LogMessageWaitStrategy(READY)), asks:
            assert asks.exec("redis-cli -h queue ping").output == b"PONG\n"
        assert network.name in alone.docker("network", "ls").text
        name = network.name
    assert name not in alone.docker("network", "ls").text


def test_other_ways_to_wait(alone: Installed) -> None:
    server = DockerContainer("busybox").with_exposed_ports(80)
    server.with_command("httpd -f -p 80").with_kwargs(
        healthcheck={"test": ["CMD", "true"], "interval": 100_000_000}
    )
    every = CompositeWaitStrategy(
        PortWaitStrategy(80), HealthcheckWaitStrategy(), ExecWaitStrategy(["true"])
    )
    with server.waiting_for(every):
        assert server.status == "running"
    never = LogMessageWaitStrategy("never said").with_startup_timeout(1)
    slow = DockerContainer("busybox").with_command("sleep 1000").waiting_for(never)
    with pytest.raises(TimeoutError):
        slow.start()
    slow.stop()


def test_one_that_ends(alone: Installed) -> None:
    done = DockerContainer("busybox").with_command(["sh", "-c", "echo out; echo err >&2; exit 3"])
    done.start()
    try:
        assert done.wait() == 3
        assert done.get_logs() == (b"out\n", b"err\n")
    finally:
        done.stop()


def test_compose(
    alone: Installed, compose_program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in install_plugin(compose_program, tmp_path / "docker").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "tc")
    text = (PROJECTS / "daily.yaml").read_text().replace("127.0.0.1::80", "80")
    (tmp_path / "compose.yaml").write_text(text)
    with DockerCompose(tmp_path) as compose:
        host, port = compose.get_service_host_and_port("web", 80)
        assert host is not None
        with urllib.request.urlopen(f"http://{alone.host.ip}:{port}/", timeout=10) as answer:
            assert b"Welcome to nginx" in answer.read()
        out, _, status = compose.exec_in_container(["sh", "-c", "echo $WHO"], "job")
        assert (out, status) == ("nobody\n", 0)
        assert "one" in compose.get_logs("job")[0]
        assert {c.Service for c in compose.get_containers()} == {"web", "job"}
