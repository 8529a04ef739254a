"""The DigitalOcean driver's ways with the API: checks, pages, limits, losses, actions."""

import concurrent.futures
import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from drivers import registry
from drivers.api import Driver, DriverContext, HostState, ListOwned, Resize, Size, Snapshot
from drivers.digitalocean.driver import DigitalOceanDriver
from drivers.errors import (
    AuthError,
    ConflictError,
    DriverError,
    GoneError,
    InvalidError,
    QuotaError,
    TransientError,
)
from drivers.options import Value
from drivers.polling import SystemClock
from drivers.testkit import UUID, OpenDoor, ScriptedHost, context, created
from machine.cloudinit import CloudSeeds
from tests.support.dolab import Cloud, DoLab, Fault, Lag

TOKEN = "dop_v1_conformance"
DRIVER = DigitalOceanDriver()


@pytest.fixture
def lab() -> Iterator[DoLab]:
    with DoLab() as made:
        yield made


@pytest.fixture
def cloud(lab: DoLab) -> Cloud:
    return lab.account(TOKEN)


def ctx_of(lab: DoLab, folder: Path, **given: Value) -> DriverContext:
    plain: dict[str, Value | None] = {
        "access-token": TOKEN,
        "endpoint": lab.endpoint,
        "open-to": ("198.51.100.7/32",),
    }
    return context(folder, DRIVER.options, {**plain, **given}, ScriptedHost())


def test_all_problems_are_told_at_once(lab: DoLab, cloud: Cloud, tmp_path: Path) -> None:
    given: dict[str, Value] = {
        "region": "mars1",
        "size": "s-9vcpu",
        "image": "ubuntu-16-04-x64",
        "userdata": str(tmp_path / "nothing"),
        "ssh-key-path": str(tmp_path / "no-key"),
        "ssh-key-fingerprint": ":".join(["ab"] * 16),
        "vpc-uuid": "0f8fad5b-d9cb-469f-a165-70867728950e",
        "volume": ("data",),
        "volume-size": 99999,
        "tags": ("a b",),
        "open-to": ("office",),
        "open-port": ("http",),
    }
    ctx = ctx_of(lab, tmp_path, **given)
    cloud.droplet_limit = 1
    cloud.make_droplet(
        {"name": "x", "region": "nyc3", "size": "s-1vcpu-1gb", "image": "debian-12-x64"}
    )
    found = "\n".join(DRIVER.check(ctx))
    for part in (
        '"a b" can\'t be a tag',
        "1 to 16384 GiB, not 99999",
        "nothing can't be read",
        "no-key can't be read",
        '"office" is no network',
        '"http" is no port',
        "has 1 droplets and may have 1",
        "region mars1 does not exist; there are fra1, nyc1, nyc3, sgp1",
        "size s-9vcpu does not exist; there are s-1vcpu-1gb",
        "image ubuntu-16-04-x64 does not exist; there are centos-stream-9-x64, debian-11-x64",
        "VPC 0f8fad5b-d9cb-469f-a165-70867728950e does not exist",
        "no SSH key with the fingerprint ab:ab",
        "no volume data in mars1",
    ):
        assert part in found


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"size": "s-1vcpu-512mb-10gb", "region": "fra1"}, "is not to be had in fra1"),
        ({"region": "nyc2"}, "region nyc2 is not to be had now"),
        ({"region": "sgp1", "ipv6": True}, "region sgp1 has no ipv6"),
        (
            {"size": "s-1vcpu-512mb-10gb", "image": "centos-stream-9-x64"},
            "needs a disk of 20 GiB, s-1vcpu-512mb-10gb has 10",
        ),
        ({"access-token": "wrong"}, "Unable to authenticate you (401 unauthorized). Make a token"),
        ({"access-token": ""}, "--digitalocean-access-token is missing. Make a token at"),
        ({"endpoint": "http://api.example.com/v2/"}, "is no https address"),
        ({"endpoint": "ftp://127.0.0.1/"}, "is no https address"),
        ({"open-to": ()}, "Say who may connect: --digitalocean-open-to ADDRESS/32"),
        ({"ssh-user": "-oProxyCommand=x"}, "is no user name"),
    ],
)
def test_one_problem(
    lab: DoLab, cloud: Cloud, tmp_path: Path, given: dict[str, Value], said: str
) -> None:
    (found,) = DRIVER.check(ctx_of(lab, tmp_path, **given))
    assert said in found


