"""Volumes as the API shows and asks for them."""

from __future__ import annotations

from typing import Final

from agent.api.schema.fields import Document, Field, Table, text, text_map, unserved
from agent.api.schema.times import rfc3339_seconds
from agent.engine.model import Volume

VOLUME_CREATE: Final = Table(
    "VolumeCreateOptions",
    (
        Field("Name", text, "name"),
        Field("Driver", text, "driver"),
        Field("DriverOpts", text_map, "options"),
        Field("Labels", text_map, "labels"),
        unserved("ClusterVolumeSpec"),
    ),
)


def volume_document(volume: Volume) -> Document:
    return {
        "CreatedAt": rfc3339_seconds(volume.created),
        "Driver": volume.driver,
        "Labels": dict(sorted(volume.labels.items())) or None,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": dict(sorted(volume.options.items())) or None,
        "Scope": "local",
    }
