import json
from dataclasses import replace
from pathlib import Path

import pytest

from agent.engine import capnames
from agent.engine.model import (
    Container,
    ContainerConfig,
    ExecConfig,
    HostConfig,
    MountPoint,
    Resources,
    Ulimit,
)
from agent.engine.ports import Launch, Rootfs
from agent.errors import EngineError
from agent.runtime import capabilities, spec
from agent.runtime.spec_linux import DeviceNode, device_rules, resources
from agent.runtime.spec_mounts import check_target
from agent.runtime.users import Identity

GOLDEN = Path(__file__).parent / "golden"
FACTS = spec.HostFacts(
    machine="x86_64",
    capabilities=capnames.ALL,
    unified=True,
    swap_limit=True,
    thermal=("/sys/devices/system/cpu/cpu0/thermal_throttle",),
    host_devices=(DeviceNode("/dev/fuse", "c", 10, 229, 0o666),),
    init="/usr/bin/tini",
)
ROOT = Identity(0, 0, (0,), "/root")


PLAIN = HostConfig()


def launch(host: HostConfig = PLAIN, mounts=(), network="private", **config) -> Launch:
    container = Container(
        id="c" * 64,
        name="web",
        created=0,
        config=ContainerConfig(**config),
        host_config=host,
        image_id="sha256:0",
        image_ref="busybox",
        path="sh",
        args=("-c", "true"),
    )
    return Launch(
        container,
        Rootfs(("/l1",), "/u", "/w"),
        "web1",
        "/e/hosts",
        "/e/hostname",
        "/e/resolv.conf",
        network,
        mounts,
    )


def build(made: Launch, facts: spec.HostFacts = FACTS, identity: Identity = ROOT):
    return spec.build(made, spec.Resolved(identity, "/machine/" + "c" * 64), facts)


CASES = {
    "default": launch(),
    "privileged": launch(HostConfig(privileged=True)),
    "limits": launch(
        HostConfig(
            readonly_rootfs=True,
            cap_drop=("ALL",),
            cap_add=("net_admin",),
            tmpfs={"/run": "size=1m,exec"},
            init=True,
            sysctls={"net.core.somaxconn": "10"},
            resources=Resources(
                memory=64 << 20, nano_cpus=1_500_000_000, pids_limit=20,
                ulimits=(Ulimit("nofile", 10, 20),),
            ),
        ),
        mounts=(
            MountPoint("volume", "/data/deep", "/v/deep"),
            MountPoint("bind", "/data", "/v/data", read_write=False),
        ),
        tty=True,
        env=("A=1", "PATH"),
        working_dir="/srv",
    ),
    "host": launch(HostConfig(pid_mode="host", ipc_mode="host", uts_mode="host"), network="host"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str):
    text = json.dumps(build(CASES[name]), indent=1) + "\n"
    path = GOLDEN / f"{name}.json"
    assert path.exists(), "write the golden file after reading what is in it"
    assert json.loads(path.read_text()) == json.loads(text)


def test_case_046_no_annotations():
    made = launch(HostConfig(annotations={"run.oci.handler": "krun"}), labels={"run.oci.x": "y"})
    assert "annotations" not in build(made)


def test_case_051_capabilities_of_a_normal_user():
    process = build(launch(), identity=Identity(1000, 1000, (1000,), "/"))["process"]
    sets = process["capabilities"]
    assert set(sets["bounding"]) == set(capabilities.DEFAULT)
    assert len(sets["bounding"]) == 14
    assert sets["effective"] == sets["permitted"] == []
    assert "ambient" not in sets
    assert "inheritable" not in sets


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ((), ("ALL",), set()),
        (("SYS_TIME",), ("ALL",), {"CAP_SYS_TIME"}),
        (("cap_sys_time",), ("CHOWN",), {*capabilities.DEFAULT, "CAP_SYS_TIME"} - {"CAP_CHOWN"}),
        (("ALL",), ("MKNOD",), {*capnames.ALL} - {"CAP_MKNOD"}),
    ],
)
def test_cap_add_and_drop(add, drop, expected):
    found = capabilities.resolve(add, drop, privileged=False, available=capnames.ALL)
    assert set(found) == expected


