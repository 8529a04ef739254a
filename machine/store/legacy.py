"""docker-machine's config.json (ConfigVersion 3): read, and shown by `inspect`. Pure.

Field names and their order are docker-machine's (reference section 4.4), because scripts read
`{{.Driver.IPAddress}}` and the like.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Final

from machine.errors import CorruptRecordError, MachineError
from machine.model import (
    DEFAULT_ENGINE_PORT,
    AuthFiles,
    EngineOptions,
    MachineRecord,
    Phase,
    SshEndpoint,
)

KNOWN_VERSION: Final = 3
_NAMESPACE: Final = uuid.UUID("5b6f2f3e-8d0c-5c0e-9b55-7a1f1f0f6d11")


def decode(doc: Mapping[str, object], name: str) -> MachineRecord:
    """docker-machine's record as ours; `imported` is set and nothing is rewritten by reading."""
    version = doc.get("ConfigVersion")
    driver_name = doc.get("DriverName")
    if not isinstance(version, int) or not isinstance(driver_name, str):
        raise CorruptRecordError("corrupt record: neither ours nor docker-machine's")
    if version > KNOWN_VERSION:
        raise MachineError("config version is from the future, please upgrade your machine client")
    if version < KNOWN_VERSION:
        raise MachineError(
            f"config version {version} of docker-machine is too old to read",
            hint="Let docker-machine 0.16 migrate it first (docker-machine ls).",
        )
    driver = _map(doc, "Driver")
    options = _map(doc, "HostOptions")
    auth = _map(options, "AuthOptions")
    address = _text(driver, "IPAddress")
    return MachineRecord(
        name=name,
        # the same record always gives the same identity, without writing anything
        uuid=str(uuid.uuid5(_NAMESPACE, f"{driver_name}/{name}/{address}")),
        driver=driver_name,
        created="",
        phase=Phase.READY,
        driver_options=_options(driver_name, driver, address),
        engine=_engine(_map(options, "EngineOptions")),
        auth=AuthFiles(sans=_texts(auth, "ServerCertSANs")),
        ssh=_ssh(driver, address),
        address=address,
        engine_port=_number(driver, "EnginePort", DEFAULT_ENGINE_PORT),
        imported=True,
    )


def _options(kind: str, driver: Mapping[str, object], address: str) -> dict[str, object]:
    if kind != "generic":
        return {}
    return {
        "ip-address": address,
        # SSHKeyPath is the store's own copy; SSHKey, where it was copied from, may be long gone
        "ssh-key": _text(driver, "SSHKeyPath") or _text(driver, "SSHKey"),
        "ssh-port": _number(driver, "SSHPort", 22),
        "ssh-user": _text(driver, "SSHUser") or "root",
        "engine-port": _number(driver, "EnginePort", DEFAULT_ENGINE_PORT),
    }


def _ssh(driver: Mapping[str, object], address: str) -> SshEndpoint | None:
    if not address:
        return None
    return SshEndpoint(
        host=address,
        port=_number(driver, "SSHPort", 22),
        user=_text(driver, "SSHUser") or "root",
        key_path=_text(driver, "SSHKeyPath") or None,
    )


def _engine(doc: Mapping[str, object]) -> EngineOptions:
    return EngineOptions(
        labels=_texts(doc, "Labels"),
        registry_mirrors=_texts(doc, "RegistryMirror"),
        insecure_registries=_texts(doc, "InsecureRegistry"),
        storage_driver=_text(doc, "StorageDriver"),
        opts=_texts(doc, "ArbitraryFlags"),
        env=_texts(doc, "Env"),
        install_url=_text(doc, "InstallURL"),
    )


def _map(doc: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = doc.get(key)
    return value if isinstance(value, dict) else {}


def _text(doc: Mapping[str, object], key: str) -> str:
    value = doc.get(key)
    return value if isinstance(value, str) else ""


def _number(doc: Mapping[str, object], key: str, default: int) -> int:
    value = doc.get(key)
    good = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536
    return int(str(value)) if good else default


def _texts(doc: Mapping[str, object], key: str) -> tuple[str, ...]:
    value = doc.get(key)
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list) else ()


def document(record: MachineRecord, machine_dir: str, certs_dir: str) -> dict[str, object]:
    """What docker-machine's `inspect` would print for this record (its keys, its order)."""
    return {
        "ConfigVersion": KNOWN_VERSION,
        "Driver": _driver_document(record, machine_dir),
        "DriverName": record.driver,
        "HostOptions": {
            "Driver": "",
            "Memory": 0,
            "Disk": 0,
            "EngineOptions": _engine_document(record),
            "SwarmOptions": _swarm_document(),
            "AuthOptions": _auth_document(record, machine_dir, certs_dir),
        },
        "Name": record.name,
    }


def _driver_document(record: MachineRecord, machine_dir: str) -> dict[str, object]:
    ssh = record.ssh
    return {
        "IPAddress": record.address,
        "MachineName": record.name,
        "SSHUser": ssh.user if ssh else "",
        "SSHPort": ssh.port if ssh else 0,
        "SSHKeyPath": (ssh.key_path or "") if ssh else "",
        "StorePath": machine_dir.rsplit("/machines/", 1)[0],
        "SwarmMaster": False,
        "SwarmHost": "",
        "SwarmDiscovery": "",
        "EnginePort": record.engine_port,
        "SSHKey": (ssh.key_path or "") if ssh else "",
        **{str(k): v for k, v in record.driver_state.items()},
    }


def _engine_document(record: MachineRecord) -> dict[str, object]:
    engine = record.engine
    return {
        "ArbitraryFlags": list(engine.opts),
        "Dns": None,
        "GraphDir": "",
        "Env": list(engine.env),
        "Ipv6": False,
        "InsecureRegistry": list(engine.insecure_registries),
        "Labels": list(engine.labels),
        "LogLevel": "",
        "StorageDriver": engine.storage_driver,
        "SelinuxEnabled": False,
        "TlsVerify": True,
        "RegistryMirror": list(engine.registry_mirrors),
        "InstallURL": engine.install_url,
    }


def _swarm_document() -> dict[str, object]:
    return {
        "IsSwarm": False,
        "Address": "",
        "Discovery": "",
        "Agent": False,
        "Master": False,
        "Host": "tcp://0.0.0.0:3376",
        "Image": "swarm:latest",
        "Strategy": "spread",
        "Heartbeat": 0,
        "Overcommit": 0,
        "ArbitraryFlags": [],
        "ArbitraryJoinFlags": [],
        "Env": None,
        "IsExperimental": False,
    }


def _auth_document(record: MachineRecord, machine_dir: str, certs_dir: str) -> dict[str, object]:
    auth = record.auth
    return {
        "CertDir": certs_dir,
        "CaCertPath": auth.ca_cert or f"{certs_dir}/ca.pem",
        "CaPrivateKeyPath": auth.ca_key or f"{certs_dir}/ca-key.pem",
        "CaCertRemotePath": "/etc/machine/tls/ca.pem",
        "ServerCertPath": f"{machine_dir}/server.pem",
        "ServerKeyPath": "",
        "ClientKeyPath": auth.client_key or f"{certs_dir}/key.pem",
        "ServerCertRemotePath": "/etc/machine/tls/server.pem",
        "ServerKeyRemotePath": "/etc/machine/tls/server-key.pem",
        "ClientCertPath": auth.client_cert or f"{certs_dir}/cert.pem",
        "ServerCertSANs": list(auth.sans),
        "StorePath": machine_dir,
    }
