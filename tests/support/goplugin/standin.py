"""docker-machine-driver-standin in Python: a plugin on a thread, its provider a folder of files.

The same as standin/main.go, without the Go library: tests choose how it misbehaves.
"""

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from drivers.plugins import gob
from drivers.plugins.rpc import EMPTY

RESPONSE = gob.Struct(
    "Response", (("ServiceMethod", gob.STRING), ("Seq", gob.UINT), ("Error", gob.STRING))
)
_NAMES = (("Name", gob.STRING), ("Usage", gob.STRING), ("EnvVar", gob.STRING))
_VALUES: Mapping[str, gob.Type | None] = {
    "StringFlag": gob.STRING,
    "IntFlag": gob.INT,
    "StringSliceFlag": gob.Slice(gob.STRING),
    "BoolFlag": None,
}
FLAGS: Sequence[tuple[str, str, str, str, object]] = (
    ("StringFlag", "standin-token", "Token of the account", "STANDIN_TOKEN", ""),
    ("StringFlag", "standin-cloud", "Folder of the provider", "STANDIN_CLOUD", ""),
    ("StringFlag", "standin-address", "Address of the next server", "", "192.0.2.1"),
    ("StringFlag", "standin-ssh-key", "Private key to copy", "", ""),
    ("IntFlag", "standin-ssh-port", "Port of SSH", "", 22),
    ("StringSliceFlag", "standin-label", "Labels", "STANDIN_LABEL", ["made-by-machine"]),
    ("BoolFlag", "standin-fast", "A fast one", "", None),
)
RUNNING, STOPPED = 1, 4


@dataclasses.dataclass
class Behaviour:
    """How a stand-in speaks and what goes wrong."""

    family: str = "*mcnflag."  # before the flags' type names
    options: str = "*rpcdriver.RPCFlags"  # the one name that SetConfigFromFlags knows
    services: tuple[str, ...] = ("RPCServerDriver", "RpcServerDriver")
    version: int = 1
    first_line: str | None = None  # instead of the address
    welcome: bytes = b"HTTP/1.0 200 Connected to Go RPC\n\n"
    flags: Sequence[tuple[str, str, str, str, object]] = FLAGS
    hang_up: str = ""  # the method at which the connection ends
    raw: Mapping[str, bytes] = dataclasses.field(default_factory=dict)  # bytes instead of an answer
    wait: Callable[[], None] = lambda: None  # in Create, when the server exists
    errors: Mapping[str, str] = dataclasses.field(default_factory=dict)  # by method
    removal: bool = True  # whether Remove does what it says
    ignores_close: bool = False


class FaultError(Exception):
    """What the driver's method returns as its error."""