def test_unknown_capability():
    with pytest.raises(EngineError, match="unknown capability"):
        capabilities.resolve(("NOPE",), (), privileged=False, available=())


def test_nobody_gives_what_he_has_not():
    few = ("CAP_CHOWN",)
    assert capabilities.resolve((), (), privileged=True, available=few) == ["CAP_CHOWN"]


@pytest.mark.parametrize(
    "path", ["/proc/self/fd/7", "//proc/1/cwd", "/x/../proc/thread-self/root", "proc/3/task/3/cwd"]
)
def test_case_042_working_directory_through_proc(path: str):
    with pytest.raises(EngineError, match="leads out of the container"):
        build(launch(working_dir=path))


def test_working_directory_is_clean():
    assert spec.working_directory("") == "/"
    assert spec.working_directory("a//b/../c/") == "/a/c"
    assert spec.working_directory("/proc/self/fd/7/../..") == "/proc/self"


@pytest.mark.parametrize(
    "target", ["/", "relative", "/a/../..", "..", "/a/", "/proc", "/proc/self/attr", "/a\0b", ""]
)
def test_case_054_mount_destinations(target: str):
    with pytest.raises(EngineError):
        check_target(target, privileged=False)


def test_case_053_masks():
    linux = build(launch())["linux"]
    assert "/proc/interrupts" in linux["maskedPaths"]
    assert FACTS.thermal[0] in linux["maskedPaths"]
    assert linux["readonlyPaths"] == list(spec.READ_ONLY)
    assert "maskedPaths" not in build(launch(HostConfig(privileged=True)))["linux"]
    assert build(launch(HostConfig(masked_paths=())))["linux"]["maskedPaths"] == []


def test_security_options():
    assert spec.security_options(["no-new-privileges"]).no_new_privileges
    assert spec.security_options(["no-new-privileges:true"]).no_new_privileges
    assert not spec.security_options(["no-new-privileges=false"]).no_new_privileges
    linux = build(launch(HostConfig(security_opt=("seccomp=unconfined",))))["linux"]
    assert "seccomp" not in linux
    with pytest.raises(EngineError, match="security-opt"):
        spec.security_options(["nonsense=1"])


def test_swap_rule():
    def memory(limits: Resources, swap: bool = True):
        return resources(limits, swap_limit=swap, unified=False)["memory"]

    assert memory(Resources(memory=10)) == {"limit": 10, "swap": 20}
    assert memory(Resources(memory=10, memory_swap=-1)) == {"limit": 10, "swap": -1}
    assert memory(Resources(memory=10, memory_swap=15)) == {"limit": 10, "swap": 15}
    assert memory(Resources(memory=10), swap=False) == {"limit": 10}
    assert resources(Resources(), swap_limit=True, unified=True) == {}


def test_device_rules_deny_first():
    rules = device_rules((DeviceNode("/dev/x", "c", 4, 5, 0o600, access="r"),), privileged=False)
    assert rules[0] == {"allow": False, "access": "rwm"}
    assert rules[-1] == {"allow": True, "type": "c", "major": 4, "minor": 5, "access": "r"}


def test_init_that_is_missing_names_the_package():
    with pytest.raises(EngineError, match="tini"):
        build(launch(HostConfig(init=True)), replace(FACTS, init=""))


def test_host_network_refuses_net_sysctls():
    with pytest.raises(EngineError, match="sysctl"):
        build(launch(HostConfig(sysctls={"net.x": "1"}), network="host"))


def test_exec_process_takes_the_containers_and_its_own_environment():
    made = launch(env=("A=1", "B=2")).container
    document = spec.exec_process(
        made, ExecConfig(("id",), env=("B=3",), tty=True), ROOT, FACTS, "web1"
    )
    env = document["env"]
    assert isinstance(env, list)
    assert {"A=1", "B=3", "TERM=xterm", "HOME=/root"} <= set(env)
    assert "rlimits" not in document
    limited = launch(HostConfig(resources=Resources(ulimits=(Ulimit("nofile", 1, 2),)))).container
    defaults = (Ulimit("nofile", 9, 9), Ulimit("core", 0, 0))
    again = spec.exec_process(limited, ExecConfig(("id",)), ROOT, FACTS, "web1", defaults)
    assert again["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
