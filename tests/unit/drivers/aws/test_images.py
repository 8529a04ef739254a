"""The newest image, from the calendar and from names."""

import pytest

from drivers.aws.documents import Image
from drivers.aws.images import default_user, first_parameter, newest, search
from drivers.errors import DriverError


def test_long_term_releases_follow_from_the_year() -> None:
    found = search("ubuntu", "x86_64", "eu-west-1", 2027)
    assert found.owner == "099720109477"
    assert [name.split("/")[6] for name in found.parameters] == [
        "26.04", "26.04", "24.04", "24.04", "22.04", "22.04",
    ]  # fmt: skip
    assert found.parameters[0] == (
        "/aws/service/canonical/ubuntu/server/26.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
    )
    assert len(found.parameters) <= 10, "GetParameters takes ten names"


def test_debian_is_looked_for_a_release_ahead() -> None:
    found = search("debian", "arm64", "us-east-1", 2026)
    assert found.parameters == (
        "/aws/service/debian/release/14/latest/arm64",
        "/aws/service/debian/release/13/latest/arm64",
        "/aws/service/debian/release/12/latest/arm64",
    )


@pytest.mark.parametrize(
    ("image", "region", "owner", "first"),
    [
        ("ubuntu-24.04", "us-east-1", "099720109477", "server/24.04/stable/current/amd64"),
        ("ubuntu", "us-gov-west-1", "513442679011", "server/26.04/stable/current/amd64"),
        ("ubuntu", "cn-north-1", "837727238323", "server/26.04/stable/current/amd64"),
        ("debian-12", "us-east-1", "136693071363", "release/12/latest/amd64"),
        ("debian-12", "cn-north-1", "", "release/12/latest/amd64"),
    ],
)
def test_release_and_partition(image: str, region: str, owner: str, first: str) -> None:
    found = search(image, "x86_64", region, 2026)
    assert found.owner == owner
    assert first in found.parameters[0]


@pytest.mark.parametrize(
    ("image", "architecture"),
    [
        ("windows", "x86_64"),
        ("ubuntu-", "x86_64"),
        ("ubuntu", "i386"),
        ("ubuntu-24.04/../x", "arm64"),
    ],
)
def test_other_images_are_refused(image: str, architecture: str) -> None:
    with pytest.raises(DriverError):
        search(image, architecture, "us-east-1", 2026)


def test_the_first_parameter_that_names_an_image() -> None:
    assert first_parameter(["a", "b", "c"], {"c": "ami-3", "b": "ami-2"}) == "ami-2"
    assert first_parameter(["a", "b"], {"a": "hello", "b": "ami-2"}) == "ami-2"
    assert first_parameter(["a"], {}) == ""


def _image(name: str, created: str) -> Image:
    return Image(f"ami-{name}-{created}", name, "x86_64", "/dev/xvda", 8, created)


def test_the_newest_of_the_best_pattern() -> None:
    known = [
        _image("ubuntu-noble-24.04-amd64-server-1", "2026-11-02"),
        _image("ubuntu-r-26.04-amd64-server-1", "2026-10-01"),
        _image("ubuntu-r-26.04-amd64-server-2", "2026-10-02"),
        _image("not-ubuntu-r-26.04-amd64-server-9", "2026-12-02"),
    ]
    found = newest(["ubuntu-*-26.04-amd64-server-*", "ubuntu-*-24.04-amd64-server-*"], known)
    assert found == known[2]
    assert newest(["debian-*"], known) is None
    assert newest(["ubuntu.*"], known) is None, "a dot is a dot"


@pytest.mark.parametrize(
    ("image", "user"), [("ubuntu", "ubuntu"), ("debian-13", "admin"), ("ubuntu-24.04", "ubuntu")]
)
def test_the_login_of_an_image(image: str, user: str) -> None:
    assert default_user(image) == user
