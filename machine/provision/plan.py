"""From facts and wishes to steps. Pure: a plan is a value, and all problems are named at once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Final

from machine.config import CLOCK_SKEW_LIMIT
from machine.model import EngineOptions
from machine.provision.facts import Facts, Init, kernel_version

ARCHITECTURES: Final = frozenset(
    {"x86_64", "aarch64", "riscv64", "ppc64le", "s390x", "loongarch64"}
)
LEAST_KERNEL: Final = (5, 6)  # openat2(2), which the unpacker is confined by
LEAST_DISK_VAR: Final = 512 * 1024  # KiB
LEAST_DISK_OPT: Final = 64 * 1024
PACKAGE_DISK: Final = 300 * 1024  # KiB more when packages have to be installed

CONFIG: Final = "/etc/machine/agent.json"
TLS: Final = "/etc/machine/tls"

# The order in which a host's package managers are looked for: apk before apt-get would be wrong on
# Debian with apk-tools, and dnf is what yum is a link to.
MANAGERS: Final = ("apt-get", "dnf", "yum", "zypper", "pacman", "apk")

# need -> package, per manager; "" means that the name is the need's own.
_PACKAGES: Final[Mapping[str, Mapping[str, str]]] = {
    "apt-get": {"python3": "python3", "nft": "nftables", "ca": "ca-certificates", "init": "tini"},
    "dnf": {"python3": "python3.11", "nft": "nftables", "ca": "ca-certificates", "init": ""},
    "yum": {"python3": "python3.11", "nft": "nftables", "ca": "ca-certificates", "init": ""},
    "zypper": {
        "python3": "python311",
        "nft": "nftables",
        "ca": "ca-certificates",
        "init": "catatonit",
    },
    "pacman": {
        "python3": "python",
        "nft": "nftables",
        "ca": "ca-certificates",
        "init": "catatonit",
    },
    "apk": {"python3": "python3", "nft": "nftables", "ca": "ca-certificates", "init": "tini"},
}
# Distributions whose plain python3 is too old have a newer one beside it.
_NEWER_PYTHON: Final[Mapping[str, str]] = {
    "ubuntu 22.04": "python3.11",
    "fedora": "python3",
}


_ENGINE_OPTS: Final = frozenset(
    {
        "allow-imds",
        "bip",
        "data-root",
        "debug",
        "dns",
        "insecure-registry",
        "live-restore",
        "log-level",
        "mtu",
    }
    | {"registry-mirror"}
)


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asked for."""

    machine: str
    uuid: str
    store_id: str
    address: str
    port: int
    listen: str  # address that the engine listens on
    engine: EngineOptions
    driver: str
    names: tuple[str, ...]  # of the server certificate, for the agent's Host check
    bundle: str  # folder name of the agent: agent-<hash>
    new_certificate: bool = False
    take_over: bool = False
    now: float = 0.0
    others: frozenset[str] = frozenset()  # uuids of the store's other machines


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What one provisioning does, in this order: packages, bundle, config, certificate, service."""

    manager: str  # "" when nothing has to be installed
    packages: tuple[str, ...]
    python: str  # path to run the agent with
    send_bundle: bool
    config: Mapping[str, object]
    owner: Mapping[str, object]
    subject: str  # common name in the certificate request
    new_certificate: bool
    init: Init
    bundle: str
    port: int
    environment: tuple[str, ...]  # of the agent: K=V


def problems(facts: Facts, wanted: Wanted) -> list[str]:
    """Everything that makes the host unsuitable, at once (case 145). [] when it will do."""
    found = [*_privilege(facts), *_platform(facts), *_room(facts)]
    found += _port_taken(facts, wanted) + _clock(facts, wanted) + _owned(facts, wanted)
    if _needs(facts) and not _manager(facts):
        found.append(
            f"{', '.join(_needs(facts))} missing, and none of {', '.join(MANAGERS)} is there to install them"
        )
    found += _options(wanted)
    return found


def make(facts: Facts, wanted: Wanted) -> Plan:
    """The plan for a host without problems."""
    needs = _needs(facts)
    manager = _manager(facts) if needs else ""
    optional = ("init",) if needs and not _init_binary(facts) else ()
    return Plan(
        manager=manager,
        packages=_package_names(facts, manager, (*needs, *optional)) if manager else (),
        python=facts.python or _python_after(facts, manager),
        send_bundle=facts.bundle != wanted.bundle,
        config=_config(wanted),
        owner={
            "store_id": wanted.store_id,
            "machine": wanted.machine,
            "uuid": wanted.uuid,
            "port": wanted.port,
        },
        subject=wanted.machine,
        new_certificate=wanted.new_certificate,
        init=facts.init,
        bundle=wanted.bundle,
        port=wanted.port,
        environment=wanted.engine.env,
    )


def _privilege(facts: Facts) -> list[str]:
    if facts.root:
        return []
    if not facts.sudo:
        return ["commands do not run as root there, and there is no sudo"]
    return ["commands do not run as root there, and sudo asks for a password (NOPASSWD is needed)"]


def _platform(facts: Facts) -> list[str]:
    out = []
    if facts.arch not in ARCHITECTURES or facts.bits == "32":
        shown = f"{facts.arch} ({facts.bits} bit)" if facts.bits else facts.arch
        out.append(f"the processor architecture {shown} is not supported")
    if kernel_version(facts.kernel) < LEAST_KERNEL:
        out.append(f"the kernel {facts.kernel} is older than {LEAST_KERNEL[0]}.{LEAST_KERNEL[1]}")
    if facts.root and facts.readonly:
        out.append(f"read-only: {', '.join(facts.readonly)}")
    return out


def _room(facts: Facts) -> list[str]:
    out = []
    wanted_opt = LEAST_DISK_OPT + (PACKAGE_DISK if _needs(facts) else 0)
    for where, free, least in (
        ("/var/lib", facts.disk_var, LEAST_DISK_VAR),
        ("/opt", facts.disk_opt, wanted_opt),
    ):
        if 0 <= free < least:
            out.append(f"{where} has {free // 1024} MiB free, {math.ceil(least / 1024)} are needed")
    return out


def _port_taken(facts: Facts, wanted: Wanted) -> list[str]:
    ours = facts.owner is not None and facts.owner.port == wanted.port
    if wanted.port in facts.listening and not ours:
        return [f"port {wanted.port} is taken by another program (Docker Engine, perhaps)"]
    return []


def _clock(facts: Facts, wanted: Wanted) -> list[str]:
    if not facts.clock or not wanted.now:
        return []
    behind = wanted.now - facts.clock
    if abs(behind) <= CLOCK_SKEW_LIMIT:
        return []
    word = "behind" if behind > 0 else "ahead of"
    text = (
        f"the host's clock is {abs(behind):.0f} s {word} this computer's: certificates would not be "
        "valid there; set one of the clocks"
    )
    return [text]


def _owned(facts: Facts, wanted: Wanted) -> list[str]:
    """A machine that was removed from this store without --uninstall may be created again."""
    owner = facts.owner
    if owner is None or wanted.take_over or owner.uuid == wanted.uuid:
        return []
    if owner.store_id != wanted.store_id:
        return [_owned_text(owner.machine, "another store")]
    return [_owned_text(owner.machine, "this store")] if owner.uuid in wanted.others else []


def _owned_text(machine: str, store: str) -> str:
    return (
        f'the host is already the machine "{machine}" of {store}; remove it there with '
        "`machine rm --uninstall`, or add --take-over to make it yours"
    )


def _options(wanted: Wanted) -> list[str]:
    out = []
    for opt in wanted.engine.opts:
        key, value = _pair(opt)
        if key not in _ENGINE_OPTS:
            known = ", ".join(sorted(_ENGINE_OPTS))
            out.append(f"--engine-opt {key} is not known to this engine (known: {known})")
        elif key == "live-restore" and value != "true":
            out.append("--engine-opt live-restore=false: containers always outlive the engine here")
        elif key == "allow-imds" and value not in {"true", "false"}:
            out.append(f"--engine-opt allow-imds={value} is neither true nor false")
        elif key == "mtu" and not value.isdecimal():
            out.append(f"--engine-opt mtu={value} is no number")
    if wanted.engine.storage_driver not in {"", "overlay2", "overlayfs"}:
        out.append(
            f"--engine-storage-driver {wanted.engine.storage_driver}: only overlay2 is there"
        )
    out += [
        f"--engine-label {label!r} is not KEY=VALUE"
        for label in wanted.engine.labels
        if "=" not in label or any(ord(c) < 32 for c in label)
    ]
    return out


def _needs(facts: Facts) -> tuple[str, ...]:
    has = facts.tools
    out = []
    if not facts.python:
        out.append("python3")
    if "crun" not in has and "runc" not in has:
        out.append("crun")
    if "conmon" not in has:
        out.append("conmon")
    if not facts.libnftables:
        out.append("nft")
    if "openssl" not in has:
        out.append("openssl")
    if not facts.ca_bundle:
        out.append("ca")
    return tuple(out)


def _init_binary(facts: Facts) -> bool:
    return any(name in facts.tools for name in ("tini", "catatonit", "docker-init"))


def _manager(facts: Facts) -> str:
    return next((name for name in MANAGERS if name in facts.tools), "")


def _package_names(facts: Facts, manager: str, needs: tuple[str, ...]) -> tuple[str, ...]:
    table = _PACKAGES[manager]
    out = []
    for need in needs:
        if need == "python3":
            out.append(_python_package(facts, manager))
        else:
            out.append(table.get(need, need))
    return tuple(name for name in out if name)


def _python_package(facts: Facts, manager: str) -> str:
    ident, version = facts.os.get("ID", ""), facts.os.get("VERSION_ID", "")
    for key in (f"{ident} {version}", ident):
        if key in _NEWER_PYTHON:
            return _NEWER_PYTHON[key]
    return _PACKAGES[manager]["python3"]


def _python_after(facts: Facts, manager: str) -> str:
    package = _python_package(facts, manager) if manager else "python3"
    return "/usr/bin/python3.11" if package in {"python3.11", "python311"} else "/usr/bin/python3"


def _config(wanted: Wanted) -> dict[str, object]:
    """agent.json: only keys that agent/config.py knows, and only those that differ from its own."""
    engine = wanted.engine
    pairs = [_pair(o) for o in engine.opts]
    one = dict(pairs)
    config: dict[str, object] = {
        "tcp": {
            "listen": wanted.listen,
            "port": wanted.port,
            "ca": f"{TLS}/ca.pem",
            "cert": f"{TLS}/server.pem",
            "key": f"{TLS}/server-key.pem",
            "names": list(wanted.names),
            "store_id": wanted.store_id,
        },
        "registry_mirrors": [*engine.registry_mirrors, *_all(pairs, "registry-mirror")],
        "insecure_registries": [*engine.insecure_registries, *_all(pairs, "insecure-registry")],
        "labels": [*engine.labels, f"provider={wanted.driver}"],
        "dns": _all(pairs, "dns"),
        "block_metadata": one.get("allow-imds") != "true",  # C36
        "log_level": "debug" if one.get("debug") == "true" else one.get("log-level", "info"),
    }
    bridge: dict[str, object] = {}
    if "bip" in one:
        bridge["bip"] = one["bip"]
    if "mtu" in one:
        bridge["mtu"] = int(one["mtu"])
    if bridge:
        config["bridge"] = bridge
    if "data-root" in one:
        config["root"] = one["data-root"]
    return config


def _all(pairs: list[tuple[str, str]], key: str) -> list[str]:
    return [value for name, value in pairs if name == key]


def _pair(opt: str) -> tuple[str, str]:
    key, _, value = opt.lstrip("-").partition("=")
    return key, value or "true"
