"""Attach and logs: a container's standard streams."""

from __future__ import annotations

from typing import Final

from agent.api.backend import AttachRequest
from agent.api.call import Api, Call
from agent.api.schema.times import timestamp
from agent.api.version import Version
from agent.api.websocket import WebSocketDuplex
from agent.engine.model import LogQuery
from agent.errors import invalid
from agent.wire import frames, websocket
from agent.wire.detach import parse_detach_keys
from agent.wire.http import MULTIPLEXED_STREAM, RAW_STREAM, Answer, Hijack, Stream

MULTIPLEXED_SINCE: Final[Version] = (1, 42)


def stream_type(call: Call, *, tty: bool) -> str:
    """Frames are announced as such to clients that know the name."""
    return RAW_STREAM if tty or call.version < MULTIPLEXED_SINCE else MULTIPLEXED_STREAM


def attach(api: Api, call: Call) -> Answer:
    query = call.query
    keys = parse_detach_keys(query.get("detachKeys"))
    request = AttachRequest(
        stdin=query.flag("stdin"),
        stdout=query.flag("stdout"),
        stderr=query.flag("stderr"),
        stream=query.flag("stream"),
        logs=query.flag("logs"),
    )
    tty = api.backend.containers.get(call.id).config.tty
    duplex = api.backend.containers.attach(call.id, request)
    return Hijack(
        duplex,
        content_type=stream_type(call, tty=tty),
        detach_keys=keys,
        stdin=request.stdin and request.stream,
        stall_notice=_stall_notice(tty=tty),
    )


def _stall_notice(*, tty: bool) -> bytes:
    """What a client that took no output finds at its end: the docker client makes an error of it."""
    said = b"detached: no output was taken for a while; the container goes on, and its log has all"
    return b"\r\n" + said + b"\r\n" if tty else frames.encode(frames.SYSTEM_ERROR, said)


TEXT_FRAMES_UNTIL: Final[Version] = (1, 28)


def attach_websocket(api: Api, call: Call) -> Answer:
    """The streams are not told apart on it, as with Docker Engine."""
    query, headers = call.query, call.request.headers
    if headers.get("upgrade").lower() != "websocket" or not call.request.wants_upgrade:
        raise invalid("the client is not using the websocket protocol")
    if headers.get("sec-websocket-version") != "13":
        raise invalid("unsupported websocket version, only 13 is")
    try:
        accept = websocket.accept(headers.get("sec-websocket-key"))
    except websocket.WebSocketError as error:
        raise invalid(str(error)) from error
    request = AttachRequest(
        stdin=query.flag("stdin"),
        stdout=query.flag("stdout"),
        stderr=query.flag("stderr"),
        stream=query.flag("stream"),
        logs=query.flag("logs"),
    )
    inner = api.backend.containers.attach(call.id, request)
    duplex = WebSocketDuplex(
        inner, stdin=request.stdin and request.stream, text=call.version < TEXT_FRAMES_UNTIL
    )
    accepted = (("Sec-WebSocket-Accept", accept),)
    return Hijack(
        duplex,
        content_type=RAW_STREAM,
        detach_keys=b"",
        headers=accepted,
        stall_notice=websocket.close_frame(websocket.POLICY),
    )


def _tail(text: str) -> int | None:
    """A number of lines; "all", nothing, and what is no number mean all, as in Docker Engine."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def logs(api: Api, call: Call) -> Answer:
    query = call.query
    if not (query.flag("stdout") or query.flag("stderr")):
        raise invalid("Bad parameters: you must choose at least one stream")
    container = api.backend.containers.get(call.id)
    wanted = LogQuery(
        stdout=query.flag("stdout"),
        stderr=query.flag("stderr"),
        follow=query.flag("follow"),
        since=timestamp(query.get("since"), "since"),
        until=timestamp(query.get("until"), "until"),
        tail=_tail(query.get("tail")),
        timestamps=query.flag("timestamps"),
        details=query.flag("details"),
        framed=not container.config.tty,
    )
    source = api.backend.containers.logs(container.id, wanted)
    return Stream(source, stream_type(call, tty=container.config.tty))
