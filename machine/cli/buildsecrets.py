"""`machine build --secret`: docker's words for a secret, as the header that our engine reads.

The values travel over the unix socket or mutual TLS only; they are in no argv and no error text.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from machine.errors import MachineError

HEADER: Final = "X-Machine-Build-Secrets"
_KEYS: Final = frozenset({"id", "src", "source", "env", "type"})
_LIMIT: Final = 14 * 1024  # all together; the engine takes 32 KiB of request head


def header(words: Iterable[str], env: Mapping[str, str]) -> dict[str, str]:
    """`id=NAME[,src=FILE|,env=VARIABLE]` each; NAME alone: a variable or file of that name.

    Raises MachineError, which names a secret's id and source but never its value.
    """
    given = {}
    for word in words:
        identity, content = _one(word, env)
        given[identity] = base64.b64encode(content).decode("ascii")
    if not given:
        return {}
    if sum(map(len, given.values())) > _LIMIT * 4 // 3:
        raise MachineError(f"the secrets are larger than {_LIMIT} bytes together")
    raw = json.dumps(given).encode()
    return {HEADER: base64.urlsafe_b64encode(raw).decode("ascii")}


def _one(word: str, env: Mapping[str, str]) -> tuple[str, bytes]:
    fields = dict(part.partition("=")[::2] for part in word.split(","))
    unknown = sorted(set(fields) - _KEYS)
    if unknown:
        raise MachineError(f"unexpected key '{unknown[0]}' in --secret")
    kind = fields.get("type") or ""
    if kind not in ("", "file", "env"):
        raise MachineError(f"unsupported secret type '{kind}'")
    source = fields.get("src") or fields.get("source") or ""
    identity = fields.get("id") or Path(source).name
    if not identity:
        raise MachineError("--secret needs an id", hint="--secret id=NAME,src=FILE")
    variable = fields.get("env") or (source if kind == "env" else "")
    if not variable and not source and kind != "file" and identity in env:
        variable = identity
    if variable:
        if variable not in env:
            raise MachineError(f"secret {identity}: there is no variable {variable}")
        return identity, env[variable].encode()
    return identity, _file(identity, source or identity)


def _file(identity: str, path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(_LIMIT + 1)
    except OSError as error:
        raise MachineError(f"secret {identity}: can't read {path}: {error.strerror}") from error
