"""Push: original digests where they can be kept, mounts, retries, nothing sent twice."""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.engine.model import RegistryAuth
from agent.errors import EngineError, Kind
from agent.images import compress
from agent.images.settings import RegistrySettings
from tests.cases.images.test_registry import ONE, QUICK, TWO, Host
from tests.support.evilregistry import EvilRegistry, layer, member, tar
from tests.support.pushregistry import PushRegistry

BIG = layer(tar([member("big", bytes(range(256)) * 20_000), member("etc/x", b"1")]))


@pytest.fixture(name="host")
def _host() -> Iterator[Host]:
    root = Path(tempfile.mkdtemp(prefix="images-push-"))
    host = Host(root, RegistrySettings(timeouts=QUICK, certificates=()))
    try:
        yield host
    finally:
        host.store.close()
        shutil.rmtree(root)


@pytest.fixture(name="registry")
def _registry() -> Iterator[PushRegistry]:
    with PushRegistry() as found:
        yield found


@pytest.fixture(name="image")
def _image(host: Host) -> str:
    with EvilRegistry() as source:
        source.image("x", "1", [ONE, TWO, BIG])
        return host.pull(f"{source.address}/x:1").id


def push(host: Host, image: str, repo: str, tag: str = "1") -> list[str]:
    host.store.tag(image, repo, tag)
    host.lines = []
    host.store.transfers().push(
        repo, tag, auth=None, progress=host.lines.append, gone=lambda: False
    )
    return [one.status for one in host.lines]


def test_layers_arrive_with_their_contents(host: Host, registry: PushRegistry, image: str) -> None:
    repo = f"{registry.address}/my/x"
    lines = push(host, image, repo)
    assert lines[0] == f"The push refers to repository [{repo}]"
    assert lines.count("Pushed") == 3
    kind, raw = registry.manifests["my/x", "1"]
    assert kind == "application/vnd.docker.distribution.manifest.v2+json"
    manifest = json.loads(raw)
    assert manifest["config"]["digest"] == image
    tars = [gzip.decompress(registry.blobs["my/x", one["digest"]]) for one in manifest["layers"]]
    assert tars == [ONE.tar, TWO.tar, BIG.tar]
    assert host.lines[-1].aux is not None
    digest = host.lines[-1].aux["Digest"]
    assert f"{repo}@{digest}" in host.store.get(image).digests
    pulled = host.pull(f"{repo}:1")
    assert pulled.id == image


def test_a_second_push_sends_nothing(host: Host, registry: PushRegistry, image: str) -> None:
    push(host, image, f"{registry.address}/my/x")
    registry.log.clear()
    lines = push(host, image, f"{registry.address}/my/x", "2")
    assert lines.count("Layer already exists") == 3
    assert registry.log["PATCH"] == 0
    first, second = (registry.manifests["my/x", tag][1] for tag in "12")
    assert first == second


def test_mounts_between_repositories(host: Host, registry: PushRegistry, image: str) -> None:
    push(host, image, f"{registry.address}/my/x")
    registry.log.clear()
    lines = push(host, image, f"{registry.address}/other")
    assert lines.count("Mounted from my/x") == 3
    assert registry.log["PATCH"] == 1  # the config


def test_a_refused_mount_is_sent(host: Host, registry: PushRegistry, image: str) -> None:
    push(host, image, f"{registry.address}/my/x")
    registry.mounts = False
    lines = push(host, image, f"{registry.address}/other")
    assert lines.count("Pushed") == 3
    assert not registry.uploads


def test_the_original_manifest_is_kept(host: Host, registry: PushRegistry, image: str) -> None:
    for one in (ONE, TWO, BIG):
        registry.blobs["my/x", one.digest] = one.blob
    push(host, image, f"{registry.address}/my/x")
    _, raw = registry.manifests["my/x", "1"]
    assert [one["digest"] for one in json.loads(raw)["layers"]] == [
        ONE.digest, TWO.digest, BIG.digest
    ]  # fmt: skip
    original = next(one for one in host.store.get(image).digests if "127.0.0.2" in one)
    assert f"{registry.address}/my/x@{original.partition('@')[2]}" in host.store.get(image).digests


@pytest.mark.parametrize("method", ["HEAD", "POST", "PATCH", "PUT"])
def test_failures_that_pass_are_tried_again(
    host: Host, registry: PushRegistry, image: str, method: str
) -> None:
    registry.failures[method] = 2
    assert push(host, image, f"{registry.address}/my/x").count("Pushed") == 3


def test_failures_that_stay_end_it(host: Host, registry: PushRegistry, image: str) -> None:
    registry.failures["PATCH"] = 1000
    with pytest.raises(EngineError) as caught:
        push(host, image, f"{registry.address}/my/x")
    assert caught.value.kind is Kind.UNAVAILABLE
    assert not registry.manifests


def test_what_does_not_exist(host: Host, registry: PushRegistry) -> None:
    with pytest.raises(EngineError, match="does not exist locally"):
        host.store.transfers().push(
            f"{registry.address}/none", "1", auth=None, progress=print, gone=lambda: False
        )
    assert not registry.log


def test_a_damaged_layer_is_never_pushed(host: Host, registry: PushRegistry, image: str) -> None:
    next((host.root / "layers").glob("*/diff/etc/y")).write_bytes(b"0" * 5000)
    with pytest.raises(EngineError) as caught:
        push(host, image, f"{registry.address}/my/x")
    assert caught.value.kind is Kind.DATA_LOSS
    assert not registry.manifests


def test_case_153_credentials_stay_in_memory(host: Host, registry: PushRegistry) -> None:
    secret = "s3cr3t-never-on-disk"
    auth = RegistryAuth("user", secret, server_address=registry.address)
    host.store.transfers().login(auth)
    assert secret not in repr(auth)
    for path in host.root.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes()


def test_gzip_is_the_same_whatever_the_pieces() -> None:
    data = bytes(range(256)) * 30_000 + BIG.blob
    with ThreadPoolExecutor(3) as pool:
        whole = b"".join(compress.gzipped([data], pool))
        pieces = [data[start : start + 70_001] for start in range(0, len(data), 70_001)]
        assert b"".join(compress.gzipped(pieces, pool)) == whole
        assert gzip.decompress(whole) == data
        assert gzip.decompress(b"".join(compress.gzipped([], pool))) == b""
