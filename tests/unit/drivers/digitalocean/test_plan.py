"""drivers.digitalocean.plan: images, sizes, rules of firewalls, names."""

import dataclasses

import pytest

from drivers.api import Size
from drivers.digitalocean import plan
from drivers.digitalocean.account import ANYWHERE, Opening
from drivers.digitalocean.things import Image, Plan
from drivers.errors import InvalidError

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
ME = ("198.51.100.7/32",)


def image(slug: str, **more: object) -> Image:
    plain = Image(1, slug, public=True, status="available", regions=("nyc3",), smallest_disk=7)
    return dataclasses.replace(plain, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["debian-9-x64", "debian-13-x64", "debian-12-x64", "ubuntu-24-04-x64"], "debian-13-x64"),
        (["ubuntu-22-04-x64", "ubuntu-24-04-x64", "ubuntu-25-10-x64"], "ubuntu-24-04-x64"),
        (["ubuntu-25-04-x64", "ubuntu-23-04-x64", "ubuntu-8-04-x64"], "ubuntu-8-04-x64"),
        (["centos-stream-9-x64", "debian-13-x64-beta", "ubuntu-25-10-x64"], ""),
        ([], ""),
    ],
)
def test_the_newest_image_of_a_release_with_long_support(offered: list[str], chosen: str) -> None:
    found = plan.newest([image(slug) for slug in offered], "nyc3", 25)
    assert (found.slug if found else "") == chosen


@pytest.mark.parametrize(
    "unfit",
    [{"public": False}, {"status": "retired"}, {"regions": ("fra1",)}, {"smallest_disk": 30}],
)
def test_an_image_that_is_not_to_be_had_here_is_passed_over(unfit: dict[str, object]) -> None:
    offered = [image("debian-13-x64", **unfit), image("debian-12-x64")]
    found = plan.newest(offered, "nyc3", 25)
    assert found is not None
    assert found.slug == "debian-12-x64"


def test_an_image_is_a_number_or_a_slug() -> None:
    assert plan.image_key("129211873") == 129211873
    assert plan.image_key("debian-12-x64") == "debian-12-x64"


def size(slug: str, cpus: int, memory: int, disk: int, price: float, *regions: str) -> Plan:
    return Plan(slug, True, regions or ("nyc3",), cpus, memory, disk, price)


SIZES = (
    size("small", 1, 1024, 25, 6.0),
    size("middle", 1, 2048, 50, 12.0),
    size("cpus", 2, 2048, 60, 18.0),
    size("elsewhere", 2, 2048, 60, 1.0, "fra1"),
)


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (Size(plan="cpus"), "cpus"),
        (Size(memory=1500), "middle"),
        (Size(cpus=2), "cpus"),
        (Size(disk=51), "cpus"),
        (Size(), "small"),
    ],
)
def test_a_size_is_named_or_the_cheapest_with_what_is_asked_for(wanted: Size, chosen: str) -> None:
    assert plan.size_for(SIZES, "nyc3", SIZES[0], wanted).slug == chosen


def test_what_is_not_asked_for_does_not_become_less() -> None:
    assert plan.size_for(SIZES, "nyc3", SIZES[1], Size(cpus=1)).slug == "middle"


@pytest.mark.parametrize("wanted", [Size(plan="elsewhere"), Size(plan="huge"), Size(cpus=64)])
def test_a_size_that_is_not_to_be_had_is_refused_with_those_that_are(wanted: Size) -> None:
    with pytest.raises(InvalidError, match=r"nyc3.*cpus, middle, small"):
        plan.size_for(SIZES, "nyc3", SIZES[0], wanted)


def reachable(rules: list[Opening], protocol: str, port: int) -> list[tuple[str, ...]]:
    """The networks that reach a port, by each rule that covers it."""
    found = []
    for rule in rules:
        first, _, last = rule.ports.partition("-")
        if rule.protocol == protocol and int(first) <= port <= int(last or first):
            found.append(rule.networks)
    return found


@pytest.mark.parametrize("ssh", [22, 2222, 2375, 2377, 1, 65535])
def test_everything_but_ssh_and_the_engine_is_open(ssh: int) -> None:
    rules = plan.inbound(ssh, ME, ())
    for port in {ssh, 2376}:
        assert reachable(rules, "tcp", port) == [ME]
    for port in {1, 21, 23, 80, 2221, 2223, 2375, 2377, 8080, 65535} - {ssh}:
        assert reachable(rules, "tcp", port) == [ANYWHERE], port
    if ssh != 22:
        assert reachable(rules, "tcp", 22) == []
    assert reachable(rules, "udp", 53) == [ANYWHERE]
    assert Opening("icmp", "", ANYWHERE) in rules


def test_with_ports_given_only_those_are_open() -> None:
    rules = plan.inbound(22, ME, ("80", "53/udp", "8000-8010/tcp"))
    assert reachable(rules, "tcp", 80) == [ANYWHERE]
    assert reachable(rules, "udp", 53) == [ANYWHERE]
    assert reachable(rules, "tcp", 8005) == [ANYWHERE]
    assert reachable(rules, "tcp", 443) == reachable(rules, "udp", 80) == []
    assert [rule.ports for rule in plan.inbound(22, ME, ("none",))] == ["22", "2376"]


@pytest.mark.parametrize("bad", ["0", "65536", "9-8", "80/icmp", "http", "80;1", ""])
def test_what_is_no_port_is_refused(bad: str) -> None:
    with pytest.raises(InvalidError, match="is no port"):
        plan.opened(bad)


@pytest.mark.parametrize(
    ("given", "network"),
    [
        ("203.0.113.7", "203.0.113.7/32"),
        (" 10.1.2.3/8", "10.0.0.0/8"),
        ("2001:db8::1/64", "2001:db8::/64"),
    ],
)
def test_a_network(given: str, network: str) -> None:
    assert plan.network(given) == network


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(InvalidError, match="is no network"):
        plan.network("office")


@pytest.mark.parametrize(
    ("name", "tags", "uuid"),
    [
        (plan.name_of(UUID), (), UUID),
        (plan.snapshot_name(UUID, "v1.0_b"), (), UUID),
        ("", ("web", plan.tag_of(UUID)), UUID),
        (f"my-machine-{UUID}", (), ""),
        (f"machine-{UUID[:-1]}", (), ""),
        (f"machine-{UUID}x", (), ""),
        ("machine-", ("machine:", f"machine:{UUID}:x", f"x-machine:{UUID}"), ""),
    ],
)
def test_what_is_ours_is_told_by_name_or_tag(name: str, tags: tuple[str, ...], uuid: str) -> None:
    assert plan.owner(name, tags) == uuid


def test_fingerprints_are_md5_as_the_api_has_them() -> None:
    """As `ssh-keygen -l -E md5` prints it."""
    key = (
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC/6k+MhmfLmf+4wrAXPJjQvoeX2m4PiTV3r/htFtGJ7 me@there"
    )
    found = plan.fingerprint(key)
    assert found == "9d:5f:46:9e:9f:34:39:3d:70:eb:b2:b4:3a:95:51:49"
    assert found == plan.fingerprint(" ".join(key.split()[:2])), "the comment does not count"
    for bad in ("", "ssh-ed25519", "ssh-ed25519 %%%"):
        with pytest.raises(InvalidError, match="no SSH public key"):
            plan.fingerprint(bad)


def test_lists_come_with_commas_too() -> None:
    assert plan.split(("a,b", " c ", "", "a")) == ("a", "b", "c")
