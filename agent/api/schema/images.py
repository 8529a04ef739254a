"""Images as the API shows them, and X-Registry-Auth as it sends it."""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Sequence
from typing import Final

from agent.api.schema.fields import Document, Field, Table, built, text
from agent.api.schema.times import SECOND, ZERO_TIME, parse_rfc3339
from agent.api.version import Version
from agent.engine.model import Image, ImageConfig, Progress, RegistryAuth
from agent.engine.transfers import ManifestInfo
from agent.errors import EngineError

log = logging.getLogger(__name__)

VIRTUAL_SIZE_UNTIL: Final[Version] = (1, 44)

AUTH_CONFIG: Final = Table(
    "AuthConfig",
    (
        Field("username", text, "username"),
        Field("password", text, "password"),
        Field("auth", text),
        Field("email", text),
        Field("serveraddress", text, "server_address"),
        Field("identitytoken", text, "identity_token"),
        Field("registrytoken", text, "registry_token"),
    ),
)
MAX_AUTH: Final = 16 * 1024


def registry_auth(header: str) -> RegistryAuth | None:
    """X-Registry-Auth: base64url of a JSON document.  What can't be read counts as none given,
    as in Docker Engine; the value is never logged."""
    if not header or len(header) > MAX_AUTH:
        return None
    padded = header.rstrip("=")
    padded += "=" * (-len(padded) % 4)
    try:
        document = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        auth = built(RegistryAuth, AUTH_CONFIG.decode(document))
    except (binascii.Error, ValueError, RecursionError, EngineError):
        log.warning("ignored an X-Registry-Auth header that can't be read")
        return None
    if not (auth.username or auth.password or auth.identity_token or auth.registry_token):
        return None
    return auth


def image_config_document(config: ImageConfig) -> Document:
    document: Document = {
        "User": config.user,
        "ExposedPorts": {port: {} for port in sorted(config.exposed_ports)},
        "Env": list(config.env) or None,
        "Entrypoint": None if config.entrypoint is None else list(config.entrypoint),
        "Cmd": None if config.cmd is None else list(config.cmd),
        "Volumes": {target: {} for target in sorted(config.volumes)} or None,
        "WorkingDir": config.working_dir,
        "OnBuild": list(config.on_build) or None,
        "Labels": dict(sorted(config.labels.items())) or None,
        "StopSignal": config.stop_signal,
        "Shell": list(config.shell),
        "Healthcheck": dict(config.healthcheck or {}),
    }
    for name in ("ExposedPorts", "StopSignal", "Shell", "Healthcheck"):
        if not document[name]:
            del document[name]
    return document


def image_inspect(image: Image, version: Version) -> Document:
    """ImageInspect."""
    document: Document = {
        "Id": image.id,
        "RepoTags": list(image.tags),
        "RepoDigests": list(image.digests),
        "Parent": "",
        "Comment": image.comment or _last_comment(image),
        "Created": image.created or ZERO_TIME,
        "DockerVersion": "",
        "Author": image.author,
        "Config": image_config_document(image.config),
        "Architecture": image.architecture,
        "Variant": image.variant,
        "Os": image.os,
        "Size": image.size,
        "GraphDriver": {"Data": None, "Name": "overlay2"},
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Metadata": {"LastTagTime": ZERO_TIME},
    }
    if not image.variant:
        del document["Variant"]
    if version < VIRTUAL_SIZE_UNTIL:
        document["VirtualSize"] = image.size
    return document


def _last_comment(image: Image) -> str:
    """What the image's newest step says: docker shows it for an image without a comment."""
    return str(image.history[-1].get("comment", "")) if image.history else ""


def manifest_summaries(found: Sequence[ManifestInfo], users: Sequence[str]) -> list[Document]:
    """ImageManifestSummary of each; `users`: ids of the containers of the one that is here."""
    return [_manifest_summary(one, users if one.available else ()) for one in found]


def _manifest_summary(one: ManifestInfo, users: Sequence[str]) -> Document:
    system, architecture, variant = one.platform
    platform = {"architecture": architecture, "os": system}
    if variant:
        platform["variant"] = variant
    document: Document = {
        "ID": one.digest,
        "Descriptor": {"mediaType": one.media_type, "digest": one.digest, "size": one.size},
        "Available": one.available,
        "Size": {"Content": one.content, "Total": one.content + one.unpacked},
        "Kind": one.kind,
    }
    if one.kind == "image":
        document["ImageData"] = {
            "Platform": platform,
            "Containers": list(users),
            "Size": {"Unpacked": one.unpacked},
        }
    if one.kind == "attestation":
        document["AttestationData"] = {"For": one.about}
    return document


def created_seconds(image: Image) -> int:
    moment = parse_rfc3339(image.created)
    return 0 if moment is None else moment // SECOND


def image_summary(image: Image, version: Version, containers: int = -1) -> Document:
    """ImageSummary."""
    document: Document = {
        "Containers": containers,
        "Created": created_seconds(image),
        "Id": image.id,
        "Labels": dict(sorted(image.config.labels.items())) or None,
        "ParentId": "",
        "RepoDigests": list(image.digests),
        "RepoTags": list(image.tags),
        "SharedSize": -1,
        "Size": image.size,
    }
    if version < VIRTUAL_SIZE_UNTIL:
        document["VirtualSize"] = image.size
    return document


def history(image: Image, sizes: Sequence[int] = ()) -> list[Document]:
    """Newest first.  Only the newest line carries the image's id.

    `sizes`: of the layers, base first; lines marked empty_layer have none of them.
    """
    lines: list[Document] = []
    left = list(sizes)
    bytes_of = [
        0 if one.get("empty_layer") is True or not left else left.pop(0) for one in image.history
    ]
    bytes_of.reverse()
    for index, one in enumerate(reversed(image.history)):
        moment = parse_rfc3339(str(one.get("created", "")))
        lines.append(
            {
                "Comment": str(one.get("comment", "")),
                "Created": 0 if moment is None else moment // SECOND,
                "CreatedBy": str(one.get("created_by", "")),
                "Id": "<missing>" if index else image.id,
                "Size": bytes_of[index],
                "Tags": None if index else (list(image.tags) or None),
            }
        )
    return lines


_BAR: Final = 50


def progress_line(one: Progress) -> Document:
    """JSONMessage of a pull.  `progress` is the bar that pre-1.24 style clients print."""
    if one.stream:
        return {"stream": one.stream}
    if one.aux is not None:
        return {"progressDetail": {}, "aux": dict(one.aux)}
    document: Document = {"status": one.status}
    if one.current is not None:
        detail: Document = {"current": one.current}
        if one.total:
            detail["total"] = one.total
        document["progressDetail"] = detail
        document["progress"] = progress_bar(one.current, one.total or 0)
    elif one.id and not one.status.startswith("Pulling from "):
        document["progressDetail"] = {}
    if one.id:
        document["id"] = one.id
    return document


def progress_bar(current: int, total: int) -> str:
    """jsonmessage's bar: "[=====>     ]  1.5kB/3kB"."""
    if total <= 0 or current > total:
        return f"{human_size(current):>8}"
    filled = current * _BAR // total
    head = "=" * filled + (">" if filled < _BAR else "")
    return f"[{head:<{_BAR}}] {human_size(current):>8}/{human_size(total)}"


_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB")


def human_size(size: int) -> str:
    """go-units' HumanSize: four significant digits, powers of 1000."""
    amount = float(size)
    for unit in _UNITS[:-1]:
        if amount < 1000:
            return f"{amount:.4g}{unit}"
        amount /= 1000
    return f"{amount:.4g}{_UNITS[-1]}"
