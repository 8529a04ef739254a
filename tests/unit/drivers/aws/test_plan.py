"""What is asked of Amazon, from the options."""

import dataclasses
from pathlib import Path

import pytest

from drivers.api import DriverContext
from drivers.aws import plan
from drivers.aws.documents import Subnet, rows, text
from drivers.aws.finding import best_subnet, zone_name
from drivers.aws.options import OPTIONS
from drivers.errors import DriverError
from drivers.options import Value
from drivers.testkit import UUID, context

CHOICE = plan.Choice(
    "ami-1", "/dev/xvda", "x86_64", "t3.micro", "vpc-1", "subnet-1", "us-east-1a", (), "digest"
)


def options(folder: Path, **given: Value) -> DriverContext:
    named = {name.replace("_", "-"): value for name, value in given.items()}
    return context(folder, OPTIONS, named)


def launched(ctx: DriverContext) -> dict[str, object]:
    return plan.launch(ctx, CHOICE, ["sg-1"], "key", b"data")


def _valid(fields: dict[str, object]) -> bool:
    """Against botocore's description of the API."""
    from botocore.session import Session
    from botocore.validate import ParamValidator

    shape = Session().get_service_model("ec2").operation_model("RunInstances").input_shape
    report = ParamValidator().validate({**fields, "UserData": "", "ClientToken": "t"}, shape)
    assert not report.has_errors(), report.generate_report()
    return True


def test_a_launch_by_default(tmp_path: Path) -> None:
    fields = launched(options(tmp_path))
    assert fields["MetadataOptions"] == {
        "HttpEndpoint": "enabled",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
        "HttpProtocolIpv6": "disabled",
    }
    assert fields["BlockDeviceMappings"] == [
        {
            "DeviceName": "/dev/xvda",
            "Ebs": {"VolumeSize": 16, "VolumeType": "gp3", "DeleteOnTermination": True},
        }
    ]
    assert fields["NetworkInterfaces"] == [
        {
            "DeviceIndex": 0, "SubnetId": "subnet-1", "Groups": ["sg-1"],
            "DeleteOnTermination": True, "AssociatePublicIpAddress": True,
        }
    ]  # fmt: skip
    specifications = fields["TagSpecifications"]
    assert isinstance(specifications, list)
    assert [one["ResourceType"] for one in specifications] == [
        "instance", "volume", "network-interface",
    ]  # fmt: skip
    for one in specifications:
        assert {"Key": "machine-uuid", "Value": UUID} in one["Tags"]
        assert {"Key": "Name", "Value": "conformance"} in one["Tags"]
    assert (fields["MinCount"], fields["MaxCount"]) == (1, 1)
    assert "InstanceMarketOptions" not in fields


def test_everything_that_can_be_asked_for(tmp_path: Path) -> None:
    fields = launched(
        options(
            tmp_path, request_spot_instance=True, spot_price="0.02", spot_interruption="stop",
            iam_instance_profile="arn:aws:iam::1:instance-profile/x", kms_key="alias/k",
            private_address_only=True, ipv6_address_count=2, enable_primary_ipv6=True,
            monitoring=True, use_ebs_optimized_instance=True, http_tokens="optional",
            volume_type="io2", root_size=40, tags="team,web",
        )
    )  # fmt: skip
    assert fields["InstanceMarketOptions"] == {
        "MarketType": "spot",
        "SpotOptions": {
            "SpotInstanceType": "persistent",
            "InstanceInterruptionBehavior": "stop",
            "MaxPrice": "0.02",
        },
    }
    assert fields["IamInstanceProfile"] == {"Arn": "arn:aws:iam::1:instance-profile/x"}
    (card,) = rows(fields, "NetworkInterfaces")
    assert card["AssociatePublicIpAddress"] is False
    assert (card["Ipv6AddressCount"], card["PrimaryIpv6"]) == (2, True)
    (disk,) = rows(fields, "BlockDeviceMappings")
    assert disk["Ebs"] == {
        "VolumeSize": 40, "VolumeType": "io2", "DeleteOnTermination": True, "Encrypted": True,
        "KmsKeyId": "alias/k",
    }  # fmt: skip
    assert fields["EbsOptimized"] is True
    assert fields["Monitoring"] == {"Enabled": True}
    assert _valid(fields)
    kinds = [text(one, "ResourceType") for one in rows(fields, "TagSpecifications")]
    assert "spot-instances-request" in kinds


def test_a_launch_has_one_token_and_another_after_a_death(tmp_path: Path) -> None:
    ctx = options(tmp_path)
    fields = launched(ctx)
    first = plan.launch_token(ctx, fields, [])
    assert plan.launch_token(ctx, launched(ctx), []) == first
    assert plan.launch_token(ctx, fields, ["i-1"]) != first
    assert plan.launch_token(ctx, launched(options(tmp_path, root_size=20)), []) != first
    other = dataclasses.replace(ctx, uuid="7c9e6679-7425-40de-944b-e07fc1f90ae7")
    assert plan.launch_token(other, fields, []) != first
    assert len(first) <= 64


def test_a_choice_is_kept_until_other_options_are_given(tmp_path: Path) -> None:
    asked = plan.asked_for(options(tmp_path))
    choice = dataclasses.replace(CHOICE, asked=asked, groups=("sg-1",))
    assert plan.choice_of(choice.stored(), asked) == choice
    assert plan.choice_of(choice.stored(), plan.asked_for(options(tmp_path, zone="b"))) is None
    assert plan.asked_for(options(tmp_path, root_size=99)) == asked
    assert plan.choice_of(None, asked) is None


