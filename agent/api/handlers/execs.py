"""Exec: create, start, resize, inspect."""

from __future__ import annotations

from agent.api.call import Api, Call
from agent.api.handlers.attached import stream_type
from agent.api.handlers.containers import window_size
from agent.api.schema.execs import exec_config, exec_document, exec_start
from agent.wire.detach import parse_detach_keys
from agent.wire.http import Answer, Hijack, Reply, json_reply


def create(api: Api, call: Call) -> Answer:
    config = exec_config(call.body.json())
    parse_detach_keys(config.detach_keys)
    return json_reply({"Id": api.backend.execs.create(call.id, config)}, 201)


def start(api: Api, call: Call) -> Answer:
    wanted = exec_start(call.body.json())
    info = api.backend.execs.get(call.id)
    duplex = api.backend.execs.start(call.id, detach=wanted.detach, tty=wanted.tty)
    if duplex is None:
        return Reply(200)
    if wanted.tty and wanted.console_size:
        height, width = wanted.console_size
        api.backend.execs.resize(call.id, height, width)
    return Hijack(
        duplex,
        content_type=stream_type(call, tty=wanted.tty),
        detach_keys=parse_detach_keys(info.config.detach_keys),
        stdin=info.config.attach_stdin,
    )


def resize(api: Api, call: Call) -> Answer:
    height, width = window_size(call)
    api.backend.execs.resize(call.id, height, width)
    return Reply(200)


def inspect(api: Api, call: Call) -> Answer:
    return json_reply(exec_document(api.backend.execs.get(call.id)))
