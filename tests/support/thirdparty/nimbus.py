"""The example's own emulator on a loopback port, its servers lab hosts with a real first boot."""

import importlib.util
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType, TracebackType
from typing import Any, Self

from tests.lab.cloudhosts import CloudHosts, CloudSeed
from tests.support.thirdparty.venv import EXAMPLE


def example_emulator() -> ModuleType:
    """The module as it lies in the example: it is not installed here."""
    path = EXAMPLE / "machine_driver_nimbus/emulator.py"
    spec = importlib.util.spec_from_file_location("nimbus_emulator", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look it up there
    spec.loader.exec_module(module)
    return module


class LabHosts:
    """emulator.Hosts over the lab."""

    def __init__(self, hosts: CloudHosts) -> None:
        self._hosts = hosts

    def make(self, ident: str, user_data: bytes, public_key: str) -> str:
        return self._hosts.create(CloudSeed(ident, user_data, (public_key,), "nimbus")).ip

    def power(self, ident: str, *, on: bool) -> None:
        host = self._hosts.find(ident)
        assert host is not None
        if on:
            host.start()
        else:
            host.shut_down()

    def destroy(self, ident: str) -> None:
        host = self._hosts.find(ident)
        assert host is not None
        host.destroy()


class NimbusServer:
    """The API at `url`."""

    def __init__(self, hosts: CloudHosts) -> None:
        module = example_emulator()
        self.emulator: Any = module.Emulator(LabHosts(hosts))
        self.account: str = module.ACCOUNT
        emulator = self.emulator

        class Handler(BaseHTTPRequestHandler):
            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = (self.command, self.path, dict(self.headers), body)
                status, answer = emulator.handle(*asked)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                """Nothing is printed."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
