"""In-memory reference driver: the first that passes `drivers.testkit`, with faults on demand.

`FakeCloud` is the provider. `faults` maps the name of a provider call to how it fails, once: before
it did anything ("before") or after it succeeded ("after", an answer that was lost).
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from drivers.api import Address, DriverContext, HostState, Made, Size, SshLogin, Via
from drivers.errors import ConflictError, DriverError, GoneError, InvalidError
from drivers.options import Kind, OptionSpec
from drivers.polling import retried

T = TypeVar("T")

OPTIONS: Final = (
    OptionSpec(
        "token", ("--fake-token",), "Secret of the account", env=("FAKE_TOKEN",), secret=True
    ),
    OptionSpec("size", ("--fake-size",), "small or large", default="small", env=("FAKE_SIZE",)),
    OptionSpec("ssh-port", ("--fake-ssh-port",), "SSH port", kind=Kind.PORT, default=22),
    OptionSpec("tag", ("--fake-tag",), "Tags of the server", kind=Kind.LIST, default=()),
)
SIZES: Final = ("small", "large")


@dataclasses.dataclass
class Server:
    """A server at the fake provider."""

    ident: str
    tag: str  # the machine's uuid
    state: HostState
    address: str
    size: str = "small"
    snapshots: list[str] = dataclasses.field(default_factory=list)


class FakeCloud:
    """A provider that keeps keys and servers in memory. Thread-safe."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}  # id -> tag
        self.servers: dict[str, Server] = {}
        self.faults: dict[str, str] = {}
        self.calls: list[str] = []
        self._lock = threading.Lock()
        self._count = 0

    def make_key(self, tag: str) -> str:
        with self._lock, self._fault("make_key"):
            known = next((k for k, owner in self.keys.items() if owner == tag), "")
            ident = known or self._ident("key")
            self.keys[ident] = tag
            return ident

    def make_server(self, tag: str) -> str:
        with self._lock, self._fault("make_server"):
            for server in self.servers.values():
                if server.tag == tag:
                    return server.ident
            ident = self._ident("server")
            address = f"192.0.2.{self._count}"
            self.servers[ident] = Server(ident, tag, HostState.RUNNING, address)
            return ident

    def delete(self, ident: str) -> None:
        with self._lock, self._fault("delete"):
            self.keys.pop(ident, None)
            self.servers.pop(ident, None)

    def find(self, tag: str) -> tuple[list[str], list[Server]]:
        """(ids of keys, servers) with that tag."""
        with self._lock, self._fault("find"):
            keys = [k for k, owner in self.keys.items() if owner == tag]
            return keys, [s for s in self.servers.values() if s.tag == tag]

    def turn(self, ident: str, state: HostState) -> None:
        with self._lock, self._fault("turn"):
            self.servers[ident].state = state

    def keep(self, ident: str, label: str) -> None:
        with self._lock, self._fault("keep"):
            if label in self.servers[ident].snapshots:
                raise ConflictError(f"there is a snapshot {label} already")
            self.servers[ident].snapshots.append(label)

    def drop(self, ident: str, label: str) -> None:
        with self._lock, self._fault("drop"):
            if label in self.servers[ident].snapshots:
                self.servers[ident].snapshots.remove(label)

    def resize(self, ident: str, size: str) -> None:
        with self._lock, self._fault("resize"):
            if size not in SIZES:
                raise InvalidError(f"no size {size}: there is only {' and '.join(SIZES)}")
            self.servers[ident].size = size

    def _ident(self, kind: str) -> str:
        self._count += 1
        return f"{kind}-{self._count}"

    def _fault(self, call: str) -> _Fault:
        self.calls.append(call)
        return _Fault(self.faults.pop(call, ""), call)


class _Fault:
    """Fails at the beginning or at the end of a provider call, or not at all."""

    def __init__(self, when: str, call: str) -> None:
        self._when = when
        self._call = call

    def __enter__(self) -> None:
        if self._when == "before":
            raise DriverError(f"{self._call}: 500 internal error")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._when == "after" and kind is None:
            raise DriverError(f"{self._call}: timeout")


