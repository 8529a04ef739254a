import json

import pytest

from agent.errors import EngineError
from agent.runtime import capabilities, seccomp


def allowed(capability_names=capabilities.DEFAULT, machine="x86_64") -> set[str]:
    rules = seccomp.default(capability_names, machine)["syscalls"]
    assert isinstance(rules, list)
    return {
        name
        for rule in rules
        if rule["action"] == seccomp.ALLOW and "args" not in rule
        for name in rule["names"]
    }


def test_default_denies_with_eperm():
    document = seccomp.default(capabilities.DEFAULT, "x86_64")
    assert (document["defaultAction"], document["defaultErrnoRet"]) == (seccomp.ERRNO, 1)
    assert document["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]


def test_dangerous_calls_are_denied_by_default():
    never = {
        "mount",
        "umount2",
        "unshare",
        "setns",
        "bpf",
        "keyctl",
        "add_key",
        "request_key",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "userfaultfd",
        "fsopen",
        "open_tree",
        "move_mount",
        "kexec_load",
        "init_module",
        "ptrace_x",
        "perf_event_open",
        "open_by_handle_at",
        "reboot",
        "swapon",
        "pivot_root",
        "quotactl",
        "clone",
        "clone3",
    }
    assert not allowed() & never
    assert {"read", "chroot", "ptrace", "openat2", "arch_prctl"} <= allowed()


def test_capabilities_open_calls():
    assert {"mount", "unshare", "clone", "clone3"} <= allowed({"CAP_SYS_ADMIN"})
    assert "chroot" not in allowed(set())
    assert "arch_prctl" not in allowed(machine="aarch64")


def rules_for(name: str, capability_names=capabilities.DEFAULT):
    rules = seccomp.default(capability_names, "x86_64")["syscalls"]
    assert isinstance(rules, list)
    return [rule for rule in rules if rule["names"] == [name]]


def test_clone3_says_no_such_call():
    assert rules_for("clone3") == [{"names": ["clone3"], "action": seccomp.ERRNO, "errnoRet": 38}]
    assert rules_for("clone3", {"CAP_SYS_ADMIN"}) == []


def test_clone_only_without_namespaces():
    assert rules_for("clone")[0]["args"] == [
        {"index": 0, "value": 0x7E020000, "op": "SCMP_CMP_MASKED_EQ"}
    ]


def test_socket_families():
    below, *single = rules_for("socket")
    assert below["args"][0] == {"index": 0, "value": 12, "op": "SCMP_CMP_LT"}
    families = {rule["args"][0]["value"] for rule in single}
    assert not families & {38, 40}  # AF_ALG, AF_VSOCK
    assert {16, 17} <= families  # AF_NETLINK, AF_PACKET


def test_custom_profile_resolves_conditions():
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["a"], "action": "X", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["b"], "action": "X", "excludes": {"arches": ["amd64"]}},
            {"name": "c", "action": "X", "args": None},
        ],
    }
    found = seccomp.custom(json.dumps(profile), (), "x86_64")
    assert found["syscalls"] == [{"names": ["c"], "action": "X"}]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"defaultAction":"x","syscalls":3}'])
def test_malformed_profiles(text: str):
    with pytest.raises(EngineError):
        seccomp.custom(text, (), "x86_64")
