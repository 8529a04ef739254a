"""Compiled system call filters, kept for the next container with the same profile.

crun 1.8 gives 380 names for three architectures to libseccomp at each create: 30 of 45 ms, measured.
It leaves the compiled program in its state directory (exec reads it there), and takes one by the
annotation `run.oci.seccomp_bpf_data`.  So the first container pays, the others do not.  The
programs live in $RUN (root only, gone at boot) under the hash of the exact profile.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
from collections.abc import Mapping

ANNOTATION = "run.oci.seccomp_bpf_data"
_INSTRUCTION = 8  # bytes of a struct sock_filter


class FilterCache:
    """`folder` below $RUN; `enabled` only for crun."""

    def __init__(self, folder: str, *, enabled: bool) -> None:
        self._folder = folder
        self._enabled = enabled
        self._known: dict[str, str] = {}
        if enabled:
            os.makedirs(folder, mode=0o700, exist_ok=True)

    def key(self, profile: object) -> str:
        """ "" when there is nothing to keep."""
        if not self._enabled or not profile:
            return ""
        return hashlib.sha256(json.dumps(profile, sort_keys=True).encode()).hexdigest()

    def annotations(self, key: str) -> Mapping[str, str]:
        """What config.json's annotations must hold; empty when it is not known yet."""
        if not key:
            return {}
        if key not in self._known:
            try:
                with open(f"{self._folder}/{key}", "rb") as file:
                    program = file.read()
            except OSError:
                return {}
            if not _plausible(program):
                return {}
            self._known[key] = base64.b64encode(program).decode("ascii")
        return {ANNOTATION: self._known[key]}

    def learn(self, key: str, state: str) -> None:
        """Keep what crun has compiled (in its `state` directory of a container just created)."""
        if not key or key in self._known:
            return
        with contextlib.suppress(OSError):
            with open(f"{state}/seccomp.bpf", "rb") as file:
                program = file.read()
            if not _plausible(program):
                return
            aside = f"{self._folder}/{key}.{os.getpid()}"
            with open(aside, "wb") as out:
                out.write(program)
            os.rename(aside, f"{self._folder}/{key}")


def _plausible(program: bytes) -> bool:
    return len(program) > 16 * _INSTRUCTION and len(program) % _INSTRUCTION == 0