class Driver:
    """The driver's methods; `config` is what docker-machine keeps."""

    def __init__(self, behaviour: Behaviour, tell: Callable[[int, str], None]) -> None:
        self._behaviour = behaviour
        self._tell = tell
        self.config: dict[str, object] = {}
        self._source = ""

    def set_flags(self, argument: object) -> None:
        assert isinstance(argument, gob.Concrete)
        if argument.name != self._behaviour.options:
            raise FaultError(f'gob: name not registered for interface: "{argument.name}"')
        assert isinstance(argument.value, dict)
        values = {key: held.value for key, held in argument.value["Values"].items()}
        token, cloud = str(values["standin-token"]), str(values["standin-cloud"])
        self._source = str(values["standin-ssh-key"])
        if not cloud:
            raise FaultError("standin driver requires the --standin-cloud option")
        self.config |= {
            "Token": token,
            "Endpoint": f"https://user:{token}@cloud.example",
            "Cloud": cloud,
            "IPAddress": values["standin-address"],
            "SSHPort": values["standin-ssh-port"],
            "Labels": values["standin-label"],
            "Fast": values["standin-fast"],
            "SSHUser": "root",
            "SSHKeyPath": "",
            "ServerID": "",
        }

    def check(self) -> None:
        if self.config.get("Token", "") in {"", "bad"}:
            raise FaultError("401 Unauthorized: unable to authenticate you")

    def create(self) -> None:
        self.check()
        self._tell(1, "Creating server...")
        self._tell(2, f"asking with the token {self.config['Token']}")
        store, name = str(self.config["StorePath"]), str(self.config["MachineName"])
        if self._source:
            key = Path(store) / "machines" / name / "id_rsa"
            shutil.copyfile(self._source, key)
            self.config["SSHKeyPath"] = str(key)
        ident = secrets.token_hex(4)
        self._write(ident, {"name": name, "store": store, "state": RUNNING})
        self.config |= {"ServerID": ident, "RootPassword": secrets.token_hex(8)}
        self._behaviour.wait()

    def remove(self) -> None:
        self._server()
        if self._behaviour.removal:
            self._place(str(self.config["ServerID"])).unlink()

    def state(self) -> int:
        return int(str(self._server()["state"]))

    def turn(self, state: int) -> None:
        self._write(str(self.config["ServerID"]), {**self._server(), "state": state})

    def _server(self) -> dict[str, object]:
        self.check()
        ident = str(self.config.get("ServerID", ""))
        try:
            found = json.loads(self._place(ident).read_text())
        except OSError:
            raise FaultError(f"404 Not Found: server {ident!r}") from None
        assert isinstance(found, dict)
        return found

    def _place(self, ident: str) -> Path:
        return Path(str(self.config["Cloud"])) / f"{ident or '-'}.json"

    def _write(self, ident: str, server: Mapping[str, object]) -> None:
        self._place(ident).write_text(json.dumps(server))


class Server:
    """net/rpc before a driver, one connection at a time; each request on a thread, as Go has it."""

    def __init__(self, driver: Driver, behaviour: Behaviour) -> None:
        self.driver = driver
        self.behaviour = behaviour
        self.asked: list[str] = []
        self.closed = threading.Event()
        self._encoder = gob.Encoder()
        self._writing = threading.Lock()

    def serve(self, connection: socket.socket) -> None:
        with connection:
            greeting = b""
            while not greeting.endswith(b"\n\n"):
                byte = connection.recv(1)
                if not byte:
                    return
                greeting += byte
            assert greeting == b"CONNECT /_goRPC_ HTTP/1.0\n\n", greeting
            connection.sendall(self.behaviour.welcome)
            decoder = gob.Decoder(_Receiving(connection))
            with contextlib.suppress(gob.GobError, OSError):
                while not self.closed.is_set():
                    head, body = decoder.next(), decoder.next()
                    assert isinstance(head, dict)
                    work = threading.Thread(target=self._one, args=(connection, head, body))
                    work.start()

    def _one(self, connection: socket.socket, head: dict[str, object], body: object) -> None:
        service, _, method = str(head["ServiceMethod"]).partition(".")
        self.asked.append(method)
        error = ""
        kind: gob.Type = EMPTY
        value: object = {}
        if method == self.behaviour.hang_up:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            return
        try:
            self._refuse(service, method)
            kind, value = self._answer(method, body)
        except FaultError as err:
            error = str(err)
        with self._writing, contextlib.suppress(OSError):
            connection.sendall(self._response(head, method, error, kind, value))
        if method == "Close" and not self.behaviour.ignores_close:
            self.closed.set()

    def _refuse(self, service: str, method: str) -> None:
        if service not in self.behaviour.services:
            raise FaultError(f"rpc: can't find service {service}.{method}")
        if method in self.behaviour.errors:
            raise FaultError(self.behaviour.errors[method])

    def _response(
        self, head: dict[str, object], method: str, error: str, kind: gob.Type, value: object
    ) -> bytes:
        if method in self.behaviour.raw:
            return self.behaviour.raw[method]
        said = {"ServiceMethod": head["ServiceMethod"], "Seq": head.get("Seq", 0), "Error": error}
        return self._encoder.encode(RESPONSE, said) + self._encoder.encode(kind, value)

    def _answer(self, method: str, body: object) -> tuple[gob.Type, object]:
        driver = self.driver
        config = driver.config
        answers: dict[str, Callable[[], tuple[gob.Type, object]]] = {
            "GetVersion": lambda: (gob.INT, self.behaviour.version),
            "GetConfigRaw": lambda: (gob.BYTES, json.dumps(config).encode()),
            "GetCreateFlags": lambda: flags(self.behaviour),
            "GetState": lambda: (gob.INT, driver.state()),
            "GetIP": lambda: (gob.STRING, config["IPAddress"]),
            "GetSSHHostname": lambda: (gob.STRING, config["IPAddress"]),
            "GetSSHPort": lambda: (gob.INT, config["SSHPort"]),
            "GetSSHUsername": lambda: (gob.STRING, config["SSHUser"]),
            "GetSSHKeyPath": lambda: (gob.STRING, config["SSHKeyPath"]),
            "GetURL": lambda: (gob.STRING, f"tcp://{config['IPAddress']}:2377"),
        }
        if method in answers:
            return answers[method]()
        works: dict[str, Callable[[], None]] = {
            "Close": lambda: None,
            "Heartbeat": lambda: None,
            "SetConfigRaw": lambda: driver.config.update(json.loads(_data(body))),
            "SetConfigFromFlags": lambda: driver.set_flags(body),
            "PreCreateCheck": driver.check,
            "Create": driver.create,
            "Remove": driver.remove,
            "Start": lambda: driver.turn(RUNNING),
            "Restart": lambda: driver.turn(RUNNING),
            "Stop": lambda: driver.turn(STOPPED),
            "Kill": lambda: driver.turn(STOPPED),
        }
        if method not in works:
            raise FaultError(f"rpc: can't find method {method}")
        works[method]()
        return EMPTY, {}


