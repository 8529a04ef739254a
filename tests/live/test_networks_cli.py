"""`docker network` and the flags of run that go with it, against a created machine."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

from tests.support.installed import Installed

_SERVE = "mkdir /w; echo $0 >/w/index.html; exec httpd -f -p 80 -h /w"


def _web(box: Installed, name: str, *flags: str) -> str:
    return box.docker("run", "-d", "--name", name, *flags, "busybox", "sh", "-c", _SERVE, name).text


def _fetch(box: Installed, inside: str, where: str) -> str:
    loop = f"for i in 1 2 3 4 5 6 7 8; do timeout 2 wget -qO- http://{where}/ && exit; usleep 50000; done"
    return box.docker("exec", inside, "sh", "-c", loop, check=False).text


def _cleared(box: Installed) -> None:
    for line in box.docker("ps", "-aq").lines:
        box.docker("rm", "-f", line)
    box.docker("network", "prune", "-f")


def test_names_on_a_network(box: Installed) -> None:
    try:
        identity = box.docker("network", "create", "--label", "team=a", "front").text
        assert re.fullmatch("[0-9a-f]{64}", identity)
        box.fails("network", "create", "front", says="network with name front already exists")
        full = _web(box, "web", "--network", "front", "--network-alias", "site")
        box.docker(
            "run", "-d", "--name", "client", "--network", "front", "busybox", "sleep", "1000"
        )
        for name in ("web", "site", "WEB", full[:12], "web.front"):
            assert _fetch(box, "client", name) == "web", name
        resolver = box.docker("exec", "client", "cat", "/etc/resolv.conf").text
        assert "nameserver 127.0.0.11" in resolver
        assert "ndots:0" in resolver
        address = box.docker(
            "inspect", "web", "--format", "{{.NetworkSettings.Networks.front.IPAddress}}"
        ).text
        said = box.docker("exec", "client", "nslookup", address).text
        assert "web.front" in said
        box.fails("network", "rm", "front", says="has active endpoints")
        document = json.loads(box.docker("network", "inspect", "front").text)[0]
        assert {one["Name"] for one in document["Containers"].values()} == {"web", "client"}
        assert document["Labels"] == {"team": "a"}
        names = box.docker(
            "network", "ls", "--filter", "label=team=a", "--format", "{{.Name}}"
        ).lines
        assert names == ["front"]
        box.docker("rename", "web", "shop")
        assert _fetch(box, "client", "shop") == "web"
        box.docker("rm", "-f", "web", check=False)
        box.docker("rm", "-f", "shop", "client")
        assert box.docker("network", "rm", "front").text == "front"
        box.fails("network", "rm", "front", says="network front not found")
        box.fails("network", "rm", "bridge", says="is a pre-defined network and cannot be removed")
    finally:
        _cleared(box)


def test_several_containers_of_one_name(box: Installed) -> None:
    try:
        box.docker("network", "create", "front")
        for number in range(3):
            _web(box, f"web{number}", "--network", "front", "--network-alias", "web")
        box.docker(
            "run", "-d", "--name", "client", "--network", "front", "busybox", "sleep", "1000"
        )
        assert {_fetch(box, "client", "web") for _ in range(12)} == {"web0", "web1", "web2"}
    finally:
        _cleared(box)


def test_connect_and_disconnect(box: Installed) -> None:
    try:
        for name in ("front", "back"):
            box.docker("network", "create", name)
        _web(box, "web", "--network", "front", "-p", "8080:80")
        box.docker("run", "-d", "--name", "client", "--network", "back", "busybox", "sleep", "1000")
        assert _fetch(box, "client", "web") == ""
        box.docker("network", "connect", "--alias", "other", "back", "web")
        assert _fetch(box, "client", "other") == "web"
        links = box.docker("exec", "web", "ip", "-o", "link").text
        assert "eth1" in links
        box.fails("network", "connect", "back", "web", says="already exists in network back")
        box.docker("network", "disconnect", "front", "web")
        assert "eth0" not in box.docker("exec", "web", "ip", "-o", "link").text
        # The way out and the published port have moved to the network that is left.
        assert "default via" in box.docker("exec", "web", "ip", "route").text
        assert box.docker("port", "web", "80").lines[0] == "0.0.0.0:8080"
        assert box.run("python3", "-c", "import urllib.request as u; print(u.urlopen("
                       f"'http://{box.host.ip}:8080/').read().decode())").text.strip() == "web"  # fmt: skip
        box.docker("network", "disconnect", "back", "web")
        assert _fetch(box, "client", "web") == ""
        box.docker("network", "connect", "back", "web")
        assert _fetch(box, "client", "web") == "web"
        # A stopped container is on a network from its next start.
        box.docker("stop", "-t", "0", "client")
        box.docker("network", "disconnect", "back", "client")
        box.docker("network", "connect", "--ip", "", "front", "client", check=False)
        box.docker("network", "connect", "front", "web")
        box.docker("start", "client")
        assert _fetch(box, "client", "web") == "web"
    finally:
        _cleared(box)


def test_addresses_as_asked(box: Installed) -> None:
    try:
        box.docker("network", "create", "--subnet", "10.123.0.0/24", "--ip-range", "10.123.0.128/25",
                   "--gateway", "10.123.0.254", "--aux-address", "router=10.123.0.128", "plan")  # fmt: skip
        box.fails("network", "create", "--subnet", "10.123.0.0/25", "other",
                  says="Pool overlaps with other one on this address space")  # fmt: skip
        show = ("sh", "-c", "ip -o -4 addr show eth0; ip route; cat /sys/class/net/eth0/address")
        said = box.docker("run", "--rm", "--network", "plan", "busybox", *show).text
        assert "10.123.0.129/24" in said
        assert "default via 10.123.0.254" in said
        said = box.docker("run", "--rm", "--network", "plan", "--ip", "10.123.0.7",
                          "--mac-address", "02:11:22:33:44:55", "busybox", *show).text  # fmt: skip
        assert "10.123.0.7/24" in said
        assert "02:11:22:33:44:55" in said
        box.fails("run", "--rm", "--network", "plan", "--ip", "10.9.9.9", "busybox", "true",
                  status=125, says="no configured subnet")  # fmt: skip
        box.fails("run", "--rm", "--ip", "172.17.0.9", "busybox", "true", status=125,
                  says="user defined networks only")  # fmt: skip
        box.fails("run", "--rm", "--network", "nosuch", "busybox", "true", status=125,
                  says="network nosuch not found")  # fmt: skip
    finally:
        _cleared(box)


def test_internal_and_isolated(box: Installed) -> None:
    try:
        box.docker("network", "create", "--internal", "inner")
        box.docker("network", "create", "outer")
        _web(box, "web", "--network", "outer", "-p", "8081:80")
        for name, network in (("in", "inner"), ("out", "outer"), ("plain", "bridge")):
            box.docker(
                "run", "-d", "--name", name, "--network", network, "busybox", "sleep", "1000"
            )
        address = box.docker(
            "inspect", "web", "--format", "{{.NetworkSettings.Networks.outer.IPAddress}}"
        ).text
        assert _fetch(box, "out", address) == "web"
        assert _fetch(box, "plain", address) == ""  # another bridge
        assert _fetch(box, "plain", f"{box.host.ip}:8081") == "web"  # but by the published port
        assert _fetch(box, "in", f"{box.host.ip}:8081") in {"", "web"}
        assert "default" not in box.docker("exec", "in", "ip", "route").text
        said = box.docker("exec", "in", "nslookup", "example.com", check=False)
        assert said.status != 0
    finally:
        _cleared(box)


def test_links_on_the_default_bridge(box: Installed) -> None:
    try:
        _web(box, "db", "-e", "SECRET=x", "--expose", "80")
        said = box.docker("run", "--rm", "--link", "db:store", "busybox", "sh", "-c",
                          "env; cat /etc/hosts; wget -qO- http://store/").text  # fmt: skip
        assert "STORE_PORT_80_TCP_PORT=80" in said
        assert "STORE_ENV_SECRET=x" in said
        assert said.endswith("db")
        box.fails("run", "--rm", "--link", "nosuch:x", "busybox", "true", status=125,
                  says="No such container: nosuch")  # fmt: skip
    finally:
        _cleared(box)


def test_everything_is_back_after_the_agent(box: Installed) -> None:
    try:
        box.docker("network", "create", "front")
        _web(box, "web", "--network", "front")
        box.docker(
            "run", "-d", "--name", "client", "--network", "front", "busybox", "sleep", "1000"
        )
        before = box.agent_pid()
        box.host.run("kill", "-9", str(before))
        box.restart_wait(before)
        assert _fetch(box, "client", "web") == "web"
        box.docker("restart", "-t", "0", "web")
        assert _fetch(box, "client", "web") == "web"
        assert "front" in box.docker("network", "ls", "--format", "{{.Name}}").lines
    finally:
        _cleared(box)


def test_many_at_once(box: Installed) -> None:
    """Networks and containers made in parallel: no address twice, nothing left."""
    try:

        def one(number: int) -> str:
            name = f"n{number}"
            box.docker("network", "create", name)
            box.docker("run", "-d", "--name", f"c{number}", "--network", name, "busybox", "sleep",
                       "1000")  # fmt: skip
            return box.docker(
                "inspect", f"c{number}", "--format",
                f"{{{{.NetworkSettings.Networks.{name}.IPAddress}}}}",
            ).text  # fmt: skip

        with ThreadPoolExecutor(8) as pool:
            addresses = list(pool.map(one, range(12)))
        assert len(set(addresses)) == 12
    finally:
        _cleared(box)
    assert box.docker("network", "ls", "-q", "--filter", "type=custom").lines == []
    links = box.host.run("ip", "-o", "link").stdout
    box.wait(lambda: "br-" not in box.host.run("ip", "-o", "link").stdout, "bridges are gone")
    assert links


def test_ipv6_and_several_networks(box: Installed) -> None:
    try:
        box.docker("network", "create", "--ipv6", "--subnet", "fd00:55::/64", "six")
        box.docker("network", "create", "--driver", "macvlan", "-o", "parent=eth0", "lan")
        identity = box.docker(
            "create", "--name", "both", "--network", "six", "busybox", "sleep", "1000"
        ).text
        box.docker("network", "connect", "--gw-priority", "7", "lan", "both", check=False)
        box.docker("network", "connect", "lan", "both", check=False)
        box.docker("start", "both")
        said = box.docker("exec", "both", "ip", "-o", "addr").text
        assert "fd00:55::2/64" in said
        assert "eth1" in said
        shown = box.inspect(identity)["NetworkSettings"]
        assert isinstance(shown, dict)
        assert sorted(shown["Networks"]) == ["lan", "six"]
        assert shown["Networks"]["six"]["GlobalIPv6Address"] == "fd00:55::2"
        box.docker("rm", "-f", "both")
        box.docker("network", "rm", "six", "lan")
        box.fails("network", "create", "-d", "overlay", "o", says="not a swarm manager")
        box.fails("network", "create", "-d", "nosuch", "o", says='plugin "nosuch" not found')
        box.fails("network", "create", "bridge", says="not permitted on predefined bridge network")
    finally:
        _cleared(box)