def test_an_unreachable_api_is_one_problem(lab: DoLab, tmp_path: Path) -> None:
    (found,) = DRIVER.check(ctx_of(lab, tmp_path, endpoint="http://127.0.0.1:1/v2/"))
    assert "refused" in found
    assert TOKEN not in found


def test_user_data_and_keys_are_looked_at(lab: DoLab, cloud: Cloud, tmp_path: Path) -> None:
    large, binary, key = tmp_path / "large", tmp_path / "binary", tmp_path / "key"
    large.write_text("#" * (40 * 1024 + 1))
    binary.write_bytes(b"\x1f\x8b\xff")
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    key.chmod(0o644)
    found = DRIVER.check(ctx_of(lab, tmp_path, userdata=str(large)))
    assert found == [f"the user data {large} is larger than 40 KiB"]
    found = DRIVER.check(ctx_of(lab, tmp_path, userdata=str(binary)))
    assert found == [f"the user data {binary} is no text in UTF-8"]
    found = DRIVER.check(ctx_of(lab, tmp_path, **{"ssh-key-path": str(key)}))
    assert found == [
        f"the SSH key {key} is readable by others: chmod 600 it",
        f"the SSH public key {key}.pub is not there, and no fingerprint is given",
    ]


def test_user_data_goes_as_text_or_not_at_all(lab: DoLab, cloud: Cloud, tmp_path: Path) -> None:
    """The real seed: it is compressed when it comes near the limit, and JSON can't carry that."""
    given = tmp_path / "user-data"
    given.write_text("#!/bin/sh\n" + "#" * (40 * 1024 - 10))
    ctx = ctx_of(lab, tmp_path, userdata=str(given))
    ctx = dataclasses.replace(ctx, seeds=CloudSeeds("web", UUID, tmp_path / "machine"))
    assert DRIVER.check(ctx) == []
    made = created(DRIVER, ctx)
    (sent,) = cloud.seeds.values()
    assert sent.startswith("Content-Type: multipart/mixed")
    DRIVER.remove(made)
    given.write_text("#!/bin/sh\n" + "#" * (50 * 1024))
    with pytest.raises(InvalidError, match="40 KiB of your own"):
        created(DRIVER, ctx)
    assert cloud.drops == {}


def test_a_resumed_create_is_not_told_of_its_own_droplet(
    lab: DoLab, cloud: Cloud, tmp_path: Path
) -> None:
    ctx = created(DRIVER, ctx_of(lab, tmp_path))
    cloud.droplet_limit = 1
    assert DRIVER.check(ctx) == []
    assert DRIVER.check(dataclasses.replace(ctx, state={})) == [], "found by its tag"


def test_everything_that_was_asked_for_reaches_the_api(
    lab: DoLab, cloud: Cloud, tmp_path: Path
) -> None:
    data = cloud.make_volume({"name": "data", "region": "nyc3", "size_gigabytes": 5})
    vpc = next(one["id"] for one in cloud.vpcs.values() if one["region"] == "nyc3")
    given: dict[str, Value] = {
        "vpc-uuid": vpc,
        "volume": ("data",),
        "volume-size": 20,
        "tags": ("shop,web",),
        "monitoring": True,
        "backups": True,
        "ipv6": True,
        "private-networking": True,
        "size": "s-1vcpu-2gb",
        "image": "156100004",
        "open-port": ("80",),
    }
    ctx = ctx_of(lab, tmp_path, **given)
    assert DRIVER.check(ctx) == []
    created(DRIVER, ctx)
    (droplet,) = cloud.drops.values()
    own = next(one for one in cloud.discs.values() if one is not data)
    assert droplet["name"] == "conformance"
    assert droplet["tags"] == [f"machine:{UUID}", "shop", "web"]
    assert droplet["vpc_uuid"] == vpc
    assert droplet["volume_ids"] == [own["id"], data["id"]]
    assert droplet["features"] == ["backups", "ipv6", "monitoring", "private_networking"]
    assert (droplet["size_slug"], droplet["image"]["slug"]) == ("s-1vcpu-2gb", "ubuntu-24-04-x64")
    assert own["size_gigabytes"] == 20
    assert cloud.seeds[droplet["id"]] == "#cloud-config\n{}\n"
    ident = droplet["id"]
    assert cloud.lets_in(ident, "tcp", 2376, "198.51.100.7")
    assert not cloud.lets_in(ident, "tcp", 2376, "198.51.100.8")
    assert cloud.lets_in(ident, "tcp", 80, "198.51.100.8")
    assert not cloud.lets_in(ident, "tcp", 81, "198.51.100.8")
    DRIVER.remove(ctx)
    assert cloud.inventory() == ["tag shop", "tag web", "volume data []"]