class FakeDriver:
    """Makes a key and a server, one after the other, found again by the machine's uuid."""

    name = "fake"
    summary = "in memory, for tests"
    options = OPTIONS
    adopts = False

    def __init__(self, cloud: FakeCloud) -> None:
        self.cloud = cloud

    def check(self, ctx: DriverContext) -> list[str]:
        problems = []
        if not ctx.text("token"):
            problems.append("--fake-token (or FAKE_TOKEN) is missing")
        if ctx.text("size") not in SIZES:
            problems.append(f"--fake-size {ctx.text('size')}: there is only {' and '.join(SIZES)}")
        return problems

    def create(self, ctx: DriverContext) -> Iterator[Made]:
        cloud = self.cloud
        keys, servers = self._find(ctx)
        if not ctx.state.get("key"):
            key = keys[0] if keys else _call(ctx, "make_key", lambda: cloud.make_key(ctx.uuid))
            yield Made("key", key, "Creating SSH key...")
        if not ctx.state.get("server"):
            made = (
                servers[0].ident
                if servers
                else _call(ctx, "make_server", lambda: cloud.make_server(ctx.uuid))
            )
            yield Made("server", made, "Creating server...")

    def remove(self, ctx: DriverContext) -> None:
        keys, servers = self._find(ctx)
        for ident in [*(s.ident for s in servers), *keys]:
            _call(ctx, "delete", functools.partial(self.cloud.delete, ident))
        if self._find(ctx) != ([], []):
            raise DriverError("the provider still lists what was deleted")

    def state(self, ctx: DriverContext) -> HostState:
        server = self._server(ctx)
        return server.state if server else HostState.NOT_FOUND

    def address(self, ctx: DriverContext) -> Address:
        server = self._existing(ctx)
        login = SshLogin(server.address, ctx.number("ssh-port"), "root")
        return Address(server.address, via=Via.SSH, ssh=login)

    def start(self, ctx: DriverContext) -> None:
        self._turn(ctx, HostState.RUNNING)

    def stop(self, ctx: DriverContext) -> None:
        self._turn(ctx, HostState.STOPPED)

    def kill(self, ctx: DriverContext) -> None:
        self._turn(ctx, HostState.STOPPED)

    def suspend(self, ctx: DriverContext) -> None:
        self._turn(ctx, HostState.SAVED)

    def resume(self, ctx: DriverContext) -> None:
        self._turn(ctx, HostState.RUNNING)

    def snapshot(self, ctx: DriverContext, label: str) -> None:
        ident = self._existing(ctx).ident
        _call(ctx, "keep", lambda: self.cloud.keep(ident, label))

    def snapshots(self, ctx: DriverContext) -> list[str]:
        return list(self._existing(ctx).snapshots)

    def restore(self, ctx: DriverContext, label: str) -> None:
        if label not in self._existing(ctx).snapshots:
            raise GoneError(f"there is no snapshot {label}")

    def drop_snapshot(self, ctx: DriverContext, label: str) -> None:
        ident = self._existing(ctx).ident
        _call(ctx, "drop", lambda: self.cloud.drop(ident, label))

    def resize(self, ctx: DriverContext, size: Size) -> None:
        if not size.plan:
            raise InvalidError("this provider has named sizes only")
        ident = self._existing(ctx).ident
        _call(ctx, "resize", lambda: self.cloud.resize(ident, size.plan))

    def console(self, ctx: DriverContext) -> str:
        return f"{self._existing(ctx).address} login: "

    def owned(self, ctx: DriverContext) -> list[tuple[str, str]]:
        del ctx
        cloud = self.cloud
        return [(tag, f"key {ident}") for ident, tag in cloud.keys.items()] + [
            (s.tag, f"server {s.ident}") for s in cloud.servers.values()
        ]

    def _server(self, ctx: DriverContext) -> Server | None:
        return next(iter(self._find(ctx)[1]), None)

    def _existing(self, ctx: DriverContext) -> Server:
        server = self._server(ctx)
        if server is None:
            raise GoneError("the server does not exist")
        return server

    def _find(self, ctx: DriverContext) -> tuple[list[str], list[Server]]:
        return _call(ctx, "find", lambda: self.cloud.find(ctx.uuid))

    def _turn(self, ctx: DriverContext, state: HostState) -> None:
        server = self._existing(ctx)
        if server.state is not state:
            _call(ctx, "turn", lambda: self.cloud.turn(server.ident, state))


def _call(ctx: DriverContext, name: str, action: Callable[[], T]) -> T:
    """Through the door, again while the provider has a bad moment.

    `make_key` and `make_server` are idempotent by tag at this provider, as with a client token.
    """
    return retried(lambda: ctx.door.call(name, action), clock=ctx.clock)


DRIVER: Final = FakeDriver(FakeCloud())
