"""Volumes of the local driver."""

from __future__ import annotations

import re
from typing import Final, cast

from agent.api.call import Api, Call
from agent.api.filters import VOLUME_KEYS, parse, volume_matches
from agent.api.schema.volumes import VOLUME_CREATE, volume_document
from agent.errors import invalid
from agent.wire.http import Answer, json_reply, no_content, printable

_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}")


def create(api: Api, call: Call) -> Answer:
    document = call.body.json()
    wanted = VOLUME_CREATE.decode({} if document is None else document)
    name, driver = str(wanted.get("name", "")), str(wanted.get("driver", "")) or "local"
    if name and not _NAME.fullmatch(name):
        raise invalid(
            f'create {printable(name)}: "{printable(name)}" includes invalid characters for a '
            'local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to '
            "pass a host directory, use absolute path"
        )
    labels = cast("dict[str, str]", wanted.get("labels", {}))
    options = cast("dict[str, str]", wanted.get("options", {}))
    volume = api.backend.volumes.create(name, driver, labels, options)
    return json_reply(volume_document(volume), 201)


def list_all(api: Api, call: Call) -> Answer:
    filters = parse(call.query.get("filters"), VOLUME_KEYS)
    containers = api.backend.containers.all()
    used = {mount.name for one in containers for mount in one.mounts if mount.type == "volume"}
    volumes = [one for one in api.backend.volumes.all() if volume_matches(one, filters, used)]
    volumes.sort(key=lambda one: one.name)
    return json_reply({"Volumes": [volume_document(one) for one in volumes], "Warnings": None})


def inspect(api: Api, call: Call) -> Answer:
    return json_reply(volume_document(api.backend.volumes.get(call.name)))


def remove(api: Api, call: Call) -> Answer:
    api.backend.volumes.remove(call.name, force=call.query.flag("force"))
    return no_content()
