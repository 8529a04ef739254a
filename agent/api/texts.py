"""JSON texts of containers, kept as long as what they are made from stays the same.

A container is a value: whatever changes makes another object of it.  So nothing has to be told of
changes here: a text is good while its container is the very same object and everything else that it
shows (names of images, ids of networks, execs, the API version) is equal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final

from agent.api.schema.fields import Document
from agent.engine.model import Container

_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False)
_SPARE: Final = 64  # texts of containers that are gone, before they are looked for
_INSPECTED: Final = 128  # containers whose whole document is kept (4 KB each)
_GENERATIONS: Final = 4

Halves = tuple[str, str]


def halves(document: Document, name: str) -> Halves:
    """The text of a document before and after the value of `name`, which is neither its first
    field nor its last."""
    items = list(document.items())
    place = next(index for index, (key, _) in enumerate(items) if key == name)
    before, after = _ENCODER.encode(dict(items[:place])), _ENCODER.encode(dict(items[place + 1 :]))
    return f"{before[:-1]},{_ENCODER.encode(name)}:", f",{after[1:]}"


class ListTexts:
    """Entries of GET /containers/json without their Status, which time changes."""

    def __init__(self, around: object) -> None:
        self.around = around  # what all entries show beside their containers
        self._known: dict[str, tuple[Container, Halves]] = {}

    def text(
        self,
        containers: Sequence[Container],
        entry: Callable[[Container], Document],
        status: Callable[[Container], str],
    ) -> str:
        """The list.  From any thread: at worst an entry is made twice."""
        known, parts = self._known, []
        for one in containers:
            found = known.get(one.id)
            if found is None or found[0] is not one:
                found = (one, halves(entry(one), "Status"))
                known[one.id] = found
            before, after = found[1]
            parts.append(f"{before}{_ENCODER.encode(status(one))}{after}")
        return f"[{','.join(parts)}]"

    def forget(self, living: Mapping[str, Container]) -> None:
        """Drops what is not among `living`, once that is worth it."""
        if len(self._known) > len(living) + _SPARE:
            self._known = {key: one for key, one in list(self._known.items()) if key in living}


class Texts:
    """The texts of one application.  From any thread."""

    def __init__(self) -> None:
        self._lists: dict[Hashable, ListTexts] = {}
        self._inspected: dict[str, tuple[Container, object, bytes]] = {}

    def listing(self, version: Hashable, around: object) -> ListTexts:
        """The entries as this version of the API shows them in these surroundings."""
        found = self._lists.get(version)
        if found is None or found.around != around:
            if len(self._lists) >= _GENERATIONS:
                self._lists.clear()
            found = self._lists[version] = ListTexts(around)
        return found

    def inspected(
        self, container: Container, around: object, document: Callable[[], Document]
    ) -> bytes:
        """The whole document, as it goes to the client."""
        found = self._inspected.get(container.id)
        if found is None or found[0] is not container or found[1] != around:
            text = encoded(_ENCODER.encode(document()))
            if len(self._inspected) >= _INSPECTED:
                self._inspected.clear()
            found = self._inspected[container.id] = (container, around, text)
        return found[2]


def encoded(text: str) -> bytes:
    """As `json_reply` writes it."""
    return text.encode("utf-8", "replace") + b"\n"
