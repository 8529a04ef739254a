"""Compose projects with networks, aliases and links; secrets, configs and files; five real services."""

import http.client
import json

import pytest

from tests.live.compose.project import Project
from tests.live.conftest import MakeProject
from tests.support.installed import Installed


def test_networks_and_aliases(project: MakeProject, box: Installed) -> None:
    some = project("networks.yaml")
    some.up("--scale", "app=2")
    for name in ("database", "db.internal", "db", "application"):
        assert _resolves(some, "app", name), name
    assert len(_resolves(some, "proxy", "app")) == 2, "one name, two containers"
    assert _resolves(some, "proxy", "db") == [], "front does not know what is in back"
    assert some.sh("app", "ping -c1 -w5 -q database").status == 0
    assert some.sh("proxy", "ping -c1 -w5 -q networks-app-2").status == 0
    assert some.sh("db", "ip route | grep -c default", check=False).text == "0", "internal"
    networks = {n["Name"] for n in map(json.loads, box.docker(
        "network", "ls", "--format", "json").lines)}  # fmt: skip
    assert {"networks_front", "networks_back", "networks-by-hand"} <= networks
    listed = box.docker("network", "ls", "-q", "--filter", "label=side=front").lines
    assert len(listed) == 1


def test_addresses_by_hand(project: MakeProject) -> None:
    some = project("networks.yaml")
    some.up("pinned", "beside")
    shown = some.sh("pinned", "ip addr show eth0").text
    for part in ("10.199.7.77/24", "02:42:0a:c7:07:4d", "mtu 1400"):
        assert part in shown
    assert "via 10.199.7.254" not in shown
    assert "default via 10.199.7.254" in some.sh("pinned", "ip route").text
    assert "10.199.7.77/24" in some.sh("beside", "ip addr").text, "network_mode: service:"
    assert some.sh("beside", "hostname").text == "pin"


def _resolves(some: Project, service: str, name: str) -> list[str]:
    """Addresses that the container's own resolver is told."""
    done = some.sh(service, f"nslookup -type=a {name} 127.0.0.11", check=False)
    answers = done.text.partition("Name:")[2].splitlines()
    return [x.split()[-1] for x in answers if x.startswith("Address")]


def test_external_network(project: MakeProject, box: Installed) -> None:
    some = project("daily.yaml")
    service = "{image: busybox, command: sleep 1000, stop_grace_period: 0s, networks: [shared]}"
    some.write(
        f"services: {{one: {service}}}\n"
        "networks: {shared: {name: ready-made, external: true}}\n"
    )
    done = some("up", "-d", "--no-build", check=False)
    assert "network ready-made declared as external, but could not be found" in done.complaint
    box.docker("network", "create", "ready-made")
    try:
        some.up()
        assert some.states() == {"one-1": "running"}
        box.docker("run", "--rm", "--network", "ready-made", "busybox", "ping", "-c1", "-w5", "one")
        some.down()
        assert "ready-made" in box.docker("network", "ls").text
    finally:
        some.down()
        box.docker("network", "rm", "ready-made")


def test_version_2_file_with_links(project: MakeProject) -> None:
    some = project("legacy.yaml")
    assert "`version` is obsolete" in some.up().complaint
    for name in ("database", "db", "cache", "legacy_db"):
        assert some.sh("web", f"ping -c1 -w5 -q {name}").status == 0, name
    assert some.sh("web", "cat /store/t").text == "table"
    host = some.document("web-1")["HostConfig"]
    assert isinstance(host, dict)
    assert (host["Memory"], host["CpuShares"]) == (64 << 20, 512)


def test_links_on_the_default_bridge(project: MakeProject) -> None:
    some = project("bridged.yaml")
    some.up()
    assert some.sh("web", "ping -c1 -w5 -q database").status == 0
    assert "database" in some.sh("web", "cat /etc/hosts").text


def test_secrets_configs_and_env_files(project: MakeProject) -> None:
    some = project("files")
    some.share()
    some.up(TOKEN="of the environment")
    seen = some.sh("app", "cd /run/secrets; cat password api-token; echo; cat /etc/app/*.ini; "
                   "cat /data/page; echo $FROM_FILE/$FROM_DOTENV/$OVERRIDDEN; "
                   "stat -c %a api-token; touch /data/x 2>&1", check=False).lines  # fmt: skip
    assert seen[:-1] == [
        "s3cret", "of the environment", "who = dotenv", "colour = blue", "content",
        "quoted value/dotenv/by-environment", "440",
    ]  # fmt: skip
    assert "Read-only" in seen[-1]
    some("--env-file", "/dev/null", "config", "-q")


def test_bind_of_nothing_is_an_error(project: MakeProject) -> None:
    some = project("files")
    done = some("up", "-d", "--no-build", check=False, TOKEN="x")
    assert done.status == 1
    assert 'invalid mount config for type "bind": bind source path does not exist' in done.complaint


@pytest.fixture
def stack(project: MakeProject) -> Project:
    """The five services, up and healthy."""
    some = project("stack")
    some.share()
    some("up", "--no-build", "--quiet-pull", "-d", "--wait", "--scale", "worker=2")
    return some


def test_five_real_services(stack: Project, box: Installed) -> None:
    words = ["alpha", "be", "gamma's", "delta"]
    answer = _http(box, "POST", " ".join(words))
    assert answer["queued"] == 4
    assert answer["for"] == box.host.ip.rpartition(".")[0] + ".1"
    box.wait(lambda: len(_done(box)) == 4, "the workers' work")
    assert [row[:2] for row in _done(box)] == sorted([w, str(len(w))] for w in words)
    health = {row["Service"]: row["Health"] for row in stack.rows()}
    assert health == {
        "app": "healthy", "postgres": "healthy", "proxy": "healthy", "redis": "healthy",
        "worker": "",
    }  # fmt: skip
    logs = "".join(stack("logs", "--no-color", "worker", "proxy").lines)
    assert "did gamma's" in logs
    assert '"POST / HTTP/1.1" 200' in logs
    stack("restart", "app", "worker")
    stack("up", "-d", "--no-build", "--wait", "--scale", "worker=1")
    assert len(_done(box)) == 4, "what is in the tables stays"
    stack("down", "-t", "0")
    stack("up", "-d", "--no-build", "--wait")
    assert len(_done(box)) == 4, "the named volume outlives down"


def _http(box: Installed, method: str, body: str | None = None) -> dict[str, object]:
    connection = http.client.HTTPConnection(box.host.ip, 8090, timeout=20)
    try:
        connection.request(method, "/", body)
        response = connection.getresponse()
        text = response.read()
        assert response.status == 200, (response.status, text)
        document = json.loads(text)
        assert isinstance(document, dict)
        return document
    finally:
        connection.close()


def _done(box: Installed) -> list[list[str]]:
    rows = _http(box, "GET")["done"]
    assert isinstance(rows, list)
    return rows