def test_without_a_firewall_none_is_made(lab: DoLab, cloud: Cloud, tmp_path: Path) -> None:
    given: dict[str, Value] = {"no-firewall": True, "open-to": ()}
    created(DRIVER, ctx_of(lab, tmp_path, **given))
    assert cloud.walls == {}


def test_a_key_of_the_account_is_used_and_left(lab: DoLab, cloud: Cloud, tmp_path: Path) -> None:
    own = cloud.make_key({"name": "laptop", "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"})
    ctx = ctx_of(lab, tmp_path, **{"ssh-key-fingerprint": own["fingerprint"]})
    assert DRIVER.check(ctx) == []
    ctx = created(DRIVER, ctx)
    assert ctx.state["key"] == own["id"]
    DRIVER.remove(ctx)
    assert cloud.inventory() == ["key laptop"]


# -- the wire


def test_lists_of_many_pages_are_read_whole(lab: DoLab, cloud: Cloud, tmp_path: Path) -> None:
    lab.most_per_page = 3
    for number in range(10):
        cloud.make_firewall(
            {
                "name": f"other-{number}",
                "inbound_rules": [
                    {"protocol": "tcp", "ports": "1", "sources": {"addresses": ["10.0.0.0/8"]}}
                ],
            }
        )
    ctx = created(DRIVER, ctx_of(lab, tmp_path))
    DRIVER.remove(dataclasses.replace(ctx, state={}))
    assert cloud.inventory() == [f"firewall other-{number}" for number in range(10)]


def test_a_refused_page_does_not_end_a_list(lab: DoLab, cloud: Cloud, tmp_path: Path) -> None:
    """python-digitalocean takes it for the last one (case 155: partial list pages)."""
    ctx = created(DRIVER, ctx_of(lab, tmp_path))
    for number in range(3):
        cloud.make_tag({"name": f"a{number}"})
    lab.most_per_page = 2
    lab.faults.append(Fault("GET", "tags", status=429, skip=1, headers={"Retry-After": "7"}))
    before = ctx.clock.monotonic()
    DRIVER.remove(ctx)
    assert cloud.inventory() == ["tag a0", "tag a1", "tag a2"]
    assert ctx.clock.monotonic() - before >= 7, "as long as it asked for"


def test_the_hourly_limit_is_told_with_its_text(lab: DoLab, cloud: Cloud, tmp_path: Path) -> None:
    cloud.remaining, cloud.reset = 0, int(ctx_of(lab, tmp_path).clock.now()) + 1800
    with pytest.raises(TransientError, match=r"API Rate limit exceeded. \(429") as caught:
        created(DRIVER, ctx_of(lab, tmp_path))
    assert cloud.inventory() == []
    assert caught.value.hint == "Try again in 1800 s."
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("path", ["tags", "account/keys", "firewalls", "volumes", "droplets"])
@pytest.mark.parametrize(
    "fault",
    [
        {"drop": "before"},
        {"drop": "after"},
        {"status": 500},
        {"status": 429, "headers": {"Retry-After": "3"}},
    ],
)
def test_a_lost_answer_makes_nothing_twice(
    lab: DoLab, cloud: Cloud, tmp_path: Path, path: str, fault: dict[str, object]
) -> None:
    cloud.lag = Lag(listed=3, known=2, new=2)
    lab.faults.append(Fault("POST", path, **fault))  # type: ignore[arg-type]
    ctx = created(DRIVER, ctx_of(lab, tmp_path, **{"volume-size": 1}))
    kinds = [line.split()[0] for line in cloud.inventory()]
    assert kinds == ["firewall", "host", "key", "tag", "volume"]
    DRIVER.remove(ctx)
    assert cloud.inventory() == []


def test_what_was_refused_for_certain_is_not_waited_for(
    lab: DoLab, cloud: Cloud, tmp_path: Path
) -> None:
    """A 429 makes nothing, and neither does a quota: no list needs to settle."""
    ctx = ctx_of(lab, tmp_path)
    lab.faults.append(Fault("POST", "droplets", status=429, headers={"Retry-After": "3"}))
    before = ctx.clock.monotonic()
    DRIVER.remove(created(DRIVER, ctx))
    assert 3 <= ctx.clock.monotonic() - before < 20
    cloud.droplet_limit = 0
    before = ctx.clock.monotonic()
    state: dict[str, object] = {}
    with pytest.raises(QuotaError, match="exceed your droplet limit"):
        for made in DRIVER.create(ctx):
            state[made.key] = made.value
    DRIVER.remove(dataclasses.replace(ctx, state=state))
    assert cloud.inventory() == []
    assert ctx.clock.monotonic() - before < 20


