"""Containers' processes: OCI specifications, crun or runc under conmon, stdio, logs, ends."""

from __future__ import annotations

from agent.runtime.adapter import OciRuntime, open_runtime
from agent.runtime.settings import RuntimeSettings

__all__ = ["OciRuntime", "RuntimeSettings", "open_runtime"]
