"""X-Registry-Config: a build's FROM is pulled with the credentials that the client sends along."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cases.build.engine import Built, Engine, tar
from tests.support.evilregistry import config_for, layer, manifest_for, member, sha256
from tests.support.evilregistry import tar as layer_tar

ADDRESS = "127.0.0.1:8079"
PASSWORD = "pa55-word-of-the-registry"
SERVER = """
import base64, http.server, json
wanted = "Basic " + base64.b64encode(b"builder:" + PASSWORD.encode()).decode()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="r"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        kind, data = FILES.get(self.path, ("", None))
        body = base64.b64decode(data) if data else b"{}"
        self.send_response(200 if data else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8079), Handler)
print("ready", flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def base(engine: Engine) -> Iterator[str]:
    one = layer(layer_tar([member("private", b"from the private registry\n")]))
    config = config_for([one])
    manifest = manifest_for([one], config)
    manifest_type = "application/vnd.oci.image.manifest.v1+json"
    files = {
        "/v2/": ("application/json", b"{}"),
        "/v2/base/manifests/1": (manifest_type, manifest),
        f"/v2/base/manifests/{sha256(manifest)}": (manifest_type, manifest),
        f"/v2/base/blobs/{sha256(config)}": ("application/octet-stream", config),
        f"/v2/base/blobs/{one.digest}": ("application/octet-stream", one.blob),
    }
    coded = {path: (kind, base64.b64encode(raw).decode()) for path, (kind, raw) in files.items()}
    server = engine.serve(
        f"PASSWORD = {PASSWORD!r}\nFILES = {json.loads(json.dumps(coded))!r}\n{SERVER}"
    )
    try:
        yield f"{ADDRESS}/base:1"
    finally:
        server.kill()
        server.wait()
        assert server.stdout is not None
        server.stdout.close()


def build(engine: Engine, base: str, auths: dict[str, object]) -> Built:
    context = tar({"Dockerfile": f"FROM {base}\nCOPY Dockerfile /d\n"})
    header = base64.urlsafe_b64encode(json.dumps(auths).encode()).decode()
    return Built(*engine.ask("POST", "/build", context, {"X-Registry-Config": header}))


def test_the_credentials_of_the_registry_are_used(engine: Engine, base: str) -> None:
    said = build(engine, base, {ADDRESS: {"username": "builder", "password": PASSWORD}})
    assert said.error == "", said.lines
    assert engine.inspect(said.image)["RootFS"]["Layers"]
    engine.ask("DELETE", f"/images/{base}", force=1)
    for folder in (engine.root, engine.folder / "run"):
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]
    assert PASSWORD not in engine.log()


@pytest.mark.parametrize(
    "auths",
    [
        {},
        {"other.example": {"username": "builder", "password": PASSWORD}},
        {ADDRESS: {"username": "builder", "password": "wrong"}},
        {ADDRESS: "no object"},
    ],
)
def test_others_are_not(engine: Engine, base: str, auths: dict[str, object]) -> None:
    engine.ask("DELETE", f"/images/{base}", force=1)
    said = build(engine, base, auths)
    assert said.error != ""
    assert PASSWORD not in said.error
