"""A session under tmux: a real terminal, as a person sits before it."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.waiting import wait_until
from tests.support.installed import MACHINE, PATIENCE, Installed

_PROMPT = "READY>"


class Tmux:
    """One tmux server with one window that runs a plain shell."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._socket = folder / "tmux"
        program = shutil.which("tmux")
        assert program, "tmux is not installed (apt-get install tmux)"
        self._program = program
        self._environment = {**environment, "TERM": "screen", "PS1": f"{_PROMPT} ", "HISTFILE": ""}
        self._call("-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "40",
                   "env", "-u", "BASH_ENV", "bash", "--norc", "--noprofile", "-i")  # fmt: skip
        self.see(_PROMPT)

    def _call(self, *arguments: str) -> str:
        done = subprocess.run(
            [self._program, "-S", str(self._socket), *arguments],
            capture_output=True, text=True, env=self._environment, check=True, timeout=20,
        )  # fmt: skip
        return done.stdout

    def screen(self) -> str:
        """What is on it, with its history."""
        return self._call("capture-pane", "-p", "-J", "-S", "-2000")

    def type(self, text: str, *keys: str) -> None:
        """Type this, then press those keys (tmux names: Enter, C-c)."""
        self._call("send-keys", "-l", text)
        if keys:
            self._call("send-keys", *keys)

    def press(self, *keys: str) -> None:
        """Press keys."""
        self._call("send-keys", *keys)

    def resize(self, columns: int, rows: int) -> None:
        """Drag the window's corner."""
        self._call("resize-window", "-x", str(columns), "-y", str(rows))

    def see(self, pattern: str, seconds: float = PATIENCE) -> re.Match[str]:
        """Wait until the screen shows it."""
        found: list[re.Match[str]] = []

        def shown() -> bool:
            match = re.search(pattern, self.screen(), re.MULTILINE)
            if match:
                found.append(match)
            return bool(match)

        try:
            wait_until(shown, seconds, f"{pattern!r} on the screen", interval=0.03)
        except Exception as late:
            raise AssertionError(f"{late}\n{self.screen()}") from late
        return found[0]

    def prompt(self) -> None:
        """Wait for the shell's prompt at the end: what is typed earlier, a client still reads."""
        self.see(rf"{_PROMPT}\s*\Z")

    def clear(self) -> None:
        """A new page, so that what was seen is not seen again."""
        self.press("C-l")
        self._call("clear-history")

    def close(self) -> None:
        """End the server with all in it."""
        subprocess.run([self._program, "-S", str(self._socket), "kill-server"],
                       capture_output=True, timeout=20)  # fmt: skip


@pytest.fixture
def tmux(box: Installed, tmp_path: Path) -> Iterator[Tmux]:
    """A terminal with the machine's environment."""
    session = Tmux(tmp_path, box.environment)
    try:
        yield session
    finally:
        session.close()


@pytest.mark.parametrize("program", ["docker", "machine"])
def test_a_session_in_debian(box: Installed, tmux: Tmux, program: str) -> None:
    box.docker("pull", "-q", "debian")
    command = "docker" if program == "docker" else shlex.quote(str(MACHINE))
    tmux.type("stty -a | md5sum", "Enter")
    before = tmux.see(r"^[0-9a-f]{32}").group()

    tmux.type(f"{command} run -ti --name term debian bash", "Enter")
    tmux.see(r"root@[0-9a-f]{12}:/# ")
    tmux.type("stty size; echo sum=$((40+2))", "Enter")
    tmux.see("^40 120")
    tmux.see("^sum=42")

    tmux.resize(99, 33)
    tmux.type("until [ \"$(stty size)\" = '33 99' ]; do sleep 0.05; done; echo resized", "Enter")
    tmux.see("^resized")

    tmux.type("sh -c 'echo asleep; exec sleep 1000'", "Enter")
    tmux.see("^asleep")
    tmux.press("C-c")
    tmux.type("echo interrupted=$?", "Enter")
    tmux.see("^interrupted=130")

    tmux.clear()
    tmux.press("C-p", "C-q")
    tmux.prompt()
    tmux.type("echo outside-$?", "Enter")
    tmux.see("^outside-[01]")
    assert box.state("term")["Running"] is True

    tmux.clear()
    tmux.type(f"{command} attach term", "Enter")
    tmux.press("Enter")
    tmux.see(r"root@[0-9a-f]{12}:/# ")
    tmux.type("exit 37", "Enter")
    tmux.prompt()
    tmux.type("echo status=$?", "Enter")
    tmux.see("^status=37")

    tmux.resize(120, 40)
    tmux.clear()
    tmux.type("stty -a | md5sum", "Enter")
    assert tmux.see(r"^[0-9a-f]{32}").group() == before, "the terminal was not put back"


@pytest.mark.parametrize("program", ["docker", "machine"])
def test_exec_in_a_terminal(box: Installed, tmux: Tmux, program: str) -> None:
    box.docker("run", "-d", "--name", "one", "busybox", "sleep", "1000")
    command = "docker" if program == "docker" else shlex.quote(str(MACHINE))
    tmux.type(f"{command} exec -ti one sh", "Enter")
    tmux.see("^/ # ")
    tmux.type("stty size; echo hello from $((1+1))", "Enter")
    tmux.see("^40 120")
    tmux.see("^hello from 2")
    tmux.resize(90, 30)
    tmux.type("until [ \"$(stty size)\" = '30 90' ]; do sleep 0.1; done; echo resized", "Enter")
    tmux.see("^resized")
    tmux.clear()
    tmux.type("exit 5", "Enter")
    tmux.prompt()
    tmux.type("echo status=$?", "Enter")
    tmux.see("^status=5")


def test_full_screen_program(box: Installed, tmux: Tmux) -> None:
    """vi draws, keys arrive as they are, and the screen comes back."""
    tmux.type(f"{shlex.quote(str(MACHINE))} run --rm -ti busybox vi /tmp/x", "Enter")
    tmux.see("^~")
    tmux.type("ihello", "Escape")
    tmux.see("^hello")
    tmux.see("^- /tmp/x")  # Escape has been understood: not the beginning of Alt-:
    tmux.type(":q!", "Enter")
    tmux.prompt()
    tmux.type("echo status=$?", "Enter")
    tmux.see("^status=0")


def test_terminal_is_put_back_after_the_connection_died(box: Installed, tmux: Tmux) -> None:
    tmux.type(f"{shlex.quote(str(MACHINE))} run --name gone -ti busybox sh", "Enter")
    tmux.see("^/ # ")
    box.docker("rm", "-f", "gone")
    tmux.prompt()
    tmux.type("echo status=$?", "Enter")
    tmux.see(r"^status=\d+")
    tmux.type("stty -a | tr ' ;' '\\n\\n' | grep -x -e icanon -e echo | sort | tr '\\n' +", "Enter")
    tmux.see(r"echo\+icanon\+")
