"""The `filters` query parameter: both JSON forms in, predicates out.  Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import field
from typing import Final

from agent.api.schema.networking import live_endpoints, networks_of
from agent.api.schema.ports import port_key
from agent.engine.model import Container, Event, Image, Phase, Volume
from agent.engine.ports import NetworkInfo
from agent.errors import EngineError, invalid
from agent.values import frozen
from agent.wire.http import printable

CONTAINER_KEYS: Final = frozenset(
    [
        "id",
        "name",
        "label",
        "status",
        "exited",
        "ancestor",
        "before",
        "since",
        "volume",
        "network",
        "publish",
        "expose",
        "is-task",
        "health",
        "isolation",
    ]
)
IMAGE_KEYS: Final = frozenset({"dangling", "label", "before", "since", "reference", "until"})
VOLUME_KEYS: Final = frozenset({"dangling", "driver", "label", "name"})
NETWORK_KEYS: Final = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})
EVENT_KEYS: Final = frozenset(
    [
        "type",
        "event",
        "action",
        "container",
        "image",
        "label",
        "volume",
        "network",
        "daemon",
        "plugin",
        "scope",
        "service",
        "node",
        "secret",
        "config",
    ]
)

MAX_PATTERN: Final = 256
# Python's matcher backtracks (Go's doesn't): what can take exponential time is not taken.
_DANGEROUS: Final = re.compile(r"\)[*+?{]|\\[1-9]|\(\?")


@frozen(slots=True)
class Filters:
    """Filter name -> values, in the order given."""

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.values)

    def get(self, key: str) -> tuple[str, ...]:
        return self.values.get(key, ())

    def admits(self, key: str, value: str) -> bool:
        """True without such a filter, or when one of its values is `value`."""
        return key not in self.values or value in self.values[key]

    def flag(self, key: str) -> bool | None:
        """A boolean filter (dangling); None = not given.  Raises EngineError (INVALID)."""
        values = set(self.get(key))
        if not values:
            return None
        if values <= {"1", "true"}:
            return True
        if values <= {"0", "false"}:
            return False
        raise invalid_filter(key, values)


def invalid_filter(key: str, values: Iterable[str] = ()) -> EngineError:
    """Docker Engine's words."""
    shown = " ".join(printable(one) for one in values)
    return invalid(
        f"invalid filter '{printable(key)}={shown}'"
        if shown
        else f"invalid filter '{printable(key)}'"
    )


def parse(text: str, accepted: Collection[str]) -> Filters:
    """`{"status":["running"]}` or the older `{"status":{"running":true}}`.

    Raises EngineError (INVALID): malformed JSON, a filter that is not in `accepted`.
    """
    if not text:
        return Filters()
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid("invalid filter") from error
    if document is None:
        return Filters()
    if not isinstance(document, dict):
        raise invalid("invalid filter")
    found: dict[str, tuple[str, ...]] = {}
    for key, values in document.items():
        if key not in accepted:
            raise invalid_filter(key)
        if words := _words(values):
            found[key] = words
    return Filters(found)


def _words(values: object) -> tuple[str, ...]:
    if isinstance(values, dict):
        values = [key for key, on in values.items() if on is True]
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise invalid("invalid filter")
    return tuple(values)


def pattern_matches(patterns: tuple[str, ...], subjects: Iterable[str], key: str) -> bool:
    """Any of the patterns is found in (or is) any of the subjects."""
    texts = tuple(subjects)
    for pattern in patterns:
        if pattern in texts:
            return True
        if len(pattern) > MAX_PATTERN or _DANGEROUS.search(pattern):
            raise invalid_filter(key, [pattern])
        try:
            compiled = re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise invalid_filter(key, [pattern]) from error
        if any(compiled.search(text) for text in texts):
            return True
    return False


def labels_match(wanted: tuple[str, ...], labels: Mapping[str, str]) -> bool:
    """Every "key" or "key=value" holds."""
    for one in wanted:
        key, equals, value = one.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


# ------------------------------------------------------------------------------------- containers


@frozen(slots=True)
class ContainerLookups:
    """What some container filters refer to: other containers, images and networks by name."""

    container: Callable[[str], Container]
    image_id: Callable[[str], str | None]
    network_ids: Mapping[str, str]  # name -> id


Predicate = Callable[[Container], bool]


def container_predicate(filters: Filters, lookups: ContainerLookups) -> Predicate:
    """All given filters together.  Raises EngineError (INVALID, NOT_FOUND) before any match."""
    checks = [
        make(filters, lookups) for key, make in _CONTAINER_CHECKS.items() if key in filters.values
    ]
    return lambda container: all(check(container) for check in checks)


def _by_id(filters: Filters, _lookups: ContainerLookups) -> Predicate:
    wanted = filters.get("id")
    return lambda one: pattern_matches(wanted, [one.id], "id")


