"""From what crun, runc and conmon say to what Docker says.

The docker CLI finds exit code 127 by "executable file not found" / "no such file or directory" and
126 by "permission denied" in these texts (docker/cli, `toStatusError`); scripts match them too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from agent.errors import EngineError, Kind

_CREATE = (
    "failed to create task for container: failed to create shim task: "
    "OCI runtime create failed: {} create failed: {}: unknown"
)
_EXEC = "OCI runtime exec failed: {}: unknown"
_MISSING = re.compile(r"executable file [`'\"]?(.*?)[`'\"]? not found in \$PATH", re.DOTALL)
_DENIED = re.compile(
    r"(?:open executable|cannot open|exec(?:ve)?)\b.*?(?:permission denied|operation not permitted)",
    re.IGNORECASE | re.DOTALL,
)
_LOGRUS = re.compile(r'msg="((?:[^"\\]|\\.)*)"')


def messages(text: str) -> str:
    """The human part of a runtime's log: JSON lines, logrus lines or plain text; the last one."""
    found = ""
    for line in text.strip().splitlines():
        found = _message(line.strip()) or found
    return found[:4000]


def _message(line: str) -> str:
    if line.startswith("{"):
        try:
            document = json.loads(line)
        except ValueError:
            return line
        if isinstance(document, dict) and isinstance(document.get("msg"), str):
            return str(document["msg"]).strip()
    match = _LOGRUS.search(line)
    if match:
        return match.group(1).replace('\\"', '"').replace("\\\\", "\\")
    return line


def _cause(said: str, args: Sequence[str]) -> tuple[Kind, str]:
    """(kind, Docker's wording of the cause)."""
    program = args[0] if args else ""
    text = re.sub(r"^(runc|crun) (create|run) failed: ", "", said)
    missing = _MISSING.search(text)
    if missing and "unable to start container process" not in text:
        if "/" in program:
            reason = f"stat {program}: no such file or directory"
        else:
            reason = "executable file not found in $PATH"
        return Kind.INVALID, f'unable to start container process: exec: "{program}": {reason}'
    if (
        "unable to start container process: exec" in text
        or "error during container init: exec" in text
    ):
        return Kind.INVALID, text
    if _DENIED.search(text):
        return (
            Kind.INVALID,
            f'unable to start container process: exec: "{program}": permission denied',
        )
    return Kind.INTERNAL, text or "no message from the runtime"


def create_error(runtime: str, said: str, args: Sequence[str]) -> EngineError:
    """The error of a container that the runtime could not make."""
    kind, cause = _cause(messages(said), args)
    return EngineError(kind, _CREATE.format(runtime, cause))


def exec_error(said: str, args: Sequence[str]) -> EngineError:
    """The error of an exec that did not start."""
    text = re.sub(r"^exec failed: ", "", messages(said))
    kind, cause = _cause(text, args)
    return EngineError(kind, _EXEC.format(f"exec failed: {cause}"))


def exec_code(error: EngineError) -> int:
    """The exit code that Docker records for an exec that did not start: 127 missing, 126 else."""
    missing = "executable file not found" in error.message or "no such file" in error.message
    return 127 if missing else 126
