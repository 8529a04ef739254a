"""Containers of a build's RUN: the engine's own way of starting one, without a record.

Such a container lives as long as its build.  Nothing of it is written to the records, so a crash
needs no undoing of its own: what it left (process, network, files) carries an id that no record
knows, and recovery removes that as it removes every stranger.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable

from agent.engine.building import Gone
from agent.engine.core import Core
from agent.engine.joining import Joining
from agent.engine.model import Container
from agent.engine.ports import Launch, Rootfs
from agent.engine.waits import NEXT_EXIT, EndWaiter
from agent.errors import EngineError, Kind, cancelled, internal
from agent.wire.streams import Duplex

_TICK = 0.2  # seconds between looks at whether the client has gone
_LAST_OUTPUT = 5.0  # seconds that output may still come after the end
_KILL = 9
_KILL_PATIENCE = 10.0  # seconds


class BuildRuns:
    """`agent.engine.building.Runs`"""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._joining = Joining(core)

    def run(
        self,
        container: Container,
        rootfs: Rootfs,
        output: Callable[[int, bytes], None],
        gone: Gone,
    ) -> int:
        """See the port."""
        core, identity = self._core, container.id
        waiter = core.waits.register(identity, NEXT_EXIT)
        with contextlib.ExitStack() as undo:
            undo.callback(waiter.close)
            undo.callback(core.ports.runtime.remove_logs, identity)
            undo.callback(core.files.remove, identity)
            sandbox = self._joining.join(container)
            undo.callback(self._joining.leave, container, sandbox)
            pid = core.ports.runtime.create(
                Launch(
                    container=container,
                    rootfs=rootfs,
                    hostname=sandbox.hostname,
                    etc_hosts=sandbox.etc.hosts,
                    etc_hostname=sandbox.etc.hostname,
                    etc_resolv_conf=sandbox.etc.resolv_conf,
                    network_namespace=sandbox.namespace,
                    mounts=container.mounts,
                )
            )
            undo.callback(core.ports.runtime.delete, identity)
            self._joining.plug(container, sandbox, pid)
            stream = core.ports.runtime.attach(identity)
            undo.callback(stream.close)
            core.ports.runtime.start(identity)
            return self._follow(identity, stream, waiter, output, gone)

    def _follow(
        self,
        identity: str,
        stream: Duplex,
        waiter: EndWaiter,
        output: Callable[[int, bytes], None],
        gone: Gone,
    ) -> int:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLIN)
        poll.register(waiter.fileno(), select.POLLIN)
        ended = False
        while not ended:
            if gone():
                self._kill(identity, waiter)
                raise cancelled("the build was cancelled: the client has gone")
            ready = {fd for fd, _ in poll.poll(int(_TICK * 1000))}
            if stream.fileno() in ready and not self._pump(stream, output):
                break
            ended = waiter.result() is not None
        while (result := waiter.wait(_TICK)) is None:
            if gone():
                self._kill(identity, waiter)
        if ended:
            self._rest(stream, output)
        if result.error:
            raise internal(result.error)
        return result.status_code

    def _pump(self, stream: Duplex, output: Callable[[int, bytes], None]) -> bool:
        """False at the end of the output."""
        found = stream.read()
        for number, data in found or ():
            output(number, data)
        return found is None or bool(found)

    def _rest(self, stream: Duplex, output: Callable[[int, bytes], None]) -> None:
        """What was said before the end and is still in the socket."""
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLIN)
        while poll.poll(int(_LAST_OUTPUT * 1000)) and self._pump(stream, output):
            pass

    def _kill(self, identity: str, waiter: EndWaiter) -> None:
        try:
            self._core.ports.runtime.signal(identity, _KILL)
        except EngineError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
        waiter.wait(_KILL_PATIENCE)
