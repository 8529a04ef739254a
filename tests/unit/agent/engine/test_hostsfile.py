import pytest

from agent.engine.hostsfile import (
    FALLBACK_NAMESERVERS,
    Resolver,
    hosts,
    parse_resolver,
    resolv_conf,
    resolver,
    split_extra_host,
    validate,
)
from agent.engine.model import ContainerConfig, HostConfig
from agent.errors import EngineError, Kind


def test_hosts():
    text = hosts(
        ["db:10.0.0.9", "gw=host-gateway", "six:[::5]"],
        gateway="172.17.0.1",
        address="172.17.0.2",
        hostname="web",
        domainname="example.org",
    )
    assert text.splitlines()[0] == "127.0.0.1\tlocalhost"
    assert text.splitlines()[-4:] == [
        "10.0.0.9\tdb",
        "172.17.0.1\tgw",
        "::5\tsix",
        "172.17.0.2\tweb.example.org web",
    ]
    assert "172" not in hosts([], gateway="", address="", hostname="web")


@pytest.mark.parametrize(
    "name", ["a b", "a\nb", "a#b", "a\tb", "-a", "a\x1b", "é", "a..b", "x" * 300, "a;b", "a\u2028b"]
)
def test_case_113_names_in_files(name):
    for config, host in [
        (ContainerConfig(hostname=name), HostConfig()),
        (ContainerConfig(domainname=name), HostConfig()),
        (ContainerConfig(), HostConfig(extra_hosts=(f"{name}:10.0.0.1",))),
        (ContainerConfig(), HostConfig(extra_hosts=(f"web:10.0.0.1{name}",))),
        (ContainerConfig(), HostConfig(dns=(name,))),
    ]:
        with pytest.raises(EngineError) as caught:
            validate(config, host)
        assert caught.value.kind is Kind.INVALID


@pytest.mark.parametrize("word", ["a b", "a\nnameserver 6.6.6.6", "a#b", ""])
def test_case_113_resolver_words(word):
    for host in (HostConfig(dns_search=(word,)), HostConfig(dns_options=(word,))):
        with pytest.raises(EngineError):
            validate(ContainerConfig(), host)


def test_good_names_pass():
    host = HostConfig(
        dns=("1.1.1.1", "fe80::1"),
        dns_search=("example.org", "."),
        dns_options=("ndots:2",),
        extra_hosts=("my_db:1.2.3.4", "a.b:::1"),
    )
    validate(ContainerConfig(hostname="web-1.example", domainname="x.y"), host)
    assert split_extra_host("a.b:::1") == ("a.b", "::1")


HOST = "# made by x\nnameserver 127.0.0.53\nnameserver 10.0.0.1 # lan\nnameserver fe80::1%eth0\nsearch a b\noptions edns0\n"


@pytest.mark.parametrize(
    ("host", "filtered", "wanted"),
    [
        (HostConfig(), True, Resolver(("10.0.0.1",), ("a", "b"), ("edns0",))),
        (
            HostConfig(),
            False,
            Resolver(("127.0.0.53", "10.0.0.1", "fe80::1%eth0"), ("a", "b"), ("edns0",)),
        ),
        (HostConfig(dns=("127.0.0.1",)), True, Resolver(("127.0.0.1",), ("a", "b"), ("edns0",))),
        (HostConfig(dns_search=(".",)), True, Resolver(("10.0.0.1",), (), ("edns0",))),
        (HostConfig(dns_options=("x",)), True, Resolver(("10.0.0.1",), ("a", "b"), ("x",))),
    ],
)
def test_resolver(host, filtered, wanted):
    assert resolver(parse_resolver(HOST), host, filtered=filtered) == wanted


def test_no_reachable_nameserver():
    own = parse_resolver("nameserver 127.0.0.1\nnameserver ::1\n")
    found = resolver(own, HostConfig(), filtered=True)
    assert found.nameservers == FALLBACK_NAMESERVERS
    assert resolv_conf(found) == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
