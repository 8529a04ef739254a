"""drivers.digitalocean.things: documents of another shape do not break anything."""

import pytest

from drivers.digitalocean import things


def test_a_droplet() -> None:
    found = things.droplet(
        {
            "id": 7,
            "name": "web",
            "status": "active",
            "locked": False,
            "tags": ["a"],
            "size_slug": "s-1vcpu-1gb",
            "disk": 25,
            "networks": {
                "v4": [
                    {"ip_address": "10.1.0.2", "type": "private"},
                    {"ip_address": "203.0.113.9", "type": "public"},
                ],
                "v6": [],
            },
        }
    )
    expected = things.Droplet(
        ident=7,
        name="web",
        status="active",
        locked=False,
        tags=("a",),
        address="203.0.113.9",
        size="s-1vcpu-1gb",
        disk=25,
    )
    assert found == expected


@pytest.mark.parametrize("networks", [None, [], {}, {"v4": None}, {"v4": [None, {}]}])
def test_a_droplet_without_an_address_yet(networks: object) -> None:
    assert things.droplet({"id": 7, "networks": networks}).address == ""


def test_a_volume_says_where_it_is() -> None:
    document = {"id": "u", "name": "v", "region": {"slug": "fra1"}, "droplet_ids": [3, None]}
    assert things.volume(document) == things.Volume("u", "v", "fra1", (3,), ())
    assert things.volume({"id": "u", "region": None}).region == ""


def test_a_number_is_never_a_flag() -> None:
    assert things.number({"disk": True}, "disk") == 0
