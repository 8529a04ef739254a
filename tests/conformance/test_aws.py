"""The aws driver against the contract, before moto's server (tests.support.motolab)."""

import dataclasses
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest

from drivers import registry
from drivers.api import (
    Console,
    Driver,
    DriverContext,
    HostState,
    ListOwned,
    Resize,
    SeedRequest,
    Size,
    Snapshot,
    SshLogin,
    StartStop,
)
from drivers.errors import ConflictError, GoneError, InvalidError, QuotaError
from drivers.faults import OTHER_UUID, BreakableDoor, FaultSuite, Killed, Rig
from drivers.faults import Fault as FaultKind
from drivers.options import Value
from drivers.testkit import UUID, DriverSuite, FixedSeeds, context, created
from tests.support.motolab import DEBIAN_ARM, UBUNTU, Fault, MotoLab

HOST_KEYS = FixedSeeds(Path()).seed(SeedRequest("x")).host_keys
SOMEONE = "5f2f6d4e-1111-4222-8333-444455556666"


@pytest.fixture(autouse=True, scope="module")
def _server() -> Iterator[MotoLab]:
    with MotoLab() as lab:
        yield lab


@pytest.fixture(autouse=True)
def motolab(request: pytest.FixtureRequest, _server: MotoLab) -> MotoLab:
    _server.reset()
    request.instance.lab = _server
    return _server


def options(lab: MotoLab, **more: Value) -> dict[str, Value | None]:
    return {
        "access-key": "AKIACONFORMANCE",
        "secret-key": "conformance",
        "region": "us-east-1",
        "endpoint": lab.url,
        "open-to": ("198.51.100.7/32",),
        **more,
    }


class TestAws(DriverSuite):
    lab: MotoLab

    def make(self, folder: Path) -> tuple[Driver, DriverContext]:
        self.lab.reset()
        driver = registry.load("aws")
        return driver, context(folder, driver.options, options(self.lab))


