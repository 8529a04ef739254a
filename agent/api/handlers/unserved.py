"""Known endpoints that this engine doesn't serve (yet): each says so, by name."""

from __future__ import annotations

from agent.api.call import Api, ApiHandler, Call
from agent.api.schema.fields import not_served
from agent.errors import unavailable
from agent.wire.http import Answer

NOT_A_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect '
    "this node to swarm and try again."
)


def not_yet(what: str) -> ApiHandler:
    """501 with a message that names what was asked for."""

    def refuse(_api: Api, _call: Call) -> Answer:
        raise not_served(what)

    return refuse


def no_swarm(_api: Api, _call: Call) -> Answer:
    raise unavailable(NOT_A_MANAGER)


def no_plugins(_api: Api, _call: Call) -> Answer:
    raise unavailable("This engine has no plugins, and installs none")


def no_checkpoints(_api: Api, _call: Call) -> Answer:
    raise unavailable("Checkpoints are an experimental feature that this engine does not have")


def not_in_swarm(_api: Api, _call: Call) -> Answer:
    raise unavailable("This node is not part of a swarm")
