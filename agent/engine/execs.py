"""Programs beside a container's own (`docker exec`): in memory only, as in Docker Engine."""

from __future__ import annotations

import dataclasses
import logging
import secrets
import threading
from dataclasses import dataclass

from agent.engine.attachments import Message
from agent.engine.core import Core, stepped
from agent.engine.failures import failure_code
from agent.engine.lifecycle import Happening
from agent.engine.model import ExecConfig, ExecInfo
from agent.engine.ports import ExecProcess
from agent.errors import EngineError, conflict, invalid, not_found
from agent.wire.streams import Duplex

_log = logging.getLogger(__name__)


@dataclass
class _Entry:
    """One exec; `process` is there from its start on."""

    info: ExecInfo
    process: ExecProcess | None = None
    started: bool = False
    size: tuple[int, int] | None = None  # a resize that came before the process


class Execs:
    """`agent.api.backend.Execs`.  An ended exec is forgotten some minutes later, or with its
    container."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    def create(self, reference: str, config: ExecConfig) -> str:
        """CONFLICT when the container does not run or is paused."""
        if not config.cmd or not config.cmd[0]:
            raise invalid("No exec command specified")
        if any("\0" in word for word in (*config.cmd, *config.env, config.working_dir)):
            raise invalid("a NUL byte is not allowed in a command, its environment or its folder")
        if config.working_dir and not config.working_dir.startswith("/"):
            raise invalid(
                f"the working directory '{config.working_dir}' is invalid, it needs to be an"
                " absolute path"
            )
        container = self._core.book.find(reference)
        stepped(container, Happening.EXEC)
        info = ExecInfo(secrets.token_hex(32), container.id, config)
        with self._lock:
            self._entries[info.id] = _Entry(info)
        self._announce("exec_create", info)
        return info.id

    def get(self, exec_id: str) -> ExecInfo:
        with self._lock:
            return self._entry(exec_id).info

    def of(self, container_id: str) -> list[str]:
        with self._lock:
            return [
                entry.info.id
                for entry in self._entries.values()
                if entry.info.container_id == container_id and entry.info.exit_code is None
            ]

    def start(self, exec_id: str, *, detach: bool, tty: bool) -> Duplex | None:
        """None when detached.  An attached exec that can't be started gives a stream that says why
        and ends, exit code 126 or 127, as docker; a detached one raises.

        `tty` must not differ from the exec's own; what was created wins, as in docker.
        """
        entry = self._claim(exec_id)
        try:
            process = self._run(entry.info, detach=detach)
        except EngineError as error:
            self._ended(exec_id, failure_code(error.message), announce=False)
            if detach:
                raise
            # tty: what the client's terminal was told to expect decides how its bytes are framed.
            return Message(f"{error.message}\r\n".encode(), tty=entry.info.config.tty or tty)
        with self._lock:
            entry.process = process
            if entry.info.exit_code is None:
                entry.info = dataclasses.replace(entry.info, pid=process.pid)
            size = entry.size
        if size is not None:
            process.resize(*size)
        return process.stream()

    def resize(self, exec_id: str, height: int, width: int) -> None:
        with self._lock:
            entry = self._entry(exec_id)
            if not entry.info.running:
                raise conflict(f"exec {exec_id} is not running")
            process, entry.size = entry.process, (height, width)
        if process is not None:  # else it is being started, and gets the size then
            process.resize(height, width)

    def forget(self, container_id: str) -> None:
        """The container was removed."""
        with self._lock:
            for exec_id in [
                one.info.id
                for one in self._entries.values()
                if one.info.container_id == container_id
            ]:
                del self._entries[exec_id]

    def _entry(self, exec_id: str) -> _Entry:
        found = self._entries.get(exec_id)
        if found is None:
            raise not_found(f"No such exec instance: {exec_id}")
        return found

    def _claim(self, exec_id: str) -> _Entry:
        """Marks it as running: only one start may win."""
        with self._lock:
            entry = self._entry(exec_id)
            if entry.info.exit_code is not None:
                raise conflict(f"Error: Exec command {exec_id} has already run")
            if entry.started:
                raise conflict(f"Error: Exec command {exec_id} is already running")
            container = self._core.book.find(entry.info.container_id)
            stepped(container, Happening.EXEC)
            entry.started = True
            entry.info = dataclasses.replace(entry.info, running=True)
        return entry

    def _run(self, info: ExecInfo, *, detach: bool) -> ExecProcess:
        container = self._core.book.find(info.container_id)
        self._announce("exec_start", info)  # before it may end, as Docker has it
        return self._core.ports.runtime.exec(
            container,
            info.config,
            info.id,
            detach=detach,
            on_exit=lambda code: self._ended(info.id, code, announce=True),
        )

    def _ended(self, exec_id: str, code: int, *, announce: bool) -> None:
        with self._lock:
            entry = self._entries.get(exec_id)
            if entry is None:
                return
            entry.info = dataclasses.replace(entry.info, running=False, exit_code=code, pid=0)
            entry.process = None
            info = entry.info
        self._core.timers.after(self._core.settings.exec_memory, lambda: self._drop(exec_id))
        if announce:
            container = self._core.book.get(info.container_id)
            if container is not None:
                self._core.event(container, "exec_die", execID=exec_id, exitCode=str(code))

    def _drop(self, exec_id: str) -> None:
        with self._lock:
            self._entries.pop(exec_id, None)

    def _announce(self, action: str, info: ExecInfo) -> None:
        container = self._core.book.get(info.container_id)
        if container is not None:
            command = " ".join(info.config.cmd)
            self._core.event(container, f"{action}: {command}", execID=info.id)
