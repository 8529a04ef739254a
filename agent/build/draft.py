"""An image in the making: configuration, layers, history.  Values; a step makes a new one.  Pure."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from agent.errors import data_loss

Document = Mapping[str, object]
DEFAULT_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHELL: Final = ("/bin/sh", "-c")
MAX_LAYERS: Final = 125


@dataclass(frozen=True)
class Draft:
    """`config` is the image's runnable part in Docker's spelling, what we don't know included.

    `image_id` "" = scratch: nothing was made yet.
    """

    config: Document = field(default_factory=dict)
    diff_ids: tuple[str, ...] = ()
    history: tuple[Document, ...] = ()
    platform: tuple[str, str, str] = ("linux", "amd64", "")  # os, architecture, variant
    author: str = ""
    image_id: str = ""
    raw: bytes = b""

    # ----------------------------------------------------------------------------- the config

    def texts(self, key: str) -> tuple[str, ...] | None:
        """A list of strings of the config; None when it is not set."""
        value = self.config.get(key)
        return tuple(str(one) for one in value) if isinstance(value, list) else None

    def text(self, key: str) -> str:
        return str(self.config.get(key) or "")

    def names(self, key: str) -> tuple[str, ...]:
        """The names of a set such as Volumes."""
        value = self.config.get(key)
        return tuple(value) if isinstance(value, dict) else ()

    def labels(self) -> dict[str, str]:
        value = self.config.get("Labels")
        return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}

    def env(self) -> dict[str, str]:
        pairs = (one.partition("=") for one in self.texts("Env") or ())
        return {name: value for name, _, value in pairs}

    def shell(self) -> tuple[str, ...]:
        return self.texts("Shell") or SHELL

    def with_config(self, **changes: object) -> Draft:
        """Other values; None and empty ones are taken out."""
        config = dict(self.config)
        for key, value in changes.items():
            if value is None or value in ({}, ""):
                config.pop(key, None)
            else:
                config[key] = value
        return replace(self, config=config)

    # ------------------------------------------------------------------------------- its making

    def step(self, created_by: str, now: int, diff_id: str = "", comment: str = "") -> Draft:
        """The image after an instruction; `diff_id` "" = no layer.  `now` in ns."""
        entry: dict[str, object] = {"created": moment(now), "created_by": created_by}
        if self.author:
            entry["author"] = self.author
        if comment:
            entry["comment"] = comment
        if not diff_id:
            entry["empty_layer"] = True
        layers = (*self.diff_ids, diff_id) if diff_id else self.diff_ids
        return replace(self, diff_ids=layers, history=(*self.history, entry)).sealed(now)

    def sealed(self, now: int) -> Draft:
        """With the document and the id that follow from the rest."""
        system, architecture, variant = self.platform
        document: dict[str, object] = {"architecture": architecture}
        if self.author:
            document["author"] = self.author
        document |= {
            "config": dict(self.config),
            "created": moment(now),
            "history": list(self.history),
            "os": system,
            "rootfs": {"type": "layers", "diff_ids": list(self.diff_ids)},
        }
        if variant:
            document["variant"] = variant
        raw = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(
            "utf-8", "surrogateescape"
        )
        return replace(self, raw=raw, image_id="sha256:" + hashlib.sha256(raw).hexdigest())


def load(raw: bytes, image_id: str) -> Draft:
    """An image's stored configuration.  DATA_LOSS when it is none."""
    try:
        document = json.loads(raw)
        rootfs = document.get("rootfs") or {}
        config = document.get("config") or {}
        history = document.get("history") or []
        return Draft(
            config=dict(config),
            diff_ids=tuple(str(one) for one in rootfs.get("diff_ids") or ()),
            history=tuple(dict(one) for one in history),
            platform=(
                str(document.get("os") or "linux"),
                str(document.get("architecture") or ""),
                str(document.get("variant") or ""),
            ),
            author=str(document.get("author") or ""),
            image_id=image_id,
            raw=raw,
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise data_loss(f"the configuration of image {image_id} can't be read") from error


def moment(now: int) -> str:
    """ns since the epoch in RFC 3339, as docker writes it."""
    seconds, rest = divmod(now, 1_000_000_000)
    base = dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{base}.{rest:09d}".rstrip("0").rstrip(".") + "Z"


def with_env(existing: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """The list with each name set; an existing one keeps its place."""
    found = list(existing)
    for name, value in pairs:
        places = [index for index, one in enumerate(found) if one.partition("=")[0] == name]
        if places:
            found[places[0]] = f"{name}={value}"
        else:
            found.append(f"{name}={value}")
    return found


def short(image_id: str) -> str:
    return image_id.removeprefix("sha256:")[:12]