def _by_name(filters: Filters, _lookups: ContainerLookups) -> Predicate:
    wanted = filters.get("name")
    return lambda one: pattern_matches(wanted, [f"/{one.name}", one.name], "name")


def _by_label(filters: Filters, _lookups: ContainerLookups) -> Predicate:
    wanted = filters.get("label")
    return lambda one: labels_match(wanted, one.config.labels)


def _by_status(filters: Filters, _lookups: ContainerLookups) -> Predicate:
    wanted = set(filters.get("status"))
    for value in wanted:
        if value not in {phase.value for phase in Phase}:
            raise invalid_filter("status", [value])
    return lambda one: one.state.phase.value in wanted


def _by_exit(filters: Filters, _lookups: ContainerLookups) -> Predicate:
    try:
        codes = {int(value) for value in filters.get("exited")}
    except ValueError as error:
        raise invalid_filter("exited", filters.get("exited")) from error
    return lambda one: (
        one.state.exit_code in codes
        and one.state.phase in {Phase.EXITED, Phase.DEAD}
        and one.state.started_at != 0
    )


def _by_ancestor(filters: Filters, lookups: ContainerLookups) -> Predicate:
    ids = {lookups.image_id(name) for name in filters.get("ancestor")} - {None}
    return lambda one: one.image_id in ids


def _created_before(filters: Filters, lookups: ContainerLookups) -> Predicate:
    limit = min(lookups.container(name).created for name in filters.get("before"))
    return lambda one: one.created < limit


def _created_since(filters: Filters, lookups: ContainerLookups) -> Predicate:
    limit = max(lookups.container(name).created for name in filters.get("since"))
    return lambda one: one.created > limit


def _by_volume(filters: Filters, _lookups: ContainerLookups) -> Predicate:
    wanted = set(filters.get("volume"))
    return lambda one: any(
        not wanted.isdisjoint({mount.name, mount.source, mount.target}) for mount in one.mounts
    )


def _by_network(filters: Filters, lookups: ContainerLookups) -> Predicate:
    wanted = filters.get("network")

    def check(one: Container) -> bool:
        names = set(networks_of(one))
        ids = [lookups.network_ids.get(name, "") for name in names]
        return any(word in names or any(i and i.startswith(word) for i in ids) for word in wanted)

    return check


def _port_words(filters: Filters, key: str) -> set[tuple[int, str]]:
    found: set[tuple[int, str]] = set()
    for value in filters.get(key):
        try:
            first, last, protocol = port_key(value)
        except EngineError as error:
            raise invalid_filter(key, [value]) from error
        found |= {(port, protocol) for port in range(first, last + 1)}
    return found


def _by_published(filters: Filters, _lookups: ContainerLookups) -> Predicate:
    wanted = _port_words(filters, "publish")

    def check(one: Container) -> bool:
        bound = [port for endpoint in live_endpoints(one) for port in endpoint.ports]
        asked = {(port.container_port, port.protocol) for port in one.host_config.port_bindings}
        asked |= {(port.host_port, port.protocol) for port in bound}
        asked |= {(port.container_port, port.protocol) for port in bound}
        return not wanted.isdisjoint(asked)

    return check


def _by_exposed(filters: Filters, _lookups: ContainerLookups) -> Predicate:
    wanted = _port_words(filters, "expose")

    def check(one: Container) -> bool:
        for key in one.config.exposed_ports:
            first, last, protocol = port_key(key)
            if any(first <= port <= last and proto == protocol for port, proto in wanted):
                return True
        return False

    return check


def _by_task(filters: Filters, _lookups: ContainerLookups) -> Predicate:
    wanted = filters.flag("is-task")
    return lambda _one: wanted is False  # there are no Swarm tasks here


def _by_health(filters: Filters, _lookups: ContainerLookups) -> Predicate:
    for value in filters.get("health"):
        if value not in {"none", "starting", "healthy", "unhealthy"}:
            raise invalid_filter("health", [value])
    wanted = filters.get("health")
    return lambda one: (one.state.health.status if one.state.health else "none") in wanted


_CONTAINER_CHECKS: Final[Mapping[str, Callable[[Filters, ContainerLookups], Predicate]]] = {
    "id": _by_id,
    "name": _by_name,
    "label": _by_label,
    "status": _by_status,
    "exited": _by_exit,
    "ancestor": _by_ancestor,
    "before": _created_before,
    "since": _created_since,
    "volume": _by_volume,
    "network": _by_network,
    "publish": _by_published,
    "expose": _by_exposed,
    "is-task": _by_task,
    "health": _by_health,
}


# ----------------------------------------------------------------------------------------- images


