"""The system call filter: our default profile resolved for a capability set, or the user's own.

`seccomp.json` states, in our own short form, what Docker Engine's default profile does.  It and
profiles of users (docker's JSON with includes and excludes) both end as an OCI runtime-spec
`linux.seccomp` object, which knows no conditions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, Final

from agent.errors import invalid

ALLOW: Final = "SCMP_ACT_ALLOW"
ERRNO: Final = "SCMP_ACT_ERRNO"
_ENOSYS = 38
_GO_ARCHES: Final = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "riscv64": "riscv64",
    "s390x": "s390x",
    "ppc64le": "ppc64le",
    "loongarch64": "loong64",
}
Document = dict[str, object]


@cache
def _data() -> Mapping[str, Any]:
    path = os.path.join(os.path.dirname(__file__), "seccomp.json")
    with open(path, encoding="utf-8") as file:
        data: Mapping[str, Any] = json.load(file)
    return data


def _rule(names: list[str], *conditions: tuple[int, int, str, int]) -> Document:
    rule: Document = {"names": names, "action": ALLOW}
    if conditions:
        rule["args"] = [
            {"index": index, "value": value, "op": op, **({"valueTwo": two} if two else {})}
            for index, value, op, two in conditions
        ]
    return rule


def default(capabilities: Collection[str], machine: str) -> Document:
    """linux.seccomp for `machine` (uname -m) when the container has `capabilities`."""
    data = _data()
    names = set(data["allow"]) | set(data["allow_on"].get(machine, ()))
    for capability, gated in data["allow_with"].items():
        if capability in capabilities:
            names.update(gated)
    rules = [_rule(sorted(names))]
    rules.append(_rule(["socket"], (0, data["socket_families_below"], "SCMP_CMP_LT", 0)))
    rules += [_rule(["socket"], (0, n, "SCMP_CMP_EQ", 0)) for n in data["socket_families"]]
    rules += [_rule(["personality"], (0, n, "SCMP_CMP_EQ", 0)) for n in data["personality"]]
    if "CAP_SYS_ADMIN" not in capabilities:
        flags = data["clone_namespace_flags"]
        first = 1 if machine == "s390x" else 0  # s390 has clone's two first parameters swapped
        # MASKED_EQ: value is the mask, valueTwo (left out: 0) the wanted result.
        rules.append(_rule(["clone"], (first, flags, "SCMP_CMP_MASKED_EQ", 0)))
        # clone3's flags are behind a pointer: "no such call" makes libc use clone instead.
        rules.append({"names": ["clone3"], "action": ERRNO, "errnoRet": _ENOSYS})
    return {
        "defaultAction": ERRNO,
        "defaultErrnoRet": data["default_errno"],
        "architectures": list(data["architectures"].get(machine, ())),
        "syscalls": rules,
    }


def custom(text: str, capabilities: Collection[str], machine: str) -> Document:
    """A profile in docker's JSON form (`--security-opt seccomp=...`).  INVALID when malformed."""
    try:
        profile = json.loads(text)
    except ValueError as error:
        raise invalid(f"Decoding seccomp profile failed: {error}") from error
    if not isinstance(profile, dict) or not isinstance(profile.get("defaultAction"), str):
        raise invalid("Decoding seccomp profile failed: no defaultAction")
    result: Document = {"defaultAction": profile["defaultAction"]}
    if isinstance(profile.get("defaultErrnoRet"), int):
        result["defaultErrnoRet"] = profile["defaultErrnoRet"]
    result["architectures"] = profile.get("architectures") or list(
        _data()["architectures"].get(machine, ())
    )
    rules = profile.get("syscalls") or []
    if not isinstance(rules, list):
        raise invalid("Decoding seccomp profile failed: syscalls is not a list")
    result["syscalls"] = [_plain(rule) for rule in rules if _applies(rule, capabilities, machine)]
    return result


def _applies(rule: object, capabilities: Collection[str], machine: str) -> bool:
    if not isinstance(rule, dict):
        raise invalid("Decoding seccomp profile failed: a syscalls entry is not an object")
    arch = _GO_ARCHES.get(machine, machine)
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    if includes.get("arches") and arch not in includes["arches"]:
        return False
    if not set(includes.get("caps") or ()) <= set(capabilities):
        return False
    if arch in (excludes.get("arches") or ()):
        return False
    return not set(excludes.get("caps") or ()) & set(capabilities)


def _plain(rule: Mapping[str, object]) -> Document:
    names = rule.get("names") or ([rule["name"]] if rule.get("name") else [])
    plain: Document = {"names": names, "action": rule.get("action")}
    if rule.get("args"):
        plain["args"] = rule["args"]
    if rule.get("errnoRet") is not None:
        plain["errnoRet"] = rule["errnoRet"]
    return plain
