"""The lab's one way to run programs: argv lists, nothing on stdin unless given, errors that can be pasted."""

import shlex
import subprocess
from collections.abc import Sequence

from tests.lab.environment import CLEAN_ENVIRONMENT
from tests.lab.errors import LabError


def run(
    argv: Sequence[str],
    *,
    text: str = "",
    check: bool = True,
    cwd: str | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `argv` with `text` on stdin and a clean environment; both outputs are captured.

    Raises LabError when `check` is set and the status is not 0, or after `timeout` seconds.
    """
    try:
        done = subprocess.run(
            list(argv),
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=dict(CLEAN_ENVIRONMENT),
            cwd=cwd,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as gone:
        raise LabError(f"{argv[0]}: no such program (apt-get install it)") from gone
    except subprocess.TimeoutExpired as late:
        raise LabError(f"no end within {timeout} s: {shlex.join(argv)}") from late
    if check and done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise LabError(f"status {done.returncode}: {shlex.join(argv)}\n{tail}")
    return done
