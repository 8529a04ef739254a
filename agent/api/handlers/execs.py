"""Exec: create, start, resize, inspect."""

from __future__ import annotations

import contextlib

from agent.api.call import Api, Call
from agent.api.deferred import DeferredDuplex
from agent.api.handlers.attached import stream_type
from agent.api.handlers.containers import window_size
from agent.api.schema.execs import exec_config, exec_document, exec_start
from agent.errors import EngineError
from agent.wire.detach import parse_detach_keys
from agent.wire.http import Answer, Hijack, Reply, json_reply
from agent.wire.streams import Duplex


def create(api: Api, call: Call) -> Answer:
    config = exec_config(call.body.json())
    parse_detach_keys(config.detach_keys)
    return json_reply({"Id": api.backend.execs.create(call.id, config)}, 201)


def start(api: Api, call: Call) -> Answer:
    """Attached: the head goes out first, then the process starts (see `agent.api.deferred`)."""
    wanted = exec_start(call.body.json())
    info = api.backend.execs.get(call.id)
    if wanted.detach:
        api.backend.execs.start(call.id, detach=True, tty=wanted.tty)
        return Reply(200)

    def begin() -> Duplex | None:
        duplex = api.backend.execs.start(call.id, detach=False, tty=wanted.tty)
        if wanted.tty and wanted.console_size:
            height, width = wanted.console_size
            with contextlib.suppress(EngineError):  # it may have ended by now
                api.backend.execs.resize(call.id, height, width)
        return duplex

    tty = info.config.tty or wanted.tty
    return Hijack(
        DeferredDuplex(begin, tty=tty),
        content_type=stream_type(call, tty=tty),
        detach_keys=parse_detach_keys(info.config.detach_keys),
        stdin=info.config.attach_stdin,
    )


def resize(api: Api, call: Call) -> Answer:
    height, width = window_size(call)
    api.backend.execs.resize(call.id, height, width)
    return Reply(200)


def inspect(api: Api, call: Call) -> Answer:
    return json_reply(exec_document(api.backend.execs.get(call.id)))
