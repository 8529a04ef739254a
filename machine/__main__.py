"""Process entry of `machine` and `docker-machine`: the only place that exits.

An error becomes one message (what failed, why, what to do) and an exit code; a traceback is shown
with --debug only. Ctrl-C stops at once and says how to go on (security.md case 157).
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import click

from machine.cli.root import root
from machine.cli.session import Session
from machine.errors import EXIT_DOCKER_USAGE, EXIT_ERROR, EXIT_INTERRUPTED, MachineError


def main() -> None:
    """Run the command of sys.argv and exit with its status."""
    sys.exit(run(sys.argv))


def run(argv: list[str]) -> int:
    """Run one command; returns the exit status (reference section 1.0)."""
    program = Path(argv[0]).name.removesuffix(".exe")
    if program in {"__main__.py", ""}:
        program = "machine"
    session = Session(program, os.environ, sys.stdin, sys.stdout, sys.stderr)
    try:
        result = root.main(argv[1:], prog_name=program, standalone_mode=False, obj=session)
    except (KeyboardInterrupt, click.Abort):
        return _interrupted(session)
    except (MachineError, click.ClickException, click.exceptions.Exit, OSError) as err:
        session.close()
        return _failed(session, err)
    finally:
        session.close()
    return result if isinstance(result, int) else 0


def _failed(session: Session, err: Exception) -> int:
    if isinstance(err, click.exceptions.Exit):
        return err.exit_code
    if isinstance(err, click.ClickException):
        err.show(file=sys.stderr)
        return EXIT_DOCKER_USAGE if err.exit_code == EXIT_DOCKER_USAGE else EXIT_ERROR
    if isinstance(err, BrokenPipeError):
        _silence_stdout()
        return EXIT_ERROR
    shown = err if isinstance(err, MachineError) else MachineError(_of_system(err))
    _show(session, shown)
    return shown.exit_code


def _show(session: Session, err: MachineError) -> None:
    if session.flags.debug:
        traceback.print_exc(file=sys.stderr)
    for part in (err.brief, err.details, err.hint):
        if part:
            print(_as_called(part, session.program), file=sys.stderr)


def _of_system(err: Exception) -> str:
    """An OSError as programs say it: without its number."""
    if isinstance(err, OSError) and err.filename and err.strerror:
        return f"{err.filename}: {err.strerror}"
    return str(err)


def _as_called(text: str, program: str) -> str:
    """docker-machine's sentences name it; who typed `machine` is told to type `machine`."""
    return text.replace('"docker-machine ', f'"{program} ')


def _interrupted(session: Session) -> int:
    print("\nInterrupted.", file=sys.stderr)
    if session.resume_hint:
        print(session.resume_hint, file=sys.stderr)
    return EXIT_INTERRUPTED


def _silence_stdout() -> None:
    """Keep the interpreter's last flush from complaining about the closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    main()
