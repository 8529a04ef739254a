"""security.md 5.1 (24-27) and 5.2: hostile and failing registries.  Named by case number."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.engine.model import Image, Progress, RegistryAuth
from agent.errors import EngineError, Kind
from agent.images import open_store
from agent.images.settings import RegistrySettings, Timeouts
from agent.images.snapshots import SnapshotStore
from agent.images.store import ImageStore
from tests.support.evilregistry import (
    OCI_INDEX,
    EvilRegistry,
    Layer,
    Reply,
    Seen,
    config_for,
    layer,
    manifest_for,
    member,
    send,
    sha256,
    tar,
)

QUICK = Timeouts(connect=1.0, stall=0.5, stall_bytes=64, attempts=3, backoff=0.02)


class Host:
    """A store on a temporary root, as a client sees it."""

    def __init__(self, root: Path, settings: RegistrySettings) -> None:
        self.root = root
        self.settings = settings
        self.store: ImageStore
        self.snapshots: SnapshotStore
        self.lines: list[Progress] = []
        self.reopen()

    def reopen(self) -> None:
        self.store, self.snapshots = open_store(str(self.root), self.settings)

    def pull(
        self, reference: str, auth: RegistryAuth | None = None, platform: str = "linux/amd64"
    ) -> Image:
        self.lines = []
        return self.store.pull(
            reference,
            platform=platform,
            auth=auth,
            progress=self.lines.append,
            cancelled=lambda: False,
        )

    def refused(self, reference: str, text: str, **kwargs: object) -> EngineError:
        before = [image.id for image in self.store.all()]
        began = time.monotonic()
        with pytest.raises(EngineError) as caught:
            self.pull(reference, **kwargs)  # type: ignore[arg-type]
        assert text in caught.value.message, caught.value.message
        assert time.monotonic() - began < 10
        assert [image.id for image in self.store.all()] == before
        assert list((self.root / "layers").glob(".new-*")) == []
        return caught.value


@pytest.fixture(name="host")
def _host() -> Iterator[Host]:
    root = Path(tempfile.mkdtemp(prefix="images-host-"))
    host = Host(root, RegistrySettings(timeouts=QUICK, certificates=()))
    try:
        yield host
    finally:
        host.store.close()
        shutil.rmtree(root)


@pytest.fixture(name="evil")
def _evil() -> Iterator[EvilRegistry]:
    with EvilRegistry() as found:
        yield found


ONE = layer(tar([member("bin/sh", b"#!", mode=0o755), member("etc/x", b"1" * 3000)]))
TWO = layer(tar([member("etc/y", b"2" * 5000)]))


def texts(host: Host) -> list[str]:
    return [line.status for line in host.lines]


def test_pull_says_what_docker_says(host: Host, evil: EvilRegistry) -> None:
    digest = evil.image("library/x", "1.0", [ONE, TWO])
    name = f"{evil.address}/library/x"
    image = host.pull(f"{name}:1.0")
    assert host.lines[0] == Progress("Pulling from library/x", "1.0")
    short = ONE.digest[7:19]
    mine = [line.status for line in host.lines if line.id == short]
    assert [status for status in mine if status != "Waiting"] == [
        "Pulling fs layer",
        "Downloading",
        "Verifying Checksum",
        "Download complete",
        "Extracting",
        "Pull complete",
    ]
    assert texts(host)[-2:] == [
        f"Digest: {digest}",
        f"Status: Downloaded newer image for {name}:1.0",
    ]
    assert image.tags == (f"{name}:1.0",)
    assert image.digests == (f"{name}@{digest}",)
    assert image.config.cmd == ("/bin/sh",)
    assert host.pull(f"{name}:1.0") == image
    assert texts(host)[1:3] == ["Already exists", "Already exists"]
    assert texts(host)[-1] == f"Status: Image is up to date for {name}:1.0"
    by_digest = host.pull(f"{name}@{digest}")
    assert by_digest.id == image.id
    assert host.lines[0].id == f"{name}@{digest}"
    assert host.store.get(image.id[7:15]).id == image.id
    with pytest.raises(EngineError, match="No such image: nothing:latest") as caught:
        host.store.get("nothing")
    assert caught.value.kind is Kind.NOT_FOUND


@pytest.mark.parametrize("delta", [-1, 1, 1000])
def test_case_024_descriptor_size_lies(host: Host, evil: EvilRegistry, delta: int) -> None:
    evil.image("x", "latest", [ONE])
    raw = config_for([ONE])
    lie = {**ONE.descriptor(), "size": len(ONE.blob) + delta}
    evil.manifest("x", "latest", manifest_for([ONE], raw, layers=[lie]))
    host.refused(f"{evil.address}/x", "bytes")
    # ... also when there is no Content-Length to compare with
    path = f"/v2/x/blobs/{ONE.digest}"
    evil.script(path, Reply(200, ONE.blob, length=-1))
    host.refused(f"{evil.address}/x", "longer" if delta < 0 else "ended early")


def test_case_024_wrong_bytes_of_the_right_size(host: Host, evil: EvilRegistry) -> None:
    evil.image("x", "latest", [ONE])
    evil.script(f"/v2/x/blobs/{ONE.digest}", Reply(200, ONE.blob[:-1] + b"x"))
    error = host.refused(f"{evil.address}/x", "verification failed")
    assert error.kind is Kind.DATA_LOSS
    other = Layer(TWO.tar, ONE.blob)  # a good blob that is not the config's diffID
    evil.image("y", "latest", [other])
    host.refused(f"{evil.address}/y", "diffID")
    evil.image("z", "latest", [ONE], author="z")
    raw = config_for([ONE], author="z")
    evil.script(f"/v2/z/blobs/{sha256(raw)}", Reply(200, raw[:-1] + b" "))
    host.refused(f"{evil.address}/z", "config verification failed")


HOSTILE_JSON = {
    "big": b" " * (5 << 20) + b"{}",
    "deep": b'{"a":' * 100_000,
    "deep list": b'{"a":' + b"[" * 100_000,
    "duplicate": b'{"schemaVersion": 2, "schemaVersion": 2}',
    "digits": b'{"schemaVersion": ' + b"9" * 1_000_000 + b"}",
    "nan": b'{"schemaVersion": NaN}',
    "infinity": b'{"schemaVersion": -Infinity}',
    "surrogate": b'{"schemaVersion": 2, "mediaType": "\\ud800"}',
    "utf16": '{"schemaVersion": 2}'.encode("utf-16"),
    "bom": b"\xef\xbb\xbf{}",
    "list": b"[]",
    "empty": b"",
    "case": b'{"schemaVersion": 2, "Layers": [], "config": {}, "layers": []}',
}


@pytest.mark.parametrize("name", HOSTILE_JSON)
def test_case_025_hostile_json(host: Host, evil: EvilRegistry, name: str) -> None:
    raw = HOSTILE_JSON[name]
    began = time.monotonic()
    evil.manifest("m", "latest", raw)
    host.refused(f"{evil.address}/m", "manifest")
    digest = evil.blob("c", raw)
    config = {"mediaType": "", "digest": digest, "size": len(raw)}
    evil.manifest("c", "latest", manifest_for([], b"", config=config))
    if name != "case":
        host.refused(f"{evil.address}/c", "config" if len(raw) < 2 << 20 else "")
    assert time.monotonic() - began < 4


def test_case_026_type_confusion(host: Host, evil: EvilRegistry) -> None:
    raw = config_for([ONE])
    evil.image("x", "real", [ONE])
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    name = f"{evil.address}/x"
    evil.manifest("x", "both", manifest_for([ONE], raw, manifests=[]))
    host.refused(f"{name}:both", "both a manifest and an index")
    evil.manifest("x", "lie", manifest_for([ONE], raw), OCI_INDEX)
    host.refused(f"{name}:lie", "was sent as")
    evil.manifest("x", "empty", json.dumps(index).encode(), OCI_INDEX)
    host.refused(f"{name}:empty", "no matching manifest for linux/amd64")
    one = {"schemaVersion": 1, "name": "x", "fsLayers": []}
    evil.manifest("x", "one", json.dumps(one).encode(), "application/json")
    assert "schema 1" in host.refused(f"{name}:one", "not supported").message
    inner = json.dumps(index).encode()
    entry = {"mediaType": OCI_INDEX, "digest": sha256(inner), "size": len(inner)}
    platform = {"os": "linux", "architecture": "amd64"}
    evil.manifest("x", "", inner, OCI_INDEX)
    nested = {**index, "manifests": [{**entry, "platform": platform}]}
    evil.manifest("x", "nested", json.dumps(nested).encode(), OCI_INDEX)
    host.refused(f"{name}:nested", "no matching manifest")
    lying = {**entry, "platform": platform, "mediaType": ONE_MANIFEST}
    evil.manifest("x", "n2", json.dumps({**index, "manifests": [lying]}).encode(), OCI_INDEX)
    host.refused(f"{name}:n2", "")


ONE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def test_case_026_platforms(host: Host, evil: EvilRegistry) -> None:
    entries = []
    for architecture, variant, content in (("arm64", "v8", ONE), ("arm", "v7", TWO)):
        raw = config_for([content], architecture=architecture, variant=variant)
        evil.blob("x", raw)
        evil.blob("x", content.blob)
        manifest = manifest_for([content], raw)
        digest = evil.manifest("x", "", manifest)
        platform = {"os": "linux", "architecture": architecture, "variant": variant}
        entry = {"mediaType": ONE_MANIFEST, "digest": digest, "size": len(manifest)}
        entries.append({**entry, "platform": platform})
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
    evil.manifest("x", "latest", index, OCI_INDEX)
    name = f"{evil.address}/x"
    error = host.refused(name, "no matching manifest for linux/amd64 in the manifest list entries")
    assert "linux/arm/v7, linux/arm64" in error.message
    assert host.pull(name, platform="linux/arm64").architecture == "arm64"
    assert host.pull(name, platform="linux/arm").variant == "v7"
    evil.image("y", "latest", [ONE])
    host.refused(f"{evil.address}/y", "does not match", platform="linux/arm64")


def test_case_019_unknown_layer_media_types(host: Host, evil: EvilRegistry) -> None:
    for kind in ("erofs", "tar+encrypted", "tar.gzip; x"):
        odd = Layer(ONE.tar, ONE.blob, f"application/vnd.oci.image.layer.v1.{kind}")
        evil.image("x", "latest", [odd])
        host.refused(f"{evil.address}/x", "unsupported media type")
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    evil.image("x", "latest", [Layer(ONE.tar, ONE.blob, foreign)])
    host.refused(f"{evil.address}/x", "unsupported media type")


DIGESTS = [
    "sha256:../../x",
    "SHA256:" + "a" * 64,
    "md5:" + "a" * 32,
    "sha256:" + "a" * 63,
    "sha256:" + "a" * 64 + "/..",
    "sha256:" + "a" * 63 + "٣",
]


@pytest.mark.parametrize("digest", DIGESTS)
def test_case_027_digest_strings(host: Host, evil: EvilRegistry, digest: str) -> None:
    host.refused(f"{evil.address}/x@{digest}", "invalid reference format")
    assert evil.accepted == 0
    bad = {**ONE.descriptor(), "digest": digest}
    evil.manifest("x", "latest", manifest_for([ONE], config_for([ONE]), layers=[bad]))
    host.refused(f"{evil.address}/x", "invalid digest")
    bad_config = config_for([ONE], rootfs={"type": "layers", "diff_ids": [digest]})
    evil.blob("y", bad_config)
    evil.manifest("y", "latest", manifest_for([ONE], bad_config))
    host.refused(f"{evil.address}/y", "invalid diff_id")
    assert evil.requests("/blobs/" + ONE.digest) == []


def test_case_029_redirects(host: Host, evil: EvilRegistry) -> None:
    evil.image("x", "latest", [ONE])
    path = f"/v2/x/blobs/{ONE.digest}"
    with EvilRegistry("127.0.0.1") as agent, EvilRegistry("127.0.0.2") as sibling:
        targets = [
            "http://169.254.169.254/latest/meta-data",
            f"http://{agent.address}/x",
            f"http://[::ffff:127.0.0.1]:{agent.port}/x",
            "file:///etc/shadow",
            "gopher://127.0.0.1/x",
            "http://0.0.0.0:1/",
            "http://user:secret@127.0.0.2/",
            f"http://{evil.address}{path}",  # a loop
            "http://127.0.0.2:99999/",
        ]
        for target in targets:
            evil.script(path, Reply(307, headers={"Location": target}))
            host.refused(f"{evil.address}/x", "")
        assert agent.accepted == 0
        assert len(evil.requests(path)) < 80
        sibling.script("/blob", Reply(200, ONE.blob))
        evil.script(path, Reply(307, headers={"Location": f"http://{sibling.address}/blob"}))
        evil.script("/v2/x/manifests/latest", *_basic(evil, "x"))
        host.pull(f"{evil.address}/x", RegistryAuth("u", "secret-word"))
        assert "authorization" in evil.requests(path)[-1].headers
        assert "authorization" not in sibling.log[-1].headers


def _basic(evil: EvilRegistry, repo: str) -> list[Reply]:
    raw = manifest_for([ONE], config_for([ONE]))
    challenge = Reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    return [challenge, Reply(200, raw, {"Content-Type": ONE_MANIFEST})]


def bearer(evil: EvilRegistry, realm: str) -> None:
    evil.image("x", "latest", [ONE])
    raw = manifest_for([ONE], config_for([ONE]))

    def guarded(connection: socket.socket, seen: Seen) -> None:
        if seen.headers.get("authorization") == "Bearer good":
            send(connection, Reply(200, raw, {"Content-Type": ONE_MANIFEST}))
            return
        challenge = f'Bearer realm="{realm}",service="reg",scope="repository:x:pull"'
        send(connection, Reply(401, headers={"WWW-Authenticate": challenge}))

    evil.script("/v2/x/manifests/latest", guarded)


def test_case_030_realm_on_another_host(host: Host, evil: EvilRegistry) -> None:
    secret = RegistryAuth("user", "secret-word")
    with EvilRegistry("127.0.0.3") as other:
        other.script("/token", Reply(200, b'{"token": "good"}'))
        bearer(evil, f"http://{other.address}/token")
        host.refused(f"{evil.address}/x", "not allowed", auth=secret)
        assert other.log == []
    with EvilRegistry("127.0.0.2") as own:
        own.script("/token", Reply(200, b'{"token": "good"}'))
        bearer(evil, f"http://{own.address}/token")
        host.pull(f"{evil.address}/x", secret)
        expected = "Basic " + base64.b64encode(b"user:secret-word").decode()
        assert own.log[0].headers["authorization"] == expected
        assert "scope=repository%3Ax%3Apull" in own.log[0].path
    wrong = RegistryAuth("user", "secret-word", server_address="other.example:5000")
    evil.log.clear()
    host.store.remove(f"{evil.address}/x", force=True, users=lambda _: [])
    with EvilRegistry("127.0.0.2") as own:
        own.script("/token", Reply(200, b'{"token": "good"}'))
        bearer(evil, f"http://{own.address}/token")
        host.pull(f"{evil.address}/x", wrong)
        assert "authorization" not in own.log[0].headers
    assert not any("secret" in str(seen.headers) for seen in evil.log)


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage",
        b'{"token": 5}',
        b"{}",
        b'{"token": "' + b"x" * (10 << 20) + b'"}',
        b'{"token": "dead", "expires_in": -1}',
        b'{"token": "a b\\r\\nX: y"}',
    ],
)
def test_case_032_bad_tokens(host: Host, evil: EvilRegistry, answer: bytes) -> None:
    bearer(evil, f"http://{evil.address}/token")
    evil.script("/token", Reply(200, answer))
    host.refused(f"{evil.address}/x", "unauthorized", auth=RegistryAuth("u", "secret-word"))
    host.refused(f"{evil.address}/x", "unauthorized")
    assert len(evil.requests("/token")) <= 4
    assert len(evil.requests("/manifests/")) <= 6


def test_case_032_basic_401_loop(host: Host, evil: EvilRegistry) -> None:
    challenge = Reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    evil.script("/v2/x/manifests/latest", challenge)
    host.refused(f"{evil.address}/x", "unauthorized", auth=RegistryAuth("u", "secret-word"))
    assert len(evil.log) <= 3
    host.refused(f"{evil.address}/x", "no basic auth credentials")


def test_case_033_tag_and_digest_pull_by_digest(host: Host, evil: EvilRegistry) -> None:
    digest = evil.image("x", "good", [ONE])
    evil.image("x", "other", [TWO])
    image = host.pull(f"{evil.address}/x:other@{digest}")
    assert image.diff_ids == (ONE.diff_id,)
    assert image.tags == ()
    raw = manifest_for([TWO], config_for([TWO]))
    evil.script(f"/v2/x/manifests/{digest}", Reply(200, raw, {"Content-Type": ONE_MANIFEST}))
    host.refused(f"{evil.address}/x@{digest}", "manifest verification failed")


def slowly(connection: socket.socket, seen: Seen) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    stop = time.monotonic() + 20
    while time.monotonic() < stop:
        connection.sendall(b"x")
        time.sleep(0.05)


def silently(connection: socket.socket, seen: Seen) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    connection.recv(1)


def mute(connection: socket.socket, _: Seen) -> None:
    connection.recv(1)


@pytest.mark.parametrize("script", [slowly, silently])
def test_case_035_slow_registry(host: Host, evil: EvilRegistry, script: object) -> None:
    evil.script("/v2/x/manifests/latest", script)  # type: ignore[arg-type]
    host.refused(f"{evil.address}/x", "the registry")
    odd = layer(tar([member("f", os.urandom(100_000))]))
    evil.image("y", "latest", [odd])
    evil.script(f"/v2/y/blobs/{odd.digest}", script)  # type: ignore[arg-type]
    lie = {**odd.descriptor(), "size": 100_000}
    evil.manifest("y", "latest", manifest_for([odd], config_for([odd]), layers=[lie]))
    host.refused(f"{evil.address}/y", "the registry")


def test_case_035_silent_after_accept(host: Host, evil: EvilRegistry) -> None:
    evil.on_accept = lambda raw: raw.recv(1 << 16) is None or raw.recv(1 << 16) is None
    host.refused(f"{evil.address}/x", "")


def test_case_035_a_vanished_client_cancels(host: Host, evil: EvilRegistry) -> None:
    evil.image("x", "latest", [ONE])
    evil.script(f"/v2/x/blobs/{ONE.digest}", mute)
    gone = threading.Event()
    began = time.monotonic()
    threading.Timer(0.3, gone.set).start()
    with pytest.raises(EngineError) as caught:
        host.store.pull(
            f"{evil.address}/x",
            platform="linux/amd64",
            auth=None,
            progress=lambda _: None,
            cancelled=gone.is_set,
        )
    assert caught.value.kind is Kind.CANCELLED
    assert time.monotonic() - began < 2
    while list((host.root / "layers").iterdir()):
        assert time.monotonic() - began < 4
        time.sleep(0.02)


def test_case_036_success_at_the_last_attempt(host: Host, evil: EvilRegistry) -> None:
    evil.image("x", "latest", [ONE])
    raw = manifest_for([ONE], config_for([ONE]))
    evil.script(
        "/v2/x/manifests/latest",
        Reply(503),
        Reply(429, headers={"Retry-After": "1"}),
        Reply(200, raw, {"Content-Type": ONE_MANIFEST}),
    )
    cut = len(ONE.blob) // 3
    evil.script(
        f"/v2/x/blobs/{ONE.digest}",
        Reply(200, ONE.blob[:cut], length=len(ONE.blob), reset=True),
        Reply(502),
        lambda connection, seen: _resumed(connection, seen, cut),
    )
    began = time.monotonic()
    host.pull(f"{evil.address}/x")
    assert time.monotonic() - began >= 1.0
    assert "range" not in evil.requests(ONE.digest)[0].headers


def _resumed(connection: socket.socket, seen: Seen, cut: int) -> None:
    start = int(seen.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
    headers = {"Content-Range": f"bytes {start}-{len(ONE.blob) - 1}/{len(ONE.blob)}"}
    send(connection, Reply(206 if start else 200, ONE.blob[start:], headers))


@pytest.mark.parametrize("honours_range", [True, False])
def test_case_036_a_cut_blob_resumes(host: Host, evil: EvilRegistry, honours_range: bool) -> None:
    big = layer(tar([member("f", os.urandom(400_000))]))
    evil.image("x", "latest", [big])
    path = f"/v2/x/blobs/{big.digest}"
    first = Reply(200, big.blob[:250_000], length=len(big.blob))
    rest = EvilRegistry._ranged(big.blob) if honours_range else Reply(200, big.blob)
    evil.script(path, first, rest)
    host.pull(f"{evil.address}/x")
    ranges = [seen.headers.get("range") for seen in evil.requests(path)]
    assert ranges == [None, "bytes=250000-"]


def test_case_037_fifty_clients_share_downloads(host: Host, evil: EvilRegistry) -> None:
    host.settings = RegistrySettings(certificates=())  # no time-out while the blobs are held back
    host.reopen()
    layers = [layer(tar([member(f"f{n}", os.urandom(200_000))])) for n in range(4)]
    evil.image("x", "latest", layers)
    slow = threading.Event()

    def waiting(data: bytes) -> object:
        def answer(connection: socket.socket, _: Seen) -> None:
            slow.wait(10)
            send(connection, Reply(200, data))

        return answer

    for one in layers:
        evil.script(f"/v2/x/blobs/{one.digest}", waiting(one.blob))  # type: ignore[arg-type]
    results: list[object] = []

    def client(number: int) -> None:
        def vanished() -> bool:
            return number == 0 and slow.is_set()

        try:
            image = host.store.pull(
                f"{evil.address}/x",
                platform="linux/amd64",
                auth=None,
                progress=lambda _: None,
                cancelled=vanished,
            )
            results.append(image.id)
        except EngineError as error:
            results.append(error.kind if error.kind is Kind.CANCELLED else repr(error))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    slow.set()
    for thread in threads:
        thread.join(30)
    assert results.count(Kind.CANCELLED) == 1
    assert len(set(results)) == 2
    assert len(results) == 50
    blobs = [seen.path for seen in evil.requests("/blobs/")]
    assert len(blobs) == len(set(blobs)) == 5


def test_mirrors_come_first_and_fall_through(host: Host, evil: EvilRegistry) -> None:
    evil.image("library/x", "latest", [ONE])
    with EvilRegistry("127.0.0.4") as broken:
        broken.script("/v2/library/x/manifests/latest", Reply(500))
        mirrors = (
            "http://127.0.0.5:1",
            f"http://{broken.address}",
            f"http://{evil.address}",
        )
        host.settings = RegistrySettings(mirrors=mirrors, timeouts=QUICK, certificates=())
        host.reopen()
        image = host.pull("x", RegistryAuth("hub-user", "secret-word"))
    assert image.tags == ("x:latest",)
    assert texts(host)[-1] == "Status: Downloaded newer image for x:latest"
    assert not any("authorization" in seen.headers for seen in evil.log + broken.log)


def test_not_found_texts(host: Host, evil: EvilRegistry) -> None:
    errors = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
    evil.script("/v2/x/manifests/nope", Reply(404, json.dumps(errors).encode()))
    name = f"{evil.address}/x:nope"
    error = host.refused(name, f"manifest for {name} not found: manifest unknown: manifest unknown")
    assert error.kind is Kind.NOT_FOUND
    assert "refused" in host.refused("127.0.0.5:1/x", "dial tcp").message
