"""Checks of a request's resource limits, with Docker Engine's texts (verifyPlatformContainerResources)."""

from __future__ import annotations

from typing import Final

from agent.engine.model import Resources
from agent.errors import invalid

SMALLEST_MEMORY: Final = 6 << 20


def validate(resources: Resources, *, cpus: int, realtime: bool) -> tuple[str, ...]:
    """Raises INVALID; returns warnings.  `realtime`: whether the kernel has real-time groups."""
    _memory(resources)
    _processors(resources, cpus)
    _real_time(resources, known=realtime)
    if resources.oom_kill_disable and not resources.memory:
        return (
            (
                "OOM killer is disabled for the container, but no memory limit is set, this can"
                " result in the system running out of resources."
            ),
        )
    return ()


def _memory(given: Resources) -> None:
    if given.memory < 0 or 0 < given.memory < SMALLEST_MEMORY:
        raise invalid("Minimum memory limit allowed is 6MB")
    if given.memory_swap > 0 and not given.memory:
        raise invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    if given.memory_swap > 0 and given.memory_swap < given.memory:
        raise invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
    if 0 < given.memory_reservation < SMALLEST_MEMORY:
        raise invalid("Minimum memory reservation allowed is 6MB")
    if 0 < given.memory < given.memory_reservation:
        raise invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    swappiness = given.memory_swappiness
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise invalid(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")


def _real_time(given: Resources, *, known: bool) -> None:
    runtime, period = given.cpu_realtime_runtime, given.cpu_realtime_period
    if not known and (runtime or period):
        field = "CpuRealtimeRuntime" if runtime else "CpuRealtimePeriod"
        raise invalid(f"Your kernel does not support CPU real-time scheduler ({field})")
    if runtime and period and runtime > period:
        raise invalid("cpu real-time runtime cannot be higher than cpu real-time period")
    if runtime < 0 or period < 0:
        raise invalid("cpu real-time runtime and period must not be negative")


def _processors(given: Resources, cpus: int) -> None:
    if given.nano_cpus and (given.cpu_period or given.cpu_quota):
        raise invalid(
            "Conflicting options: Nano CPUs and CPU "
            + ("Period" if given.cpu_period else "Quota")
            + " cannot both be set."
        )
    if given.nano_cpus < 0 or given.nano_cpus > cpus * 1_000_000_000:
        raise invalid(
            f"Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )
    if given.cpu_period and not 1000 <= given.cpu_period <= 1_000_000:
        raise invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < given.cpu_quota < 1000:
        raise invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if given.cpu_shares < 0:
        raise invalid(f"invalid CPU shares ({given.cpu_shares}): value must be a positive integer")
