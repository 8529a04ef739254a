"""What a machine is to be."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from drivers.api import DriverContext
from drivers.errors import CannotError, InvalidError, QuotaError
from drivers.options import Value
from drivers.testkit import UUID, context
from drivers.virtualbox import plan
from drivers.virtualbox.options import OPTIONS
from drivers.virtualbox.texts import Forward, HostOnly


def ctx(given: Mapping[str, Value | None] | None = None) -> DriverContext:
    return context(Path("/f"), OPTIONS, given or {})


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"boot2docker-url": "https://x"}, "--virtualbox-boot2docker-url is for boot2docker"),
        ({"import-boot2docker-vm": "vm"}, "give --virtualbox-image a cloud image"),
        ({"nat-nictype": "rtl8139"}, "--virtualbox-nat-nictype rtl8139: there is virtio"),
        ({"hostonly-nictype": "x"}, "--virtualbox-hostonly-nictype x"),
        ({"hostonly-nicpromisc": "maybe"}, "deny, allow-vms, allow-all"),
        ({"ui-type": "vnc"}, "--virtualbox-ui-type vnc"),
        ({"cpu-count": 0}, "1 or more, or -1"),
        ({"cpu-count": -2}, "1 or more, or -1"),
        ({"memory": 4}, "64 MiB at least"),
        ({"disk-size": 0}, "1 MiB at least"),
        ({"hostonly-cidr": "no"}, "--virtualbox-hostonly-cidr no"),
        ({"hostonly-cidr": "192.168.56.0/24"}, "this computer's own address"),
        ({"hostonly-cidr": "192.168.56.1/30"}, "with room"),
        ({"modify": ("--cpus 3",)}, "is not NAME=VALUE"),
        ({"ssh-user": "Root"}, "is no user name"),
        ({"share-folder": "/home"}, "is not DIRECTORY:NAME"),
        ({"share-folder": "/home:a/b"}, "is not DIRECTORY:NAME"),
    ],
)
def test_problems(given: dict[str, Value | None], problem: str) -> None:
    (found,) = plan.problems(ctx(given))
    assert problem in found


def test_all_problems_are_told_at_once() -> None:
    assert len(plan.problems(ctx({"cpu-count": 0, "memory": 1, "ui-type": "x"}))) == 3


@pytest.mark.parametrize(
    "given",
    [{}, {"hostonly-cidr": "x", "no-hostonly": True}, {"share-folder": "x", "no-share": True}],
)
def test_no_problems(given: dict[str, Value | None]) -> None:
    assert plan.problems(ctx(given)) == []


def test_shared_folders() -> None:
    assert plan.share(ctx({"share-folder": "/a:b:users"})) == ("/a:b", "users")
    assert plan.share(ctx({"share-folder": "here:x"})) == (str(Path.cwd() / "here"), "x")
    assert plan.share(ctx({"share-folder": "/home:home", "no-share": True})) is None
    assert plan.share(ctx()) is None


def test_createvm() -> None:
    argv = plan.created(ctx(), "amd64")
    assert argv == [
        "--name", "conformance", "--uuid", UUID, "--basefolder", "/f/vm", "--ostype", "Debian_64",
        "--register",
    ]  # fmt: skip
    assert "--platform-architecture" in plan.created(ctx(), "arm64")
    assert plan.architecture("aarch64") == plan.architecture("ARM64") == "arm64"
    assert plan.architecture("x86_64") == "amd64"


def _pairs(argv: list[str]) -> dict[str, str]:
    return {name: argv[i + 1] for i, name in enumerate(argv[:-1]) if name.startswith("--")}


def test_hardware() -> None:
    given: dict[str, Value | None] = {
        "cpu-count": -1,
        "memory": 2048,
        "no-dns-proxy": True,
        "modify": ("vram=32", "x=a=b"),
    }
    argv = plan.hardware(ctx(given), "amd64", 8, "/f/console.log")
    told = _pairs(argv)
    assert told["--cpus"] == "8"
    assert told["--memory"] == "2048"
    assert told["--natdnsproxy1"] == "off"
    assert told["--natdnshostresolver1"] == "off"
    assert told["--nat-localhostreachable1"] == "off"
    assert told["--uartmode1"] == "file"
    assert argv[-4:] == ["--vram", "32", "--x", "a=b"]
    assert "--firmware" not in _pairs(plan.hardware(ctx(), "arm64", 8, "/c"))
    assert _pairs(plan.hardware(ctx(), "arm64", 8, "/c"))["--cpus"] == "1"


def test_ports_are_the_machines_own_and_free() -> None:
    drop, add = plan.missing_forwards(UUID, {}, lambda _: True)
    assert drop == []
    ports = [int(rule.split(",")[3]) for rule in add]
    assert [rule.split(",")[0] for rule in add] == ["ssh", "engine"]
    assert add == [
        f"ssh,tcp,127.0.0.1,{ports[0]},,22",
        f"engine,tcp,127.0.0.1,{ports[1]},,{ports[1]}",
    ]
    assert ports[0] != ports[1]
    assert all(20000 <= port < 32000 for port in ports)
    other = plan.missing_forwards(UUID[::-1], {}, lambda _: True)[1]
    assert other != add


def test_ports_that_became_someone_elses_are_changed() -> None:
    have = {
        "ssh": Forward("ssh", "127.0.0.1", 21000, 22),
        "engine": Forward("engine", "127.0.0.1", 21001, 21001),
        "mine": Forward("mine", "", 8080, 80),
    }
    assert plan.missing_forwards(UUID, have, lambda _: True) == ([], [])
    drop, add = plan.missing_forwards(UUID, have, lambda port: port != 21001)
    assert drop == ["engine"]
    (rule,) = add
    assert rule.startswith("engine,tcp,127.0.0.1,")
    assert ",21001," not in rule
    with pytest.raises(QuotaError, match="no free port"):
        plan.missing_forwards(UUID, {}, lambda _: False)


def _adapter(name: str, address: str) -> HostOnly:
    return HostOnly(name, address, "255.255.255.0", f"HostInterfaceNetworking-{name}", dhcp=False)


def test_the_adapter_of_that_address_is_used() -> None:
    have = [_adapter("vboxnet0", "192.168.57.1"), _adapter("vboxnet1", "192.168.56.1")]
    assert plan.adapter(have, "192.168.56.1/24") == have[1]
    assert plan.adapter(have, "192.168.58.1/24") is None
    assert plan.adapter([_adapter("new", "")], "192.168.56.1/24") is None
    with pytest.raises(CannotError, match=r"vboxnet1 has .*, which overlaps"):
        plan.adapter(have, "192.168.56.9/24")


def test_the_pool_leaves_room_for_the_computer_and_the_server() -> None:
    assert plan.pool("192.168.56.1/24") == (
        "192.168.56.2", "255.255.255.0", "192.168.56.65", "192.168.56.254",
    )  # fmt: skip
    assert plan.pool("10.0.0.2/29")[0] == "10.0.0.3"


def test_each_machine_has_an_address_of_its_own() -> None:
    first = plan.fixed_address("192.168.56.1/24", UUID, [])
    assert first == plan.fixed_address("192.168.56.1/24", UUID, [])
    second = plan.fixed_address("192.168.56.1/24", UUID, [first])
    assert second != first
    for address in (first, second):
        assert 65 <= int(address.rpartition(".")[2]) <= 254
    taken = [f"10.0.0.{n}" for n in range(8)]
    with pytest.raises(QuotaError, match="no address left"):
        plan.fixed_address("10.0.0.1/29", UUID, taken)


def test_labels() -> None:
    assert plan.check_label("before-upgrade_1.0") == "before-upgrade_1.0"
    for label in ("", "a b", "--all", "ä"):
        with pytest.raises(InvalidError):
            plan.check_label(label)
