"""GET /containers/{id}/stats: one sample as Docker Engine shows it, for cgroup versions 1 and 2."""

from __future__ import annotations

import dataclasses

from agent.api.schema.fields import Document
from agent.api.schema.times import ZERO_TIME, rfc3339
from agent.engine.inside import BlockAmount, Sample
from agent.engine.model import Container

_BLOCK_LISTS = (
    "io_service_bytes_recursive",
    "io_serviced_recursive",
    "io_queue_recursive",
    "io_service_time_recursive",
    "io_wait_time_recursive",
    "io_merged_recursive",
    "io_time_recursive",
    "sectors_recursive",
)


def stats_document(container: Container, sample: Sample | None, before: Sample | None) -> Document:
    """`before`: the sample a second ago, None for the first; `sample` None: it does not run."""
    document: Document = {
        "name": f"/{container.name}",
        "id": container.id,
        "read": rfc3339(sample.taken) if sample else ZERO_TIME,
        "preread": rfc3339(before.taken) if before else ZERO_TIME,
        "pids_stats": _pids(sample),
        "blkio_stats": _block(sample),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(sample),
        "precpu_stats": _cpu(before),
        "memory_stats": _memory(sample),
    }
    # Containers on the host's network have no interfaces of their own to count.
    if sample and sample.networks and container.host_config.network_mode != "host":
        document["networks"] = {
            name: dataclasses.asdict(one) for name, one in sorted(sample.networks.items())
        }
    return document


def _pids(sample: Sample | None) -> Document:
    if sample is None:
        return {}
    # Without a limit of its own the field is the largest number, as in Docker Engine.
    return {"current": sample.pids, "limit": sample.pids_limit or 2**64 - 1}


def _block(sample: Sample | None) -> Document:
    found: Document = dict.fromkeys(_BLOCK_LISTS)
    if sample is not None:
        found["io_service_bytes_recursive"] = _rows(sample.block_bytes)
        if not sample.unified:
            found["io_serviced_recursive"] = _rows(sample.block_operations)
            found |= {name: [] for name, rows in found.items() if rows is None}
    return found


def _rows(amounts: tuple[BlockAmount, ...]) -> list[Document] | None:
    return [
        {"major": one.major, "minor": one.minor, "op": one.operation, "value": one.value}
        for one in amounts
    ] or None


def _cpu(sample: Sample | None) -> Document:
    usage: Document = {"total_usage": sample.cpu_total if sample else 0}
    if sample and sample.cpu_each:
        usage["percpu_usage"] = list(sample.cpu_each)
    usage["usage_in_kernelmode"] = sample.cpu_kernel if sample else 0
    usage["usage_in_usermode"] = sample.cpu_user if sample else 0
    found: Document = {"cpu_usage": usage}
    if sample:
        found["system_cpu_usage"] = sample.system
        found["online_cpus"] = sample.cpus
    found["throttling_data"] = {
        "periods": sample.periods if sample else 0,
        "throttled_periods": sample.throttled_periods if sample else 0,
        "throttled_time": sample.throttled_time if sample else 0,
    }
    return found


def _memory(sample: Sample | None) -> Document:
    if sample is None:
        return {}
    found: Document = {"usage": sample.memory}
    if not sample.unified:
        found["max_usage"] = sample.memory_peak
    found["stats"] = dict(sample.memory_detail)
    if sample.memory_failures:
        found["failcnt"] = sample.memory_failures
    found["limit"] = sample.memory_limit
    return found
