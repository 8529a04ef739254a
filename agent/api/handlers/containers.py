"""Containers: create to remove, list and inspect."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final

from agent.api.call import Api, Call
from agent.api.filters import CONTAINER_KEYS, ContainerLookups, container_predicate, parse
from agent.api.schema.create import create_request, valid_name
from agent.api.schema.fields import not_served
from agent.api.schema.inspect import Surroundings, inspect_document
from agent.api.schema.listing import ImageNames, list_entry, status_text
from agent.api.schema.networking import LIVE_PHASES
from agent.api.streams import WaitStream
from agent.api.texts import encoded
from agent.api.version import Version
from agent.errors import EngineError, Kind, invalid, not_modified
from agent.wire.http import JSON, Answer, Reply, Stream, json_reply, no_content

STOP_SIGNAL_SINCE: Final[Version] = (1, 42)


def network_ids(api: Api) -> dict[str, str]:
    return {one.name: one.id for one in api.backend.networks()}


def create(api: Api, call: Call) -> Answer:
    request = create_request(call.body.json(), call.query.get("name"), call.query.get("platform"))
    if api.default_dns and not request.host_config.dns:
        # Inspect shows HostConfig as given, without these: so does Docker Engine.
        host = dataclasses.replace(request.host_config, dns=api.default_dns)
        request = dataclasses.replace(request, host_config=host)
    created = api.backend.containers.create(request)
    return json_reply({"Id": created.id, "Warnings": list(created.warnings)}, 201)


def list_all(api: Api, call: Call) -> Answer:
    filters = parse(call.query.get("filters"), CONTAINER_KEYS)
    limit = call.query.integer("limit", 0) or 0
    everything = call.query.flag("all") or limit > 0 or "status" in filters.values
    ids = network_ids(api)
    lookups = ContainerLookups(api.backend.containers.get, _image_finder(api), ids)
    matches = container_predicate(filters, lookups)
    known = api.backend.containers.all()
    chosen = [
        one for one in known if (everything or one.state.phase in LIVE_PHASES) and matches(one)
    ]
    chosen.sort(key=lambda one: one.created, reverse=True)
    if limit > 0:
        del chosen[limit:]
    names = ImageNames.of(api.backend.images.all()) if chosen else ImageNames()
    now, version = api.now(), call.version
    if call.query.flag("size"):
        sizes = api.backend.containers.sizes
        return json_reply(
            [
                list_entry(one, names, ids, now, sizes=sizes(one.id), version=version)
                for one in chosen
            ]
        )
    texts = api.texts.listing(version, (names, ids))
    text = texts.text(
        chosen,
        lambda one: list_entry(one, names, ids, now, version=version),
        lambda one: status_text(one, now),
    )
    texts.forget({one.id: one for one in known})
    return Reply(200, encoded(text), JSON)


def _image_finder(api: Api) -> Callable[[str], str | None]:
    def find(reference: str) -> str | None:
        try:
            return api.backend.images.get(reference).id
        except EngineError as error:
            if error.kind is Kind.NOT_FOUND:
                return None
            raise

    return find


def inspect(api: Api, call: Call) -> Answer:
    container = api.backend.containers.get(call.id)
    around = Surroundings(
        root=api.backend.facts.root,
        cgroup_version=api.backend.facts.cgroup_version,
        network_ids=tuple(network_ids(api).items()),
        exec_ids=tuple(api.backend.execs.of(container.id)),
        version=call.version,
    )
    if call.query.flag("size"):
        writable, total = api.backend.containers.sizes(container.id)
        around = dataclasses.replace(around, size_rw=writable, size_root_fs=total)
    text = api.texts.inspected(container, around, lambda: inspect_document(container, around))
    return Reply(200, text, JSON)


def start(api: Api, call: Call) -> Answer:
    if not api.backend.containers.start(call.id):
        raise not_modified()
    return no_content()


def _stop_options(call: Call) -> tuple[int | None, str]:
    signal = call.query.get("signal") if call.version >= STOP_SIGNAL_SINCE else ""
    return call.query.integer("t"), signal


def stop(api: Api, call: Call) -> Answer:
    timeout, signal = _stop_options(call)
    if not api.backend.containers.stop(call.id, timeout=timeout, signal=signal):
        raise not_modified()
    return no_content()


def restart(api: Api, call: Call) -> Answer:
    timeout, signal = _stop_options(call)
    api.backend.containers.restart(call.id, timeout=timeout, signal=signal)
    return no_content()


def kill(api: Api, call: Call) -> Answer:
    api.backend.containers.kill(call.id, call.query.get("signal") or "SIGKILL")
    return no_content()


def pause(api: Api, call: Call) -> Answer:
    api.backend.containers.pause(call.id)
    return no_content()


def unpause(api: Api, call: Call) -> Answer:
    api.backend.containers.unpause(call.id)
    return no_content()


def rename(api: Api, call: Call) -> Answer:
    name = call.query.get("name")
    if not name.lstrip("/"):
        raise invalid("Neither old nor new names may be empty")
    api.backend.containers.rename(call.id, valid_name(name))
    return no_content()


def remove(api: Api, call: Call) -> Answer:
    if call.query.flag("link"):
        raise not_served("removing links (parameter link)")
    api.backend.containers.remove(
        call.id, force=call.query.flag("force"), volumes=call.query.flag("v")
    )
    return no_content()


def wait(api: Api, call: Call) -> Answer:
    condition = call.query.get("condition") or "not-running"
    if condition not in {"not-running", "next-exit", "removed"}:
        raise invalid(f'invalid condition: "{condition}"')
    return Stream(WaitStream(api.backend.containers.wait(call.id, condition)))


def window_size(call: Call) -> tuple[int, int]:
    """(height, width) in characters.  Raises EngineError (INVALID)."""
    found: list[int] = []
    for name in ("h", "w"):
        size = call.query.integer(name)
        if size is None or not 0 <= size <= 65535:
            raise invalid(f"invalid resize {'height' if name == 'h' else 'width'}")
        found.append(size)
    return found[0], found[1]


def resize(api: Api, call: Call) -> Answer:
    height, width = window_size(call)
    api.backend.containers.resize(call.id, height, width)
    return Reply(200)
