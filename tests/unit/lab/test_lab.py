import os
from pathlib import Path

import pytest

from tests.lab.enter import CgroupMount, Overlay, Root, root_from_json
from tests.lab.errors import LabError
from tests.lab.lab import process_identity
from tests.lab.network import Plug, Subnet, check_name, netns_name
from tests.lab.settings import from_environment


@pytest.mark.parametrize("name", ["", "A", "a.b", "-a", "a" * 32, "../x"])
def test_names_that_would_not_fit_are_refused(name: str) -> None:
    with pytest.raises(LabError, match="bad name"):
        check_name(name)


def test_no_lab_has_a_name_that_begins_as_anothers() -> None:
    assert not netns_name("a-b", "h").startswith(netns_name("a", ""))


def test_the_mac_follows_the_address() -> None:
    subnet = Subnet("x", 3)
    plug = Plug(subnet.switch, "n", subnet.address(11), subnet.gateway)
    assert (plug.ip, plug.mac, plug.port) == ("10.77.3.11", "02:77:0a:4d:03:0b", "port11")


def test_a_root_survives_its_json() -> None:
    overlay = Overlay(("/a", "/b"), "/u", "/w", "/t")
    root = Root(
        overlay,
        ("/sbin/init",),
        {"PATH": "/bin"},
        "h",
        (("/x", "/y"),),
        (overlay,),
        (CgroupMount("cpu", "cgroup", "cpu"),),
        shared=True,
    )
    import json

    assert root_from_json(json.loads(json.dumps(root.to_json()))) == root


def test_a_process_is_itself_only_while_it_lives() -> None:
    mine = process_identity(os.getpid())
    assert mine == process_identity(os.getpid())
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert process_identity(child) is None


def test_settings_come_from_the_environment() -> None:
    assert from_environment({}).cache == Path("/var/cache/machine-lab")
    assert from_environment({"MACHINE_LAB_CACHE": "/x"}).cache == Path("/x")
