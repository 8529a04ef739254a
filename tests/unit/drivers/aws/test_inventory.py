"""Removal in order until nothing is listed, and reading in pages."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from drivers.api import DriverContext
from drivers.aws import inventory
from drivers.aws.documents import Document, rows
from drivers.aws.options import OPTIONS
from drivers.aws.provider import Cloud
from drivers.errors import AuthError, ConflictError, DriverError, InvalidError
from drivers.testkit import UUID, context

OTHER = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
_TAGS = [{"Key": "machine-uuid", "Value": UUID}]


class Account(Cloud):
    """What exists, by the calls that list it; deletes take it away, unless they are refused."""

    def __init__(self, ctx: DriverContext, **things: list[dict[str, object]]) -> None:
        super().__init__(ctx)
        self.things = things
        self.done: list[str] = []
        self.refusals: dict[str, list[DriverError]] = {}

    def _once(self, service: str, operation: str, fields: Mapping[str, object]) -> Document:
        waiting = self.refusals.get(operation)
        if waiting:
            raise waiting.pop(0)
        if operation == "DescribeInstances":
            return {"Reservations": [{"Instances": self.things.get("instances", [])}]}
        for kind in inventory.KINDS:
            if operation == kind.describe:
                return {kind.key: self.things.get(kind.key, [])}
            if operation == kind.delete:
                given = fields[kind.field]
                ident = given[0] if isinstance(given, list) else given
                self.done.append(f"{operation} {ident}")
                left = self.things[kind.key]
                self.things[kind.key] = [one for one in left if one[kind.ident] != ident]
                return {}
        assert operation == "TerminateInstances"
        self.done.append(operation)
        self.things["instances"] = [_instance("terminated")]
        return {}


def _instance(state: str, ident: str = "i-1") -> dict[str, object]:
    return {"InstanceId": ident, "State": {"Name": state}, "Tags": _TAGS}


def _account(folder: Path, *, spot: bool = False) -> tuple[Account, DriverContext]:
    ctx = context(folder, OPTIONS, {"request-spot-instance": spot})
    spots: list[dict[str, object]] = [
        {"SpotInstanceRequestId": "sir-1", "State": "active", "Tags": _TAGS}
    ]
    account = Account(
        ctx,
        instances=[_instance("running")],
        SecurityGroups=[{"GroupId": "sg-1", "Tags": _TAGS}],
        KeyPairs=[{"KeyName": "machine-x", "Tags": _TAGS}],
        Volumes=[{"VolumeId": "vol-1", "State": "available", "Tags": _TAGS}],
        Snapshots=[{"SnapshotId": "snap-1", "State": "completed", "Tags": _TAGS}],
        NetworkInterfaces=[{"NetworkInterfaceId": "eni-1", "Status": "available", "Tags": _TAGS}],
        SpotInstanceRequests=spots,
    )
    return account, ctx


def test_everything_goes_in_order(tmp_path: Path) -> None:
    account, ctx = _account(tmp_path, spot=True)
    inventory.remove(account, ctx)
    assert account.done == [
        "CancelSpotInstanceRequests sir-1", "TerminateInstances", "DeleteVolume vol-1",
        "DeleteSnapshot snap-1", "DeleteNetworkInterface eni-1", "DeleteSecurityGroup sg-1",
        "DeleteKeyPair machine-x",
    ]  # fmt: skip


def test_a_group_that_is_still_in_use_is_asked_for_again(tmp_path: Path) -> None:
    account, ctx = _account(tmp_path)
    account.refusals["DeleteSecurityGroup"] = [ConflictError("DependencyViolation")] * 3
    inventory.remove(account, ctx)
    assert account.done.count("DeleteSecurityGroup sg-1") == 1
    assert inventory.inventory(account, ctx) == []


def test_what_will_not_go_is_named(tmp_path: Path) -> None:
    account, ctx = _account(tmp_path)
    account.refusals["DeleteSecurityGroup"] = [ConflictError("sg-1 has a dependent object")] * 999
    with pytest.raises(DriverError, match="sg-1 has a dependent object") as told:
        inventory.remove(account, ctx)
    assert told.value.hint == "Still there: security group sg-1."


def test_protection_and_dead_credentials_are_no_reason_to_wait(tmp_path: Path) -> None:
    account, ctx = _account(tmp_path)
    begun = ctx.clock.monotonic()
    account.refusals["TerminateInstances"] = [InvalidError("OperationNotPermitted")]
    with pytest.raises(InvalidError) as told:
        inventory.remove(account, ctx)
    assert "instance i-1, volume vol-1" in told.value.hint
    account.refusals["DescribeVolumes"] = [AuthError("ExpiredToken")]
    with pytest.raises(AuthError):
        inventory.remove(account, ctx)
    assert ctx.clock.monotonic() - begun < 1


def test_nothing_of_others_is_listed_or_touched(tmp_path: Path) -> None:
    """Whatever a filter lets through: only what bears a tag of ours counts."""
    account, ctx = _account(tmp_path)
    theirs: dict[str, object] = {
        "GroupId": "sg-2",
        "Tags": [{"Key": "machine-uuid", "Value": OTHER}],
    }
    account.things["SecurityGroups"] += [{"GroupId": "sg-default"}, theirs]
    account.things["Volumes"].append({"VolumeId": "vol-2", "State": "deleting", "Tags": _TAGS})
    inventory.remove(account, ctx)
    assert account.things["SecurityGroups"] == [{"GroupId": "sg-default"}, theirs]


def test_an_empty_list_is_believed_at_once_only_after_a_whole_create(tmp_path: Path) -> None:
    ctx = context(tmp_path, OPTIONS, {})
    begun = ctx.clock.monotonic()
    inventory.remove(Account(ctx), ctx)
    assert ctx.clock.monotonic() - begun >= 15


def test_listings_come_in_pages(tmp_path: Path) -> None:
    class Pages(Cloud):
        def _once(self, service: str, operation: str, fields: Mapping[str, object]) -> Document:
            number = int(str(fields.get("NextToken", "0")))
            following = str(number + 1) if number < 3 else ""
            return {"Vpcs": [{"VpcId": f"vpc-{number}"}], "NextToken": following}

    ctx = context(tmp_path, OPTIONS, {})
    found = Pages(ctx).listed("DescribeVpcs", "Vpcs")
    assert [one["VpcId"] for one in found] == ["vpc-0", "vpc-1", "vpc-2", "vpc-3"]
    assert rows({"Vpcs": found}, "Vpcs") == found
