"""Networks: list to prune, connect and disconnect."""

from __future__ import annotations

from typing import Final

from agent.api.call import Api, Call
from agent.api.filters import NETWORK_KEYS, labels_match, network_matches, parse
from agent.api.schema.networking import live_endpoints, network_document
from agent.api.schema.networks import CONNECT, DISCONNECT, endpoint_request, network_spec
from agent.api.schema.times import moment_or_ago
from agent.engine.ports import NetworkInfo
from agent.errors import invalid
from agent.wire.http import Answer, Reply, json_reply, no_content

_PRUNE_KEYS: Final = frozenset({"label", "label!", "until"})


def list_all(api: Api, call: Call) -> Answer:
    filters = parse(call.query.get("filters"), NETWORK_KEYS)
    used = {
        endpoint.network_id
        for one in api.backend.containers.all()
        for endpoint in live_endpoints(one)
    }
    chosen = [one for one in api.backend.networks() if network_matches(one, filters, used)]
    return json_reply([network_document(one, ()) for one in chosen])


def inspect(api: Api, call: Call) -> Answer:
    """`verbose` adds only what a swarm knows."""
    scope = call.query.get("scope")
    network = api.backend.networking.get(call.id)
    if scope not in {"", "local"}:
        raise invalid(f"network {network.name} has the scope local, not {scope!r}")
    return json_reply(network_document(network, api.backend.containers.all()))


def create(api: Api, call: Call) -> Answer:
    made = api.backend.networking.create(network_spec(call.body.json()))
    return json_reply({"Id": made.id, "Warning": ""}, 201)


def remove(api: Api, call: Call) -> Answer:
    api.backend.networking.remove(call.id)
    return no_content()


def connect(api: Api, call: Call) -> Answer:
    document = call.body.json()
    decoded = CONNECT.decode({} if document is None else document)
    request = endpoint_request(call.id, decoded.get("endpoint"), "EndpointConfig")
    api.backend.networking.connect(call.id, _container(decoded), request)
    return Reply(200)


def disconnect(api: Api, call: Call) -> Answer:
    document = call.body.json()
    decoded = DISCONNECT.decode({} if document is None else document)
    force = bool(decoded.get("force", False))
    api.backend.networking.disconnect(call.id, _container(decoded), force=force)
    return Reply(200)


def prune(api: Api, call: Call) -> Answer:
    filters = parse(call.query.get("filters"), _PRUNE_KEYS)
    untils = filters.get("until")
    if len(untils) > 1:
        raise invalid("more than one until filter specified")
    until = moment_or_ago(untils[0], "until", api.now()) if untils else None

    def matches(one: NetworkInfo) -> bool:
        if until is not None and one.created > until:
            return False
        unwanted = filters.get("label!")
        if unwanted and labels_match(unwanted, one.labels):
            return False
        return labels_match(filters.get("label"), one.labels)

    gone = api.backend.networking.prune(matches)
    return json_reply({"NetworksDeleted": gone or None})


def _container(decoded: dict[str, object]) -> str:
    name = str(decoded.get("container", ""))
    if not name:
        raise invalid("invalid container name or ID: value is empty")
    return name