def test_rules_open_the_machine_to_some_and_ports_to_all(tmp_path: Path) -> None:
    ctx = options(tmp_path, open_port=("80", "53/udp"), ssh_port=2222)
    shown = {
        (rule["IpProtocol"], rule["FromPort"], source)
        for rule in plan.rules(ctx, ["203.0.113.7/32", "2001:db8::/64"])
        for source in _sources(rule)
    }
    assert shown == {
        ("tcp", 2222, "203.0.113.7/32"), ("tcp", 2222, "2001:db8::/64"),
        ("tcp", 2376, "203.0.113.7/32"), ("tcp", 2376, "2001:db8::/64"),
        ("tcp", 80, "0.0.0.0/0"), ("tcp", 80, "::/0"),
        ("udp", 53, "0.0.0.0/0"), ("udp", 53, "::/0"),
    }  # fmt: skip


def _sources(rule: dict[str, object]) -> list[str]:
    found: list[str] = []
    for ranges, key in (("IpRanges", "CidrIp"), ("Ipv6Ranges", "CidrIpv6")):
        rows = rule.get(ranges, [])
        assert isinstance(rows, list)
        found += [one[key] for one in rows]
    return found


def test_only_rules_that_are_lacking_are_asked_for(tmp_path: Path) -> None:
    wanted = plan.rules(options(tmp_path), ["203.0.113.7/32", "198.51.100.0/24"])
    have = {"IpPermissions": plan.permissions([("tcp", 22)], ["203.0.113.7/32"])}
    lacking = plan.lacking(have, wanted)
    assert [(rule["FromPort"], _sources(rule)) for rule in lacking] == [
        (22, ["198.51.100.0/24"]),
        (2376, ["203.0.113.7/32", "198.51.100.0/24"]),
    ]
    assert plan.lacking({"IpPermissions": wanted}, wanted) == []


def test_rules_of_an_earlier_try_are_taken_away(tmp_path: Path) -> None:
    wanted = plan.rules(options(tmp_path), ["203.0.113.7/32"])
    wide = plan.rules(options(tmp_path, open_port=("80",)), ["0.0.0.0/0", "203.0.113.7/32"])
    surplus = plan.surplus({"IpPermissions": wide}, wanted)
    assert {(rule["FromPort"], *_sources(rule)) for rule in surplus} == {
        (22, "0.0.0.0/0"), (2376, "0.0.0.0/0"), (80, "0.0.0.0/0"), (80, "::/0"),
    }  # fmt: skip
    assert "Description" not in repr(surplus)
    assert plan.surplus({"IpPermissions": wanted}, wanted) == []


@pytest.mark.parametrize("port", ["22", "2376/tcp", "0", "70000", "80/icmp", "http", "1-9"])
def test_ports_that_are_refused(tmp_path: Path, port: str) -> None:
    with pytest.raises(DriverError):
        plan.public_ports(options(tmp_path, open_port=(port,)))


def test_networks_are_canonical_or_refused() -> None:
    assert plan.networks(["203.0.113.7", "2001:db8::1", "10.0.0.0/8"]) == (
        "203.0.113.7/32", "2001:db8::1/128", "10.0.0.0/8",
    )  # fmt: skip
    for wrong in ("203.0.113.7/24", "me", "", "300.1.1.1"):
        with pytest.raises(DriverError):
            plan.networks([wrong])


@pytest.mark.parametrize(
    "given", ["a", "a,b,c", ",b", "aws:x,y", "machine-uuid,x", f"k,{'v' * 257}", f"{'k' * 129},v"]
)
def test_tags_that_are_refused(given: str) -> None:
    with pytest.raises(DriverError):
        plan.user_tags(given)


def test_tags_of_the_user_never_hide_the_machines(tmp_path: Path) -> None:
    ctx = options(tmp_path, tags="Name,mine,team,web")
    assert {one["Key"]: one["Value"] for one in plan.tags(ctx)} == {
        "Name": "mine", "team": "web", "machine-uuid": UUID, "machine-name": "conformance",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "open_"),
    [
        ({"IpProtocol": "-1"}, True),
        ({"IpProtocol": "tcp", "FromPort": 0, "ToPort": 65535}, True),
        ({"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}, True),
        ({"IpProtocol": "tcp", "FromPort": 23, "ToPort": 30}, False),
        ({"IpProtocol": "udp", "FromPort": 22, "ToPort": 22}, False),
    ],
)
def test_whether_a_group_lets_in(rule: dict[str, object], *, open_: bool) -> None:
    assert plan.lets_in([{"IpPermissions": [rule]}], 22) is open_


def test_the_best_subnet() -> None:
    def made(ident: str, zone: str, *, default: bool = False, public: bool = False) -> Subnet:
        return Subnet(ident, "vpc-1", zone, default, public, ident == "six")

    known = [
        made("b", "z-b", default=True, public=True),
        made("a", "z-a", default=True, public=True),
        made("p", "z-a", public=True),
        made("six", "z-c"),
    ]
    assert best_subnet(known, ["z-a", "z-b"], ipv6=False) == known[1]
    assert best_subnet(known, ["z-b"], ipv6=False) == known[0]
    assert best_subnet(known[2:], [], ipv6=False) == known[2]
    assert best_subnet(known, [], ipv6=True) == known[3]
    assert best_subnet(known, ["z-z"], ipv6=False) is None
    assert (zone_name("a", "us-east-1"), zone_name("us-east-1f", "x")) == (
        "us-east-1a", "us-east-1f",
    )  # fmt: skip
