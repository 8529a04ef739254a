"""A machine record as JSON and back. Pure.

`Schema` counts our versions. `ConfigVersion` 4 makes docker-machine (which knows 3) say that the
record is "from the future" instead of rewriting it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Final

from machine.errors import CorruptRecordError, MachineError
from machine.model import (
    AuthFiles,
    Deployed,
    EngineOptions,
    JournalEntry,
    MachineRecord,
    Phase,
    SshEndpoint,
    StepStatus,
)
from machine.store import legacy

SCHEMA: Final = 1
CONFIG_VERSION: Final = 4
LIMIT: Final = 1 << 20  # bytes; a record is some KiB
_MAX_DEPTH: Final = 64


def encode(record: MachineRecord) -> bytes:
    """The record's file content (UTF-8 JSON, indented by 4 as docker-machine's)."""
    body = dataclasses.asdict(record)
    body["phase"] = record.phase.value
    body["journal"] = [
        {"step": e.step, "status": e.status.value, "at": e.at} for e in record.journal
    ]
    for key in ("name", "imported"):
        body.pop(key)
    doc = {"ConfigVersion": CONFIG_VERSION, "Schema": SCHEMA, "Name": record.name, **body}
    return (json.dumps(doc, indent=4, ensure_ascii=False) + "\n").encode()


def decode(data: bytes, name: str) -> MachineRecord:
    """The record in `data`, ours or docker-machine's (ConfigVersion 3).

    Raises CorruptRecordError when it can't be one, MachineError when it is from a newer version.
    """
    doc = _document(data)
    version = doc.get("Schema")
    if version is None:
        return legacy.decode(doc, name)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise CorruptRecordError("corrupt record: Schema is not a number")
    if version > SCHEMA:
        raise MachineError(
            f'Machine "{name}" was written by a newer version of this program',
            details=f"Its record has schema {version}; this program knows {SCHEMA}.",
            hint="Upgrade: pip install --upgrade machine",
        )
    try:
        return _record(doc, name)
    except (KeyError, TypeError, ValueError) as err:
        raise CorruptRecordError(f"corrupt record: {type(err).__name__}: {err}") from err


def _document(data: bytes) -> Mapping[str, object]:
    try:
        text = data.decode()
        if _depth(text) > _MAX_DEPTH:
            raise CorruptRecordError("corrupt record: nested too deep")
        doc = json.loads(text)
    except ValueError as err:
        raise CorruptRecordError(f"corrupt record: {err}") from err
    if not isinstance(doc, dict):
        raise CorruptRecordError("corrupt record: not an object")
    return doc


def _depth(text: str) -> int:
    """An upper bound of the nesting: brackets in strings count too, which a record has none of."""
    depth = deepest = 0
    for c in text:
        if c in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif c in "]}":
            depth -= 1
    return deepest


def _record(doc: Mapping[str, object], name: str) -> MachineRecord:
    ssh = doc["ssh"]
    return MachineRecord(
        name=name,
        uuid=_text(doc, "uuid"),
        driver=_text(doc, "driver"),
        created=_text(doc, "created"),
        phase=Phase(_text(doc, "phase")),
        driver_options=_map(doc, "driver_options"),
        driver_state=_map(doc, "driver_state"),
        engine=_engine(_map(doc, "engine")),
        auth=_auth(_map(doc, "auth")),
        ssh=None if ssh is None else _ssh(_map(doc, "ssh")),
        address=_text(doc, "address"),
        engine_port=_port(doc, "engine_port"),
        local=_flag(doc, "local"),
        deployed=_deployed(_map(doc, "deployed")),
        journal=tuple(_entry(e) for e in _list(doc, "journal")),
    )


def _engine(doc: Mapping[str, object]) -> EngineOptions:
    return EngineOptions(
        labels=_texts(doc, "labels"),
        registry_mirrors=_texts(doc, "registry_mirrors"),
        insecure_registries=_texts(doc, "insecure_registries"),
        storage_driver=_text(doc, "storage_driver"),
        opts=_texts(doc, "opts"),
        env=_texts(doc, "env"),
        install_url=_text(doc, "install_url"),
    )


def _auth(doc: Mapping[str, object]) -> AuthFiles:
    return AuthFiles(
        ca_cert=_text(doc, "ca_cert"),
        ca_key=_text(doc, "ca_key"),
        client_cert=_text(doc, "client_cert"),
        client_key=_text(doc, "client_key"),
        sans=_texts(doc, "sans"),
    )


def _ssh(doc: Mapping[str, object]) -> SshEndpoint:
    key = doc["key_path"]
    if key is not None and not isinstance(key, str):
        raise TypeError("ssh.key_path")
    return SshEndpoint(_text(doc, "host"), _port(doc, "port"), _text(doc, "user"), key)


def _deployed(doc: Mapping[str, object]) -> Deployed:
    return Deployed(*(_text(doc, k) for k in ("bundle", "init", "os", "server_not_after")))


def _entry(value: object) -> JournalEntry:
    if not isinstance(value, dict):
        raise TypeError("journal")
    return JournalEntry(
        _text(value, "step"), StepStatus(_text(value, "status")), _text(value, "at")
    )


def _text(doc: Mapping[str, object], key: str) -> str:
    value = doc[key]
    if not isinstance(value, str):
        raise TypeError(key)
    return value


def _flag(doc: Mapping[str, object], key: str) -> bool:
    value = doc[key]
    if not isinstance(value, bool):
        raise TypeError(key)
    return value


def _port(doc: Mapping[str, object], key: str) -> int:
    value = doc[key]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 65536:
        raise TypeError(key)
    return value


def _map(doc: Mapping[str, object], key: str) -> dict[str, object]:
    value = doc[key]
    if not isinstance(value, dict):
        raise TypeError(key)
    return value


def _list(doc: Mapping[str, object], key: str) -> list[object]:
    value = doc[key]
    if not isinstance(value, list):
        raise TypeError(key)
    return value


def _texts(doc: Mapping[str, object], key: str) -> tuple[str, ...]:
    values = _list(doc, key)
    if not all(isinstance(v, str) for v in values):
        raise TypeError(key)
    return tuple(str(v) for v in values)