def test_a_create_that_is_run_again_soon_waits_for_the_list(
    lab: DoLab, cloud: Cloud, tmp_path: Path
) -> None:
    """The first was killed when the droplet was made: no list shows it yet."""
    cloud.lag = Lag(listed=5)
    ctx = ctx_of(lab, tmp_path)
    state: dict[str, object] = {}
    for made in DRIVER.create(ctx):
        if made.key == "droplet":
            break
        state[made.key] = made.value
    assert len(cloud.drops) == 1
    again = created(DRIVER, dataclasses.replace(ctx, state=state))
    assert list(cloud.drops) == [again.state["droplet"]]


def test_a_record_that_was_lost_does_not_cost_a_hidden_droplet(
    lab: DoLab, cloud: Cloud, tmp_path: Path
) -> None:
    cloud.lag = Lag(listed=6, attached=2)
    ctx = ctx_of(lab, tmp_path, **{"volume-size": 1})
    created(DRIVER, ctx)
    DRIVER.remove(ctx)
    assert cloud.inventory() == []


def test_a_droplet_without_its_tag_is_removed_too(lab: DoLab, cloud: Cloud, tmp_path: Path) -> None:
    ctx = created(DRIVER, ctx_of(lab, tmp_path))
    cloud.drop_tag(f"machine:{UUID}")
    DRIVER.remove(ctx)
    assert cloud.inventory() == []


def test_what_can_not_be_removed_is_named(lab: DoLab, cloud: Cloud, tmp_path: Path) -> None:
    ctx = created(DRIVER, ctx_of(lab, tmp_path))
    lab.faults.append(Fault("DELETE", "firewalls/.*", status=423, message="locked", times=10000))
    with pytest.raises(DriverError, match=f"still has firewall machine-{UUID}") as caught:
        DRIVER.remove(ctx)
    assert "again" in caught.value.hint


def test_dead_credentials_remove_nothing(lab: DoLab, cloud: Cloud, tmp_path: Path) -> None:
    ctx = created(DRIVER, ctx_of(lab, tmp_path))
    before = cloud.inventory()
    dead = dataclasses.replace(ctx, options={**ctx.options, "access-token": "revoked"})
    with pytest.raises(AuthError, match="Unable to authenticate"):
        DRIVER.remove(dead)
    assert cloud.inventory() == before


def test_a_token_that_finds_nothing_is_no_proof(lab: DoLab, cloud: Cloud, tmp_path: Path) -> None:
    """The API's reference shows 404 for a token that does not exist."""
    ctx = created(DRIVER, ctx_of(lab, tmp_path))
    before = cloud.inventory()
    for path in ("account", "droplets.*", "tags", "firewalls"):
        lab.faults.append(Fault("GET", path, status=404, message="not found", times=1000))
    for verb in (DRIVER.state, DRIVER.remove):
        with pytest.raises(DriverError, match="404"):
            verb(ctx)
    assert cloud.inventory() == before
    (problem,) = DRIVER.check(ctx)
    assert "the token is not known" in problem


def test_the_token_goes_to_the_endpoint_only(lab: DoLab, cloud: Cloud, tmp_path: Path) -> None:
    """A list's "next" names another host: it is not followed, only its page asked for."""
    lab.most_per_page = 2
    for number in range(5):
        cloud.make_tag({"name": f"t{number}"})
    created(DRIVER, ctx_of(lab, tmp_path))
    DRIVER.remove(ctx_of(lab, tmp_path))
    assert any(one.query.get("page") == "2" for one in lab.asked)


# -- actions


def test_a_droplet_that_does_not_hear_is_cut_off(lab: DoLab, cloud: Cloud, tmp_path: Path) -> None:
    ctx = created(DRIVER, ctx_of(lab, tmp_path))
    cloud.machines.deaf.add(ctx.state["droplet"])  # type: ignore[attr-defined]
    DRIVER.stop(ctx)
    assert DRIVER.state(ctx) is HostState.STOPPED
    kinds = [one.body["type"] for one in lab.asked if one.path.endswith("/actions")]
    assert kinds[0] == "shutdown"
    assert kinds[-1] == "power_off"


