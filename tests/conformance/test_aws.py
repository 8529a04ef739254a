"""The aws driver against the contract, before moto's server (tests.support.motolab)."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from drivers import registry
from drivers.api import Driver, DriverContext, SeedRequest, SshLogin
from drivers.faults import OTHER_UUID, BreakableDoor, FaultSuite, Rig
from drivers.options import Value
from drivers.testkit import UUID, DriverSuite, FixedSeeds, context, created
from tests.support.motolab import DEBIAN_ARM, MotoLab

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