class TestOtherWays:
    """A spot instance of Debian on ARM with a private address only, and tags."""

    lab: MotoLab

    def test_a_private_spot_instance(self, tmp_path: Path) -> None:
        driver = registry.load("amazonec2")
        more: dict[str, Value] = {
            "request-spot-instance": True,
            "spot-price": "0.01",
            "private-address-only": True,
            "open-to": (),
            "image": "debian",
            "instance-type": "t4g.small",
            "tags": "team,web",
            "volume-type": "gp2",
        }
        ctx = context(tmp_path, driver.options, options(self.lab, **more))
        assert driver.check(ctx) == []
        ctx = created(driver, ctx)
        made = self.lab.instance(UUID)
        assert (made.lifecycle, made.image_id, made.public_ip) == ("spot", DEBIAN_ARM, None)
        assert driver.address(ctx).host == made.private_ip
        assert driver.address(ctx).ssh == SshLogin(
            made.private_ip, 22, "admin", str(tmp_path / "id_ed25519"), HOST_KEYS
        )
        assert ctx.state["open_to"] == ["172.31.0.0/16"]
        driver.remove(ctx)
        assert self.lab.inventory() == []

    def test_given_groups_and_keys_are_used_and_left_alone(self, tmp_path: Path) -> None:
        ec2 = self.lab.backend
        vpc = next(iter(ec2.vpcs))
        group = ec2.create_security_group("mine", "of the user", vpc_id=vpc)
        ec2.create_key_pair("mine", "rsa", {})
        given: dict[str, Value] = {
            "security-group": ("mine",),
            "keypair-name": "mine",
            "open-to": (),
        }
        driver, ctx = self._ready(tmp_path, **given)
        assert driver.check(ctx) == [
            f"no rule of mine opens port {port} (given groups are never changed)"
            for port in (22, 2376)
        ]
        ctx = created(driver, ctx)
        made = self.lab.instance(UUID)
        assert [one.id for one in made.nics[0].group_set] == [group.id]
        assert made.key_name == "mine"
        assert not {"group", "key"} & set(ctx.state)
        driver.remove(ctx)
        assert group.ingress_rules == []
        assert "mine" in ec2.key_pairs
        assert ec2.get_security_group_from_id(group.id) is not None

    def test_a_second_try_with_other_options_leaves_nothing_of_the_first(
        self, tmp_path: Path
    ) -> None:
        """Wide open and in the default VPC at first, then narrow and elsewhere."""
        driver, ctx = self._ready(tmp_path, **{"open-to": ("0.0.0.0/0",)})
        door = BreakableDoor()
        door.refuses["RunInstances"] = QuotaError("VcpuLimitExceeded: no")
        state: dict[str, object] = {}
        with pytest.raises(QuotaError):
            for made in driver.create(dataclasses.replace(ctx, door=door)):
                state[made.key] = made.value
        _, narrow = self._ready(tmp_path, zone="b")
        list(driver.create(dataclasses.replace(narrow, state=state)))
        (instance,) = self.lab.backend.all_instances()
        (group,) = instance.nics[0].group_set
        assert instance.placement.zone == "us-east-1b"
        assert {rule.ip_range["CidrIp"] for rule in group.ingress_rules} == {"198.51.100.7/32"}

    def test_check_tells_all_that_amazon_says_at_once(self, tmp_path: Path) -> None:
        driver, ctx = self._ready(
            tmp_path, ami="ami-00000000000000000", **{"subnet-id": "subnet-0", "tags": "odd"},
            **{"keypair-name": "nobodys"},
        )  # fmt: skip
        problems = " ".join(driver.check(ctx))
        for word in ("--amazonec2-tags", "ami-00000000000000000", "subnet-0", "nobodys"):
            assert word in problems
        assert self.lab.inventory() == []

    def test_no_default_network_is_told_with_the_way_out(self, tmp_path: Path) -> None:
        driver, ctx = self._ready(tmp_path)
        ec2 = self.lab.backend
        for subnets in list(ec2.subnets.values()):
            for ident in list(subnets):
                ec2.delete_subnet(ident)
        for vpc in list(ec2.vpcs):
            ec2.delete_vpc(vpc)
        (problem,) = driver.check(ctx)
        assert "no default VPC" in problem
        assert "--amazonec2-subnet-id" in problem

    def test_without_parameters_the_newest_image_is_found_by_its_owner(
        self, tmp_path: Path
    ) -> None:
        driver, ctx = self._ready(tmp_path)
        self.lab.script.faults["GetParameters"].append(
            Fault("AccessDeniedException", message="not authorized to perform: ssm:GetParameters")
        )
        created(driver, ctx)
        assert self.lab.instance(UUID).image_id == UBUNTU

    def test_an_image_by_owner_and_name(self, tmp_path: Path) -> None:
        given = {"image-owner": "136693071363", "image-name": "debian-13-arm64-*"}
        driver, ctx = self._ready(tmp_path, **given)
        created(driver, ctx)
        made = self.lab.instance(UUID)
        assert (made.image_id, made.instance_type) == (DEBIAN_ARM, "t4g.micro")

    def test_an_image_that_does_not_fit_the_type(self, tmp_path: Path) -> None:
        driver, ctx = self._ready(tmp_path, ami=DEBIAN_ARM, **{"instance-type": "t3.micro"})
        (problem,) = driver.check(ctx)
        assert "arm64" in problem

    def test_an_instance_that_amazon_ends_at_once_is_told_and_made_again(
        self, tmp_path: Path
    ) -> None:
        driver, ctx = self._ready(tmp_path)
        steps = driver.create(ctx)
        state: dict[str, object] = {}
        first: object = None
        for made in steps:
            state[made.key] = made.value
            if made.key == "instance":
                self.lab.terminate(str(made.value))
                first = made.value
                break
        with pytest.raises(QuotaError, match=f"Amazon ended {first} at once"):
            list(steps)
        again = created(driver, dataclasses.replace(ctx, state=state))
        assert again.state["instance"] != first
        assert driver.state(again) is HostState.RUNNING
        driver.remove(again)
        assert self.lab.inventory() == []

    def test_resize_to_another_type_and_a_larger_disk(self, tmp_path: Path) -> None:
        driver, ctx = self._ready(tmp_path)
        ctx = created(driver, ctx)
        assert isinstance(driver, Resize)
        assert isinstance(driver, StartStop)
        driver.resize(ctx, Size(plan="t3.small", disk=32))
        made = self.lab.instance(UUID)
        assert (made.instance_type, made.state) == ("t3.small", "running")
        (volume,) = self.lab.backend.volumes.values()
        assert volume.size == 32
        for wrong in (Size(disk=8), Size(cpus=2), Size(plan="t4g.small")):
            with pytest.raises(InvalidError):
                driver.resize(ctx, wrong)
        driver.stop(ctx)
        driver.resize(ctx, Size(plan="t3.micro"))
        assert driver.state(ctx) is HostState.STOPPED

    def test_restore_swaps_the_root_volume_and_leaves_one(self, tmp_path: Path) -> None:
        driver, ctx = self._ready(tmp_path)
        ctx = created(driver, ctx)
        assert isinstance(driver, Snapshot)
        (before,) = self.lab.backend.volumes
        after = before
        driver.snapshot(ctx, "good")
        with pytest.raises(ConflictError):
            driver.snapshot(ctx, "good")
        with pytest.raises(GoneError):
            driver.restore(ctx, "bad")
        for _ in range(2):
            driver.restore(ctx, "good")
            (after,) = self.lab.backend.volumes
            assert after != before
            before = after
        made = self.lab.instance(UUID)
        (device,) = made.block_device_mapping.values()
        assert (device.volume_id, device.delete_on_termination) == (after, True)
        assert made.state == "running"
        driver.remove(ctx)
        assert self.lab.inventory() == []

    def test_a_restore_that_was_killed_anywhere_is_run_again(self, tmp_path: Path) -> None:
        driver, ctx = self._ready(tmp_path)
        ctx = created(driver, ctx)
        assert isinstance(driver, Snapshot)
        assert isinstance(driver, StartStop)
        driver.snapshot(ctx, "good")
        counting = BreakableDoor()
        driver.restore(dataclasses.replace(ctx, door=counting), "good")
        for number in range(0, len(counting.calls), 2):
            door = BreakableDoor(at=number, fault=FaultKind.KILLED_AFTER)
            with pytest.raises(Killed):
                driver.restore(dataclasses.replace(ctx, door=door), "good")
            driver.restore(ctx, "good")
            driver.start(ctx)
            (volume,) = self.lab.backend.volumes
            assert self.lab.instance(UUID).block_device_mapping["/dev/xvda"].volume_id == volume

    def test_start_lets_in_the_address_of_today(self, tmp_path: Path) -> None:
        driver, ctx = self._ready(tmp_path, **{"open-to": ()})
        assert isinstance(driver, StartStop)
        ctx = created(driver, dataclasses.replace(ctx, http=Says(b"8.8.8.8")))
        assert ctx.state["open_to"] == ["8.8.8.8/32"]
        driver.stop(ctx)
        driver.start(dataclasses.replace(ctx, http=Says(b"8.8.4.4")))
        group = self.lab.backend.get_security_group_from_id(ctx.state["group"])
        opened = {(rule.from_port, rule.ip_range["CidrIp"]) for rule in group.ingress_rules}
        assert opened == {
            (port, f"{source}/32") for port in (22, 2376) for source in ("8.8.8.8", "8.8.4.4")
        }
        driver.stop(ctx)
        driver.start(ctx)  # checkip can't be asked: that is no reason not to start

    def test_console_and_what_gc_finds(self, tmp_path: Path) -> None:
        driver, ctx = self._ready(tmp_path)
        ctx = created(driver, ctx)
        assert isinstance(driver, Console)
        assert isinstance(driver, ListOwned)
        assert "Linux version" in driver.console(ctx)
        found = driver.owned(dataclasses.replace(ctx, uuid=OTHER_UUID, state={}))
        assert {owner for owner, _ in found} == {UUID}
        assert {words.rpartition(" ")[0] for _, words in found} == {
            "instance", "volume", "security group", "key pair",
        }  # fmt: skip

    def test_machines_are_made_and_removed_at_the_same_time(self, tmp_path: Path) -> None:
        """Verbs may be called from any thread, for different machines."""
        driver, ctx = self._ready(tmp_path)
        machines = [
            dataclasses.replace(ctx, name=f"m{number}", uuid=str(uuid.UUID(int=number + 1)))
            for number in range(6)
        ]
        with ThreadPoolExecutor(len(machines)) as pool:
            made = list(pool.map(lambda one: created(driver, one), machines))
            assert len({one.state["instance"] for one in made}) == len(machines)
            assert len({driver.address(one).host for one in made}) == len(machines)
            list(pool.map(driver.remove, made))
        assert self.lab.inventory() == []

    def _ready(self, folder: Path, **more: Value) -> tuple[Driver, DriverContext]:
        driver = registry.load("aws")
        return driver, context(folder, driver.options, options(self.lab, **more))


