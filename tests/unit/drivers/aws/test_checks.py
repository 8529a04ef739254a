"""What the options say by themselves."""

import dataclasses
from pathlib import Path

import pytest

from drivers.aws import checks
from drivers.aws.options import OPTIONS
from drivers.aws.provider import endpoint, region
from drivers.options import Value
from drivers.testkit import context

TABLE: list[tuple[dict[str, Value], str]] = [
    ({"block-duration-minutes": 60}, "withdrew"),
    ({"access-key": "AKIA"}, "together"),
    ({"root-size": 0}, "--amazonec2-root-size 0"),
    ({"volume-type": "gp9"}, "gp3"),
    ({"http-tokens": "maybe"}, "required, optional"),
    ({"spot-price": "cheap", "request-spot-instance": True}, "dollars"),
    ({"spot-interruption": "stop"}, "--amazonec2-request-spot-instance"),
    ({"ipv6-address-only": True}, "--amazonec2-ipv6-address-count"),
    ({"ipv6-address-only": True, "ipv6-address-count": 1}, "--amazonec2-open-to"),
    ({"security-group": ("sg-1",), "open-port": ("80",)}, "never changed"),
    ({"open-to": ("me",)}, "--amazonec2-open-to me"),
    ({"open-port": ("ssh",)}, "--amazonec2-open-port ssh"),
    ({"tags": "a"}, "--amazonec2-tags"),
    ({"image": "beos"}, "--amazonec2-image beos"),
    ({"ssh-user": "-oProxyCommand=x"}, "no user name"),
    ({"userdata": "/nowhere/at/all"}, "No such file"),
    ({"ssh-keypath": "/nowhere/at/all"}, "/nowhere/at/all.pub"),
    ({"endpoint": "http://ec2.example.com"}, "without TLS"),
    ({"endpoint": "ftp://ec2.example.com"}, "no http"),
]


@pytest.mark.parametrize(("given", "says"), TABLE)
def test_a_wrong_option_is_told(tmp_path: Path, given: dict[str, Value], says: str) -> None:
    (problem,) = checks.offline(context(tmp_path, OPTIONS, given))
    assert says in problem


def test_all_are_told_at_once(tmp_path: Path) -> None:
    given: dict[str, Value] = {"root-size": 0, "tags": "a", "image": "beos", "access-key": "AKIA"}
    assert len(checks.offline(context(tmp_path, OPTIONS, given))) == 4


def test_nothing_is_wrong_by_default(tmp_path: Path) -> None:
    assert checks.offline(context(tmp_path, OPTIONS, {})) == []


def test_user_data_has_amazons_limit(tmp_path: Path) -> None:
    own = tmp_path / "user-data"
    for size, fine in ((16 * 1024, True), (16 * 1024 + 1, False)):
        own.write_bytes(b"#" * size)
        problems = checks.offline(context(tmp_path, OPTIONS, {"userdata": str(own)}))
        assert (problems == []) is fine


@pytest.mark.parametrize(
    ("line", "fine"),
    [("ssh-ed25519 AAAA me", True), ("ssh-rsa AAAA", True), ("ecdsa-sha2-nistp256 AAAA", False),
     ("-----BEGIN OPENSSH PRIVATE KEY-----", False)],
)  # fmt: skip
def test_a_public_key_that_amazon_takes(tmp_path: Path, line: str, *, fine: bool) -> None:
    (tmp_path / "key.pub").write_text(f"{line}\n")
    ctx = context(tmp_path, OPTIONS, {"ssh-keypath": str(tmp_path / "key")})
    assert (checks.offline(ctx) == []) is fine


def test_every_flag_of_docker_machine_is_there() -> None:
    """Reference 2.4 and the newer ones of 2.10."""
    flags = {flag.removeprefix("--amazonec2-") for spec in OPTIONS for flag in spec.flags}
    assert flags >= {
        "access-key", "ami", "block-duration-minutes", "device-name", "endpoint",
        "iam-instance-profile", "insecure-transport", "instance-type", "keypair-name",
        "monitoring", "open-port", "private-address-only", "region", "request-spot-instance",
        "retries", "root-size", "secret-key", "security-group", "security-group-readonly",
        "session-token", "spot-price", "ssh-keypath", "ssh-port", "ssh-user", "subnet-id", "tags",
        "use-ebs-optimized-instance", "use-private-address", "userdata", "volume-type", "vpc-id",
        "zone",
        "encrypt-ebs-volume", "kms-key", "http-endpoint", "http-tokens", "http-protocol-ipv6",
        "ipv6-address-count", "enable-primary-ipv6", "ipv6-address-only",
    }  # fmt: skip
    assert {spec.name for spec in OPTIONS if spec.secret} == {
        "access-key", "secret-key", "session-token",
    }  # fmt: skip


def test_endpoint_and_region(tmp_path: Path) -> None:
    def asked(**given: Value) -> str | None:
        named = {name.replace("_", "-"): value for name, value in given.items()}
        return endpoint(context(tmp_path, OPTIONS, named))

    assert asked() is None
    assert asked(endpoint="ec2.example.com") == "https://ec2.example.com"
    assert asked(endpoint="ec2.example.com", insecure_transport=True) == "http://ec2.example.com"
    assert asked(endpoint="http://127.0.0.1:5000") == "http://127.0.0.1:5000"
    ctx = context(tmp_path, OPTIONS, {"region": "eu-west-1"})
    assert region(ctx, "ap-south-1") == "eu-west-1"
    assert region(context(tmp_path, OPTIONS, {}), "ap-south-1") == "ap-south-1"
    assert region(context(tmp_path, OPTIONS, {}), "") == "us-east-1"
    made = dataclasses.replace(ctx, state={"region": "us-west-2"})
    assert region(made, "") == "us-west-2", "where it was made is where it is"
