"""Events as JSON, with the fields of old clients."""

from __future__ import annotations

from agent.api.schema.fields import Document
from agent.api.schema.times import SECOND
from agent.engine.model import Event


def event_document(event: Event) -> Document:
    """EventMessage; container and image events also carry status, id and from, as all versions
    below 1.52 have them."""
    document: Document = {}
    if event.type in {"container", "image"}:
        document["status"] = event.action
        document["id"] = event.actor_id
        if event.type == "container" and "image" in event.attributes:
            document["from"] = event.attributes["image"]
    document["Type"] = event.type
    document["Action"] = event.action
    document["Actor"] = {
        "ID": event.actor_id,
        "Attributes": dict(sorted(event.attributes.items())),
    }
    document["scope"] = "local"
    document["time"] = event.time_ns // SECOND
    document["timeNano"] = event.time_ns
    return document