def test_restart_of_a_stopped_one_starts_it(lab: DoLab, cloud: Cloud, tmp_path: Path) -> None:
    ctx = created(DRIVER, ctx_of(lab, tmp_path))
    DRIVER.restart(ctx)
    assert [one.body["type"] for one in lab.asked if one.path.endswith("/actions")] == ["reboot"]
    DRIVER.stop(ctx)
    DRIVER.restart(ctx)
    assert DRIVER.state(ctx) is HostState.RUNNING


def test_resize_keeps_the_state_and_the_disk(lab: DoLab, cloud: Cloud, tmp_path: Path) -> None:
    ctx = created(DRIVER, ctx_of(lab, tmp_path))
    assert isinstance(DRIVER, Resize)
    DRIVER.resize(ctx, Size(memory=2048))
    (droplet,) = cloud.drops.values()
    assert (droplet["size_slug"], droplet["disk"]) == ("s-1vcpu-2gb", 25)
    assert DRIVER.state(ctx) is HostState.RUNNING
    DRIVER.stop(ctx)
    DRIVER.resize(ctx, Size(disk=60))
    assert (droplet["size_slug"], droplet["disk"]) == ("s-2vcpu-2gb", 60)
    assert DRIVER.state(ctx) is HostState.STOPPED
    with pytest.raises(InvalidError, match="can't become smaller"):
        DRIVER.resize(ctx, Size(plan="s-1vcpu-1gb"))
    with pytest.raises(InvalidError, match="s-99"):
        DRIVER.resize(ctx, Size(plan="s-99"))


def test_a_lost_answer_keeps_one_snapshot(lab: DoLab, cloud: Cloud, tmp_path: Path) -> None:
    ctx = created(DRIVER, ctx_of(lab, tmp_path))
    assert isinstance(DRIVER, Snapshot)
    cloud.lag = Lag(action=40, snapshot=3)  # longer than a list may take to settle
    lab.faults.append(Fault("POST", r"droplets/\d+/actions", drop="after"))
    DRIVER.snapshot(ctx, "one")
    assert len(cloud.snaps) == 1
    with pytest.raises(ConflictError, match="has a snapshot one already"):
        DRIVER.snapshot(ctx, "one")
    with pytest.raises(GoneError, match="no snapshot two"):
        DRIVER.restore(ctx, "two")
    DRIVER.stop(ctx)
    DRIVER.restore(ctx, "one")
    assert DRIVER.state(ctx) is HostState.STOPPED, "as it was"


def test_what_any_machine_left_is_listed(lab: DoLab, cloud: Cloud, tmp_path: Path) -> None:
    cloud.make_tag({"name": "web"})
    ctx = created(DRIVER, ctx_of(lab, tmp_path, **{"volume-size": 1}))
    assert isinstance(DRIVER, ListOwned)
    found = DRIVER.owned(dataclasses.replace(ctx, state={}, uuid="another"))
    assert {uuid for uuid, _ in found} == {UUID}
    assert [what.split()[0] for _, what in found] == ["droplet", "volume", "firewall", "SSH", "tag"]


T = TypeVar("T")


class MeetingDoor(OpenDoor):
    """Lets the calls of one name through when as many as the barrier wants are there."""

    def __init__(self, name: str, together: threading.Barrier) -> None:
        super().__init__()
        self._name = name
        self._together = together

    def call(self, name: str, action: Callable[[], T]) -> T:
        if name == self._name:
            self._together.wait(60)
        return super().call(name, action)


def test_ten_creates_at_once_wait_together(lab: DoLab, cloud: Cloud, tmp_path: Path) -> None:
    """None waits for another: all ten are about to ask for their droplet at the same time."""
    together = threading.Barrier(10)

    def create(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        ctx = ctx_of(lab, folder, **{"ssh-key-fingerprint": own["fingerprint"]})
        uuid = f"{number:08d}-d9cb-469f-a165-70867728950e"
        door = MeetingDoor("droplets_create", together)
        created(DRIVER, dataclasses.replace(ctx, uuid=uuid, clock=SystemClock(), door=door))

    own = cloud.make_key({"name": "laptop", "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"})
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        list(pool.map(create, range(10)))
    assert len(cloud.drops) == 10


def test_the_registry_has_it() -> None:
    driver: Driver = registry.load("digitalocean")
    assert driver.name == "digitalocean"
