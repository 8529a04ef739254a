"""Manifests, indexes, configs, strict JSON, platforms."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import EngineError, Kind
from agent.images import documents, imageconfig, manifest, platforms
from agent.images.manifest import Descriptor, Index, IndexEntry, Manifest
from agent.images.platforms import Platform

DIGEST = "sha256:" + "a" * 64
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 7}
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd", "digest": DIGEST, "size": 9}
GOOD = {
    "schemaVersion": 2,
    "mediaType": manifest.OCI_MANIFEST,
    "config": CONFIG,
    "layers": [LAYER],
}


def decode(document: object, content_type: str = "") -> Manifest | Index:
    return manifest.decode(json.dumps(document).encode(), content_type)


def test_good_manifest() -> None:
    found = decode(GOOD, manifest.OCI_MANIFEST + "; charset=utf-8")
    assert isinstance(found, Manifest)
    assert found.layers == (Descriptor(str(LAYER["mediaType"]), DIGEST, 9),)


@pytest.mark.parametrize(
    "change",
    [
        {"schemaVersion": "2"},
        {"schemaVersion": True},
        {"schemaVersion": 3},
        {"mediaType": "text/html"},
        {"mediaType": manifest.OCI_INDEX},
        {"mediaType": 5},
        {"config": None},
        {"config": []},
        {"config": {**CONFIG, "size": -1}},
        {"config": {**CONFIG, "size": True}},
        {"config": {**CONFIG, "size": 9 << 20}},
        {"config": {**CONFIG, "mediaType": "application/vnd.cncf.helm.config.v1+json"}},
        {"layers": {}},
        {"layers": ["x"]},
        {"layers": [{**LAYER, "size": 1.5}]},
        {"layers": [{**LAYER, "digest": DIGEST + "0"}]},
        {"layers": [LAYER] * 128},
        {"manifests": []},
        {"Layers": []},
    ],
)
def test_bad_manifests(change: dict[str, object]) -> None:
    with pytest.raises(EngineError) as caught:
        decode({**GOOD, **change})
    assert caught.value.kind is Kind.INVALID


def test_schema_1_is_refused() -> None:
    header = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    for document, content_type in (({"schemaVersion": 1}, ""), (GOOD, header)):
        with pytest.raises(EngineError, match="schema 1 are not supported"):
            decode(document, content_type)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v2"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64", "linux/arm64"),
        ("linux/arm", "linux/arm/v6"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("aarch64", "linux/arm64"),
        ("linux", "linux/amd64"),
        ("", "linux/amd64"),
        ("linux/riscv64", None),
        ("linux/arm/v5", None),
        ("windows/amd64", None),
    ],
)
def test_platform_selection(wanted: str, expected: str | None) -> None:
    names = ["linux/arm/v6", "linux/arm64", "linux/amd64", "linux/amd64/v2", "linux/arm/v6"]
    entries = tuple(
        IndexEntry(Descriptor(manifest.OCI_MANIFEST, name, 1), platforms.parse(name, "x86_64"))
        for name in names
    )
    platform = platforms.parse(wanted, "x86_64")
    if expected is None:
        with pytest.raises(EngineError) as caught:
            manifest.select(Index(entries), platform)
        text = f"no matching manifest for {platform} in the manifest list entries: available are "
        assert caught.value.message.startswith(text)
        assert caught.value.kind is Kind.NOT_FOUND
    else:
        assert manifest.select(Index(entries), platform).digest == expected


@pytest.mark.parametrize("text", ["a/b/c/d", "linux/", "linux/a b", "\n", "linux//v7"])
def test_bad_platforms(text: str) -> None:
    with pytest.raises(EngineError):
        platforms.parse(text, "x86_64")


def test_host_platforms() -> None:
    assert str(platforms.host("x86_64")) == "linux/amd64"
    assert str(platforms.host("aarch64")) == "linux/arm64"
    assert str(platforms.host("armv7l")) == "linux/arm/v7"
    assert Platform("linux", "386") in platforms.preferences(platforms.host("x86_64"))


def test_config() -> None:
    raw = {
        "architecture": "arm64",
        "os": "linux",
        "config": {
            "Env": ["A=1"],
            "Cmd": None,
            "Entrypoint": [],
            "ExposedPorts": {"80/tcp": {}},
            "Volumes": None,
            "Labels": {"io.containerd.x": "y"},
        },
        "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
        "history": [{"created_by": "x"}],
    }
    found = imageconfig.decode(json.dumps(raw).encode())
    assert (found.config.cmd, found.config.entrypoint) == (None, ())
    assert found.config.exposed_ports == ("80/tcp",)
    for change in (
        {"config": {"Env": "x"}},
        {"config": {"Labels": {"a": 1}}},
        {"rootfs": {"type": "other"}},
        {"rootfs": {"diff_ids": ["x"]}},
        {"os": 1},
    ):
        with pytest.raises(EngineError):
            imageconfig.decode(json.dumps({**raw, **change}).encode())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["schemaVersion", "mediaType", "config", "layers", "manifests", "digest"]
            ),
            inner,
            max_size=4,
        )
    ),
)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_decoders_only_raise_engine_errors(raw: bytes) -> None:
    for decoder in (lambda: manifest.decode(raw, ""), lambda: imageconfig.decode(raw)):
        try:
            decoder()
        except EngineError:
            continue


def test_documents_are_bounded() -> None:
    with pytest.raises(documents.BadDocumentError, match="larger"):
        documents.decode(b"{}" + b" " * 10, 11)
