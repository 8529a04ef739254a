"""Networks: the built-in ones."""

from __future__ import annotations

from agent.api.call import Api, Call
from agent.api.filters import NETWORK_KEYS, network_matches, parse
from agent.api.schema.networking import network_document
from agent.engine.ports import NetworkInfo
from agent.errors import invalid, not_found
from agent.wire.http import Answer, json_reply, printable


def list_all(api: Api, call: Call) -> Answer:
    filters = parse(call.query.get("filters"), NETWORK_KEYS)
    chosen = [one for one in api.backend.networks() if network_matches(one, filters)]
    return json_reply([network_document(one, ()) for one in chosen])


def find(api: Api, reference: str) -> NetworkInfo:
    """By name, id or unique id prefix.  Raises EngineError: NOT_FOUND, INVALID (ambiguous)."""
    networks = api.backend.networks()
    for one in networks:
        if reference in {one.name, one.id}:
            return one
    matching = [one for one in networks if reference and one.id.startswith(reference)]
    if len(matching) > 1:
        raise invalid(f"network {printable(reference)} is ambiguous (2 matches found on ID prefix)")
    if not matching:
        raise not_found(f"network {printable(reference)} not found")
    return matching[0]


def inspect(api: Api, call: Call) -> Answer:
    network = find(api, call.id)
    return json_reply(network_document(network, api.backend.containers.all()))