def _data(body: object) -> bytes:
    assert isinstance(body, bytes)
    return body


def flags(behaviour: Behaviour) -> tuple[gob.Type, object]:
    """GetCreateFlags' answer."""
    listed = []
    for kind, name, usage, env, default in behaviour.flags:
        extra = _VALUES.get(kind, gob.STRING)
        fields = (*_NAMES, *((("Value", extra),) if extra else ()))
        value = {"Name": name, "Usage": usage, "EnvVar": env}
        held = value if default is None else {**value, "Value": default}
        listed.append(gob.Concrete(behaviour.family + kind, held, gob.Struct(kind, fields)))
    return gob.Slice(gob.INTERFACE), listed


class _Receiving:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def read(self, most: int) -> bytes:
        return self._connection.recv(most)


class Standin:
    """A Running whose program is a thread of ours: the port is this process's own."""

    def __init__(self, behaviour: Behaviour) -> None:
        out, self._out = os.pipe()
        err, self._err = os.pipe()
        for fd in (out, err):
            os.set_blocking(fd, False)
        self._outputs = (out, err)
        self._telling = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        host, port = self._listener.getsockname()
        self.server = Server(Driver(behaviour, self.tell), behaviour)
        self.tell(1, f"{host}:{port}" if behaviour.first_line is None else behaviour.first_line)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self.ended_itself = False
        self.is_closed = False

    @property
    def pid(self) -> int:
        return os.getpid()

    @property
    def outputs(self) -> tuple[int, int]:
        return self._outputs

    def tell(self, stream: int, line: str) -> None:
        with self._telling:
            if self._out >= 0:
                os.write(self._out if stream == 1 else self._err, f"{line}\n".encode())

    def ended(self, timeout: float) -> bool:
        self.ended_itself = self.server.closed.wait(0.2 if timeout else 0)
        return self.ended_itself

    def close(self) -> None:
        self.is_closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        with self._telling:
            for fd in (*self._outputs, self._out, self._err):
                os.close(fd)
            self._out = -1

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            self.server.serve(self._listener.accept()[0])


class Spawner:
    """drivers.plugins.child.Spawner; `made` are the stand-ins that were started."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour or Behaviour()
        self.made: list[Standin] = []
        self.environments: list[Mapping[str, str]] = []

    def spawn(self, argv: Sequence[str], env: Mapping[str, str]) -> Standin:
        del argv
        self.environments.append(env)
        self.made.append(Standin(self.behaviour))
        return self.made[-1]
