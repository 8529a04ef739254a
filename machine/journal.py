"""What create has done and is about to do: written before each step and after it. Pure.

A step that is DOING when a record is read was cut off. Every step can be run again, so resuming is
running from the first step that is not DONE; the driver's own parts are in `driver_state`.
"""

from __future__ import annotations

import datetime as dt
import enum

from machine.model import JournalEntry, MachineRecord, StepStatus


class Step(enum.Enum):
    """The steps of create, in order."""

    HOST = "host"  # the driver makes the host
    CONNECT = "connect"  # SSH answers and its key is pinned
    PROVISION = "provision"  # packages, agent, certificate, service
    VERIFY = "verify"  # the engine answers over mutual TLS


def doing(record: MachineRecord, step: Step, now: float) -> MachineRecord:
    return _noted(record, step, StepStatus.DOING, now)


def done(record: MachineRecord, step: Step, now: float) -> MachineRecord:
    return _noted(record, step, StepStatus.DONE, now)


def started(record: MachineRecord, step: Step) -> bool:
    """True when the step may have changed something."""
    return any(entry.step == step.value for entry in record.journal)


def cut_off(record: MachineRecord) -> str:
    """The step that a create stopped in, "" when it stopped between steps."""
    return next((e.step for e in record.journal if e.status is StepStatus.DOING), "")


def timestamp(now: float) -> str:
    """RFC 3339 in UTC, to the second."""
    return dt.datetime.fromtimestamp(int(now), dt.UTC).isoformat().replace("+00:00", "Z")


def _noted(record: MachineRecord, step: Step, status: StepStatus, now: float) -> MachineRecord:
    entry = JournalEntry(step.value, status, timestamp(now))
    others = tuple(e for e in record.journal if e.step != step.value)
    return record.with_changes(journal=(*others, entry))
