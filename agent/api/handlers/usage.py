"""What containers use, and their limits: top, stats, update, prune."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final, cast

from agent.api.backend import SampleFeed
from agent.api.call import Api, Call
from agent.api.filters import Filters, labels_match, parse
from agent.api.schema.fields import Document, Field, Table, is_zero
from agent.api.schema.host import RESOURCES, restart_policy
from agent.api.schema.stats import stats_document
from agent.api.schema.times import moment_or_ago
from agent.api.schema.top import top_document
from agent.engine.inside import Sample
from agent.engine.model import Container, RestartPolicy, Volume
from agent.errors import invalid
from agent.wire.http import Answer, Stream, json_reply

PRUNE_CONTAINERS: Final = frozenset({"until", "label", "label!"})
PRUNE_VOLUMES: Final = frozenset({"all", "label", "label!"})
UPDATE: Final = Table(
    "ContainerUpdate",
    (*RESOURCES.fields, Field("RestartPolicy", restart_policy, "restart_policy")),
)
# What a container has from its start to its end.
_FIXED: Final = frozenset(
    {"CgroupParent", "Devices", "DeviceCgroupRules", "DeviceRequests", "Init", "Ulimits"}
)
_FIXED_ATTRIBUTES: Final = tuple(one.attribute for one in UPDATE.fields if one.name in _FIXED)


class StatsStream:
    """One document a sample.  `single`: ends after the first that has one before it."""

    def __init__(self, feed: SampleFeed, *, single: bool) -> None:
        self._feed = feed
        self._single = single
        self._before: Sample | None = None
        self._ended = False

    def fileno(self) -> int:
        return self._feed.fileno()

    def read(self) -> bytes | None:
        if self._ended:
            return b""
        moment = self._feed.next()
        if moment is None:
            return None
        container, sample = moment
        before, self._before = self._before, sample
        if self._single and sample is not None and before is None:
            return None
        self._ended = self._single
        document = stats_document(container, sample, before)
        return json.dumps(document, separators=(",", ":")).encode() + b"\n"

    def close(self) -> None:
        self._feed.close()


def stats(api: Api, call: Call) -> Answer:
    stream = call.query.flag("stream", default=True)
    if call.query.flag("one-shot"):
        if stream:
            raise invalid("cannot have stream=true and one-shot=true")
        container, sample = api.backend.usage.sample(call.id)
        return json_reply(stats_document(container, sample, None))
    return Stream(StatsStream(api.backend.usage.samples(call.id), single=not stream))


def top(api: Api, call: Call) -> Answer:
    _, found = api.backend.usage.processes(call.id)
    return json_reply(top_document(found, call.query.get("ps_args"), api.now()))


def fixed_refused(document: Document) -> None:
    """Raises INVALID for what an update can't change: docker ignores it, and nobody is told."""
    for name in sorted(_FIXED & document.keys()):
        if not is_zero(document[name]):
            raise invalid(f"{name} of a container cannot be changed by an update")


def update(api: Api, call: Call) -> Answer:
    document = UPDATE.canonical(call.body.json() or {})
    fixed_refused(document)
    decoded = UPDATE.decode(document)
    policy = cast("RestartPolicy | None", decoded.pop("restart_policy", None))
    if policy is not None and not policy.name:
        policy = None
    given: Document = {name: value for name, value in document.items() if value}
    if policy is None:
        given.pop("RestartPolicy", None)
    for name in _FIXED_ATTRIBUTES:
        decoded.pop(name, None)
    warnings = api.backend.upkeep.update(call.id, decoded, policy, given)
    return json_reply({"Warnings": list(warnings)})


def _until(api: Api, filters: Filters) -> int | None:
    values = filters.get("until")
    if len(values) > 1:
        raise invalid("more than one until filter specified")
    return moment_or_ago(values[0], "until", api.now()) if values else None


def _labelled(filters: Filters) -> Callable[[dict[str, str]], bool]:
    wanted, unwanted = filters.get("label"), filters.get("label!")

    def matches(labels: dict[str, str]) -> bool:
        if wanted and not labels_match(wanted, labels):
            return False
        return not any(labels_match((one,), labels) for one in unwanted)

    return matches


def prune_containers(api: Api, call: Call) -> Answer:
    filters = parse(call.query.get("filters"), PRUNE_CONTAINERS)
    until, labelled = _until(api, filters), _labelled(filters)

    def chosen(one: Container) -> bool:
        return (until is None or one.created < until) and labelled(dict(one.config.labels))

    removed, freed = api.backend.upkeep.prune_containers(chosen)
    return json_reply({"ContainersDeleted": removed or None, "SpaceReclaimed": freed})


def prune_volumes(api: Api, call: Call) -> Answer:
    filters = parse(call.query.get("filters"), PRUNE_VOLUMES)
    labelled = _labelled(filters)
    # Since 1.42 only anonymous volumes, unless all=true.
    everything = bool(filters.flag("all")) or call.version < (1, 42)

    def chosen(one: Volume) -> bool:
        return (everything or one.anonymous) and labelled(dict(one.labels))

    removed, freed = api.backend.upkeep.prune_volumes(chosen)
    return json_reply({"VolumesDeleted": removed or None, "SpaceReclaimed": freed})
