"""Files of containers: archive (docker cp), export, changes (docker diff)."""

from __future__ import annotations

from typing import Final

from agent.api.call import Api, Call
from agent.api.schema.files import changes_document, path_stat
from agent.errors import invalid
from agent.wire.http import Answer, BlockingStream, Reply, json_reply

_STAT: Final = "X-Docker-Container-Path-Stat"
_TAR: Final = "application/x-tar"


def _path(call: Call) -> str:
    path = call.query.get("path")
    if not path:
        raise invalid("bad parameter: 'path' cannot be empty")
    return path


def stat(api: Api, call: Call) -> Answer:
    found = api.backend.files.stat(call.id, _path(call))
    return Reply(200, headers=((_STAT, path_stat(found)),))


def read(api: Api, call: Call) -> Answer:
    found, chunks = api.backend.files.read(call.id, _path(call))
    return BlockingStream(chunks, _TAR, headers=((_STAT, path_stat(found)),))


def write(api: Api, call: Call) -> Answer:
    query = call.query
    api.backend.files.write(
        call.id,
        _path(call),
        call.body.reader,
        keep_kinds=query.flag("noOverwriteDirNonDir"),
        as_user=query.flag("copyUIDGID"),
    )
    return Reply(200)


def export(api: Api, call: Call) -> Answer:
    return BlockingStream(api.backend.files.export(call.id), "application/octet-stream")


def changes(api: Api, call: Call) -> Answer:
    return json_reply(changes_document(api.backend.files.changes(call.id)))