def reference_matches(pattern: str, tag: str) -> bool:
    """A `reference` filter against "repo:tag", familiar form: glob over path segments.

    `debian`, `debian:12`, `*/app`, `10.0.0.1:5000/*:latest`.  `*` never crosses a slash.
    """
    repo, _, word = tag.rpartition(":")
    head, colon, last = pattern.rpartition(":")
    with_tag = bool(colon) and "/" not in last
    expression = "".join(
        "[^/]*" if char == "*" else "[^/]" if char == "?" else re.escape(char)
        for char in (head if with_tag else pattern)
    )
    if re.fullmatch(expression, repo) is None:
        return False
    if not with_tag:
        return True
    tag_expression = "".join(
        ".*" if char == "*" else "." if char == "?" else re.escape(char) for char in last
    )
    return re.fullmatch(tag_expression, word) is not None


def image_selection(
    images: list[Image],
    filters: Filters,
    seconds: Callable[[Image], int],
    find: Callable[[str], Image],
) -> list[Image]:
    """The images that pass.  With `reference`, only the names that match stay on an image."""
    dangling = filters.flag("dangling")
    before = [seconds(find(name)) for name in filters.get("before")]
    since = [seconds(find(name)) for name in filters.get("since")]
    chosen: list[Image] = []
    for image in images:
        if dangling is not None and dangling == bool(image.tags):
            continue
        if not labels_match(filters.get("label"), image.config.labels):
            continue
        created = seconds(image)
        if any(created >= limit for limit in before) or any(created <= limit for limit in since):
            continue
        kept = _with_reference(image, filters.get("reference"))
        if kept is not None:
            chosen.append(kept)
    return chosen


def _with_reference(image: Image, patterns: tuple[str, ...]) -> Image | None:
    if not patterns:
        return image
    tags = tuple(t for t in image.tags if any(reference_matches(p, t) for p in patterns))
    if not tags:
        return None
    from dataclasses import replace

    return replace(image, tags=tags)


# ----------------------------------------------------------------------------- volumes and networks


def volume_matches(volume: Volume, filters: Filters, used: Collection[str]) -> bool:
    """`used`: names of volumes that some container refers to."""
    dangling = filters.flag("dangling")
    if dangling is not None and dangling == (volume.name in used):
        return False
    if not filters.admits("driver", volume.driver):
        return False
    if "name" in filters.values and not pattern_matches(filters.get("name"), [volume.name], "name"):
        return False
    return labels_match(filters.get("label"), volume.labels)


def network_matches(
    network: NetworkInfo, filters: Filters, used: Collection[str] = frozenset()
) -> bool:
    """`used`: ids of networks that running containers are on."""
    kinds = filters.get("type")
    if any(kind not in {"builtin", "custom"} for kind in kinds):
        raise invalid_filter("type", kinds)
    if kinds and ("builtin" if network.builtin else "custom") not in kinds:
        return False
    dangling = filters.flag("dangling")
    if dangling is not None and dangling == (network.builtin or network.id in used):
        return False
    if not filters.admits("driver", network.driver) or not filters.admits("scope", "local"):
        return False
    if not labels_match(filters.get("label"), network.labels):
        return False
    named = "name" not in filters.values or pattern_matches(
        filters.get("name"), [network.name], "name"
    )
    return named and (
        "id" not in filters.values or pattern_matches(filters.get("id"), [network.id], "id")
    )


# ----------------------------------------------------------------------------------------- events


def event_predicate(filters: Filters) -> Callable[[Event], bool]:
    """All given filters together, as Docker Engine matches them."""
    kinds = filters.get("type")
    actions = (*filters.get("event"), *filters.get("action"))
    objects = [key for key in _EVENT_OBJECTS if filters.get(key)]
    never = [key for key in ("plugin", "service", "node", "secret", "config") if filters.get(key)]

    def matches(event: Event) -> bool:
        if never or (kinds and event.type not in kinds):
            return False
        if actions and not any(_action_matches(event.action, one) for one in actions):
            return False
        if not filters.admits("scope", "local"):
            return False
        if not labels_match(filters.get("label"), event.attributes):
            return False
        return all(_object_matches(event, key, filters.get(key)) for key in objects)

    return matches


_EVENT_OBJECTS: Final = ("container", "volume", "network", "daemon", "image")


def _action_matches(action: str, wanted: str) -> bool:
    """exec_create, exec_start and health_status carry a detail after a colon."""
    return action == wanted or action.partition(":")[0] == wanted


def _object_matches(event: Event, key: str, wanted: tuple[str, ...]) -> bool:
    if key == "image":
        return _image_matches(event, wanted)
    if event.type != key:
        return False
    name = event.attributes.get("name", "")
    return any(one == name or event.actor_id.startswith(one) for one in wanted)


def _image_matches(event: Event, wanted: tuple[str, ...]) -> bool:
    name = event.attributes.get("name" if event.type == "image" else "image", "")
    shown = {event.actor_id, name, _without_tag(event.actor_id), _without_tag(name)}
    return event.type in {"image", "container"} and not shown.isdisjoint(wanted)


def _without_tag(name: str) -> str:
    head, colon, last = name.rpartition(":")
    return head if colon and "/" not in last else name