class Says:
    """drivers.api.Http of checkip.amazonaws.com."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout: float = 60.0,
    ) -> tuple[int, bytes]:
        return 200, self._answer


class AwsRig:
    """An account in which someone else has one of everything."""

    def __init__(self, lab: MotoLab, folder: Path) -> None:
        self._lab = lab
        self._folder = folder
        self.driver = registry.load("aws")
        lab.reset()
        lab.script.hide = 1
        self._furnish()

    def context(self, door: BreakableDoor, uuid: str = UUID) -> DriverContext:
        ctx = context(self._folder, self.driver.options, options(self._lab))
        return dataclasses.replace(ctx, door=door, uuid=uuid)

    def inventory(self, uuid: str) -> list[str]:
        return self._lab.inventory(uuid)

    def foreign(self) -> object:
        mine = {*self.inventory(UUID), *self.inventory(OTHER_UUID)}
        theirs = [line for line in self._lab.inventory() if line not in mine]
        ec2 = self._lab.backend
        untagged = {one.id for one in ec2.all_instances() if not one.get_tags()}
        rules = {
            group.id: len(group.ingress_rules)
            for groups in ec2.groups.values()
            for group in groups.values()
            if group.name in {"default", "someone"}
        }
        states = sorted(one.state for one in ec2.all_instances() if one.id in untagged)
        return theirs, sorted(untagged), rules, states, sorted(set(ec2.key_pairs) & {"someone"})

    def _furnish(self) -> None:
        """Another machine of the same name, and things without a tag."""
        ec2 = self._lab.backend
        vpc = next(iter(ec2.vpcs))
        tags = {"machine-uuid": SOMEONE, "machine-name": "conformance", "Name": "conformance"}
        ec2.create_security_group("machine-conformance-5f2f6d4e", "x", vpc_id=vpc, tags=tags)
        ec2.create_security_group("someone", "of someone", vpc_id=vpc)
        ec2.create_key_pair("machine-conformance-5f2f6d4e", "rsa", tags)
        ec2.create_key_pair("someone", "rsa", {})
        for own in (tags, {}):
            ec2.run_instances(
                "ami-0debian13amd64",
                1,
                None,
                [],
                instance_type="t3.nano",
                is_instance_type_default=False,
                region_name="us-east-1",
                tags={"instance": own, "volume": own},
            )


class TestAwsFaults(FaultSuite):
    """`every` keeps `./test` short; `--whole-fault-table` breaks every call."""

    lab: MotoLab
    every = 17
    creates: ClassVar[tuple[str, ...]] = ("ImportKeyPair", "CreateSecurityGroup", "RunInstances")
    reads: ClassVar[tuple[str, ...]] = ("DescribeSecurityGroups", "DescribeInstances")

    def rig(self, folder: Path) -> Rig:
        return AwsRig(self.lab, folder)
