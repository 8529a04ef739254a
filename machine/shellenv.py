"""What `machine env` prints, for each shell.  Pure.

The output is evaluated, so every value is quoted for its shell: whatever is in a path or a proxy
list arrives as it is and runs nothing (security.md case 147).  Plain values look exactly as
docker-machine printed them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from machine.errors import MachineError

UNSET = ("DOCKER_TLS_VERIFY", "DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_MACHINE_NAME")


@dataclass(frozen=True)
class Shell:
    """How one shell is spoken to."""

    assign: Callable[[str, str], str]
    unset: Callable[[str], str]
    comment: str
    hint: str  # how the output is evaluated; {command} is our own command line


def _backslashed(value: str, special: str) -> str:
    return "".join(f"\\{c}" if c in special else c for c in value)


def _posix(name: str, value: str) -> str:
    return f'export {name}="{_backslashed(value, chr(92) + chr(34) + "$`")}"'


def _fish(name: str, value: str) -> str:
    return f'set -gx {name} "{_backslashed(value, chr(92) + chr(34) + "$")}";'


def _powershell(name: str, value: str) -> str:
    # PowerShell takes the typographic double quotes for quotes as well.
    quoted = "".join(f"`{c}" if c in '`$"“”„' else c for c in value)
    return f'$Env:{name} = "{quoted}"'


def _cmd(name: str, value: str) -> str:
    if re.search(r'[%\r\n"]', value):
        raise MachineError(
            f"{name} holds a character that cmd.exe cannot take: {value!r}",
            hint="Use PowerShell: --shell powershell.",
        )
    return f"SET {name}=" + "".join(f"^{c}" if c in "^&|<>()!" else c for c in value)


def _tcsh(name: str, value: str) -> str:
    if re.fullmatch(r"[\w./:@,+=-]*", value):
        return f'setenv {name} "{value}";'
    quoted = value.replace("'", "'\\''").replace("!", "\\!").replace("\n", "\\\n")
    return f"setenv {name} '{quoted}';"


def _emacs(name: str, value: str) -> str:
    return f'(setenv "{name}" "{_backslashed(value, chr(92) + chr(34))}")'


_POSIX = Shell(_posix, "unset {}".format, "#", 'eval "$({command})"')
SHELLS: Mapping[str, Shell] = {
    "fish": Shell(_fish, "set -e {};".format, "#", "{command} | source"),
    "powershell": Shell(
        _powershell, "Remove-Item Env:\\\\{}".format, "#", "& {command} | Invoke-Expression"
    ),
    "cmd": Shell(_cmd, "SET {}=".format, "REM", "@FOR /f \"tokens=*\" %i IN ('{command}') DO @%i"),
    "tcsh": Shell(_tcsh, "unsetenv {};".format, ":", "eval `{command}`"),
    "emacs": Shell(
        _emacs,
        '(setenv "{}" nil)'.format,
        ";;",
        '(with-temp-buffer (shell-command "{command}" (current-buffer)) (eval-buffer))',
    ),
}


def detect(environ: Mapping[str, str], *, windows: bool) -> str:
    """The user's shell by the environment.  Raises MachineError when nothing tells."""
    if environ.get("__fish_bin_dir"):
        return "fish"
    found = environ.get("SHELL", "")
    if found:
        return PurePath(found).name
    if windows:
        return "powershell" if environ.get("PSModulePath") else "cmd"
    raise MachineError(
        "Error: Unknown shell",
        details="SHELL is not set.",
        hint="Name it with --shell bash, fish, powershell, cmd, tcsh or emacs.",
    )


def script(
    shell: str, values: Mapping[str, str], *, unset: Sequence[str] = (), command: str
) -> str:
    """Assignments, unsets, and the comment that says how to evaluate them."""
    spoken = SHELLS.get(shell, _POSIX)
    lines = [spoken.assign(name, value) for name, value in values.items()]
    lines += [spoken.unset(name) for name in unset]
    lines.append(f"{spoken.comment} Run this command to configure your shell: ")
    lines.append(f"{spoken.comment} {spoken.hint.format(command=_one_line(command))}")
    return "\n".join(lines)


def _one_line(command: str) -> str:
    """The hint is a comment: a newline in an argument must not end it."""
    return command.replace("\r", "\\r").replace("\n", "\\n")


def no_proxy(environ: Mapping[str, str], address: str) -> tuple[str, str]:
    """(variable, value) with `address` appended, whichever spelling is in use."""
    name = "no_proxy" if environ.get("no_proxy") or not environ.get("NO_PROXY") else "NO_PROXY"
    known = [word for word in environ.get(name, "").split(",") if word]
    return name, ",".join(known if address in known else [*known, address])
