"""`manifests` of inspect and list: what an index holds, and what of it is here."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.images.settings import RegistrySettings
from tests.cases.images.test_registry import ONE, ONE_MANIFEST, QUICK, TWO, Host
from tests.support.evilregistry import OCI_INDEX, EvilRegistry, config_for, manifest_for


@pytest.fixture(name="host")
def _host() -> Iterator[Host]:
    root = Path(tempfile.mkdtemp(prefix="images-manifests-"))
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


def test_an_index(host: Host, evil: EvilRegistry) -> None:
    entries: list[dict[str, object]] = []
    sizes: dict[str, int] = {}
    for architecture, content in (("arm64", ONE), ("amd64", TWO)):
        raw = config_for([content], architecture=architecture)
        evil.blob("x", raw)
        evil.blob("x", content.blob)
        manifest = manifest_for([content], raw)
        digest = evil.manifest("x", "", manifest)
        sizes[architecture] = len(manifest) + len(raw)
        entry = {"mediaType": ONE_MANIFEST, "digest": digest, "size": len(manifest)}
        entries.append({**entry, "platform": {"os": "linux", "architecture": architecture}})
    notes = {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": entries[1]["digest"],
    }
    unknown = {"os": "unknown", "architecture": "unknown"}
    entries.append(
        {**entries[0], "digest": f"sha256:{'e' * 64}", "platform": unknown, "annotations": notes}
    )
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
    evil.manifest("x", "latest", index, OCI_INDEX)
    image = host.pull(f"{evil.address}/x")
    found = host.store.transfers().manifests(image.id)
    assert [one.digest for one in found] == [one["digest"] for one in entries]
    assert [one.available for one in found] == [False, True, False]
    assert [one.kind for one in found] == ["image", "image", "attestation"]
    assert (found[1].content, found[1].unpacked) == (sizes["amd64"], image.size)
    assert (found[0].content, found[0].unpacked) == (0, 0)
    assert found[0].platform == ("linux", "arm64", "")
    assert found[2].about == entries[1]["digest"]


def test_a_manifest_alone(host: Host, evil: EvilRegistry) -> None:
    digest = evil.image("x", "latest", [ONE])
    image = host.pull(f"{evil.address}/x")
    (found,) = host.store.transfers().manifests(image.id)
    assert (found.digest, found.available, found.kind) == (digest, True, "image")
    assert found.platform == ("linux", "amd64", "")
    assert found.media_type == ONE_MANIFEST
