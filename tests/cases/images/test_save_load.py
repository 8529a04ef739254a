"""Save and load: archives in both forms come back; hostile ones change nothing (case 22)."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.engine.model import Image, Progress
from agent.engine.transfers import ImportRequest
from agent.errors import EngineError, Kind
from agent.images import scrub
from agent.images.settings import RegistrySettings
from tests.cases.images.test_registry import ONE, QUICK, TWO, Host
from tests.support.evilregistry import EvilRegistry, config_for, layer, member, sha256, tar

OTHER = layer(tar([member("other", b"3" * 2000)]))


@pytest.fixture(name="host")
def _host() -> Iterator[Host]:
    root = Path(tempfile.mkdtemp(prefix="images-load-"))
    host = Host(root, RegistrySettings(timeouts=QUICK, certificates=()))
    try:
        yield host
    finally:
        host.store.close()
        shutil.rmtree(root)


def load(host: Host, data: bytes, platform: str = "") -> list[Image]:
    host.lines = []
    return host.store.transfers().load(
        io.BytesIO(data).read,
        platform=platform,
        quiet=False,
        progress=host.lines.append,
        gone=lambda: False,
    )


def save(host: Host, *names: str) -> bytes:
    return b"".join(host.store.transfers().save(names, ""))


def docker_archive(config: bytes, layers: list[bytes], tags: list[str], **extra: object) -> bytes:
    entry = {
        "Config": sha256(config).removeprefix("sha256:") + ".json",
        "RepoTags": tags,
        "Layers": [f"{number}/layer.tar" for number in range(len(layers))],
        **extra,
    }
    members = [
        member(sha256(config).removeprefix("sha256:") + ".json", config),
        *(member(f"{number}/layer.tar", one) for number, one in enumerate(layers)),
        member("manifest.json", json.dumps([entry]).encode()),
    ]
    return tar(members)


def good(*tags: str) -> bytes:
    return docker_archive(config_for([ONE, TWO]), [ONE.tar, TWO.tar], list(tags))


def said(lines: list[Progress]) -> list[str]:
    return [one.stream for one in lines if one.stream]


def test_an_archive_comes_back_the_same(host: Host) -> None:
    with EvilRegistry() as registry:
        registry.image("x", "1", [ONE, TWO])
        image = host.pull(f"{registry.address}/x:1")
    host.store.tag(image.id, "first", "a")
    host.store.tag(image.id, "first", "b")
    data = save(host, "first", image.id)
    assert save(host, "first", image.id) == data
    host.store.remove(image.id, force=True, users=lambda _: [])
    found = load(host, data)
    assert [one.id for one in found] == [image.id]
    assert found[0].tags == ("first:a", "first:b")
    assert said(host.lines) == ["Loaded image: first:a\n", "Loaded image: first:b\n"]
    assert "Loading layer" in {one.status for one in host.lines}
    host.store.remove(image.id, force=True, users=lambda _: [])
    assert list(scrub.scrub(str(host.root)))[-1].damaged == ()  # type: ignore[union-attr]


def test_several_images_and_shared_layers(host: Host) -> None:
    load(host, good("one:1"))
    load(host, docker_archive(config_for([ONE, OTHER]), [ONE.tar, OTHER.tar], ["two:1"]))
    data = save(host, "one:1", "two:1")
    names = [name for name, _ in _files(data)]
    assert len(names) == len(set(names))
    for name in ("one:1", "two:1"):
        host.store.remove(name, force=True, users=lambda _: [])
    assert {one.tags[0] for one in load(host, data)} == {"one:1", "two:1"}
    space = host.store.transfers().space()
    assert space.layers == 3002 + 5000 + 2000
    assert set(space.shared.values()) == {3002}


def test_oci_layout_alone_and_gzip_layers(host: Host) -> None:
    config = config_for([ONE])
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": sha256(config),
                "size": len(config),
            },
            "layers": [ONE.descriptor()],
        }
    ).encode()
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": sha256(manifest),
        "size": len(manifest),
        "annotations": {"org.opencontainers.image.ref.name": "example.com/oci:1"},
    }
    blobs = [member("blobs/sha256/" + sha256(b)[7:], b) for b in (config, manifest, ONE.blob)]
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    data = tar([*blobs, member("index.json", index)])
    assert load(host, data)[0].tags == ("example.com/oci:1",)
    host.store.remove("example.com/oci:1", force=True, users=lambda _: [])
    bad = data.replace(ONE.blob, ONE.blob[:-1] + b"\x07")
    refused(host, bad)


def refused(host: Host, data: bytes, *kinds: Kind) -> str:
    before = [(one.id, one.tags) for one in host.store.all()]
    with pytest.raises(EngineError) as caught:
        load(host, data)
    assert caught.value.kind in (kinds or (Kind.INVALID, Kind.DATA_LOSS)), caught.value
    assert [(one.id, one.tags) for one in host.store.all()] == before
    assert list((host.root / "layers").glob(".new-*")) == []
    return caught.value.message


def linked(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> bytes:
    config = config_for([ONE])
    entry = {"Config": "c.json", "RepoTags": ["evil:1"], "Layers": [name]}
    return tar(
        [
            member("c.json", config),
            member(name, kind=kind, linkname=target),
            member("manifest.json", json.dumps([entry]).encode()),
        ]
    )


HOSTILE = {
    "layer path climbs": docker_archive(
        config_for([ONE]), [ONE.tar], ["evil:1"], Layers=["../../etc/shadow"]
    ),
    "layer path absolute": docker_archive(
        config_for([ONE]), [ONE.tar], ["evil:1"], Layers=["/etc/shadow"]
    ),
    "config path absolute": docker_archive(
        config_for([ONE]), [ONE.tar], ["evil:1"], Config="/etc/passwd"
    ),
    "layer is a symlink to the host": linked("l.tar", "/etc/shadow"),
    "layer is a climbing symlink": linked("l.tar", "../../../etc/shadow"),
    "layer is a hard link to the host": linked("l.tar", "/etc/shadow", tarfile.LNKTYPE),
    "symlinks in a circle": linked("l.tar", "l.tar"),
    "layer is a device": linked("l.tar", "", tarfile.CHRTYPE),
    "invalid name": good("UPPER:1"),
    "a digest as name": good("x@sha256:" + "0" * 64),
    "no tag": good("untagged"),
    "too many tags": good(*(f"t:{n}" for n in range(100_000))),
    "layer missing": docker_archive(config_for([ONE]), [], ["evil:1"], Layers=["0/layer.tar"]),
    "one layer too few": docker_archive(config_for([ONE, TWO]), [ONE.tar], ["evil:1"]),
    "another layer": docker_archive(config_for([OTHER]), [TWO.tar], ["evil:1"]),
    "member climbs": tar([member("../x", b"1")]),
    "member absolute": tar([member("/x", b"1")]),
    "empty": tar([]),
    "no tar": b"not a tar" * 500,
    "cut": good("evil:1")[:3000],
    "manifest is no list": tar([member("manifest.json", b"{}")]),
    "manifest nested deep": tar([member("manifest.json", b"[" * 100_000)]),
    "config is another": docker_archive(
        config_for([ONE]), [ONE.tar], ["evil:1"], Config="manifest.json"
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_case_022_hostile_archives_change_nothing(host: Host, name: str) -> None:
    load(host, good("evil:1"))
    refused(host, HOSTILE[name])


def test_case_022_the_second_image_is_bad(host: Host) -> None:
    load(host, docker_archive(config_for([OTHER]), [OTHER.tar], ["keep:1"]))
    configs = [config_for([ONE]), config_for([TWO])]
    entries = [
        {"Config": f"{n}.json", "RepoTags": ["keep:1"], "Layers": ["layer.tar"]} for n in (0, 1)
    ]
    data = tar(
        [
            *(member(f"{n}.json", config) for n, config in enumerate(configs)),
            member("layer.tar", ONE.tar),
            member("manifest.json", json.dumps(entries).encode()),
        ]
    )
    refused(host, data)


def test_case_022_both_forms_disagree(host: Host) -> None:
    load(host, good("a:1"))
    load(host, docker_archive(config_for([OTHER]), [OTHER.tar], ["b:1"]))
    members = dict(_files(save(host, "a:1", "b:1")))
    other = dict(_files(save(host, "b:1")))
    members["index.json"] = other["index.json"]
    data = tar([member(name, raw) for name, raw in members.items()])
    assert "do not name the same images" in refused(host, data)


def _files(data: bytes) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for one in archive.getmembers():
            file = archive.extractfile(one)
            if file is not None:
                yield one.name, file.read()


def test_a_name_that_moves_is_told(host: Host) -> None:
    old = load(host, good("x:1"))[0]
    new = load(host, docker_archive(config_for([OTHER]), [OTHER.tar], ["x:1"]))[0]
    assert any(f"renaming the old one with ID {old.id}" in line for line in said(host.lines))
    assert host.store.get("x:1").id == new.id
    assert host.store.get(old.id).tags == ()


def test_platforms(host: Host) -> None:
    data = good("x:1")
    with pytest.raises(EngineError) as caught:
        load(host, data, "linux/arm64")
    assert caught.value.kind is Kind.NOT_FOUND
    assert load(host, data, "linux/amd64")
    with pytest.raises(EngineError) as caught:
        host.store.transfers().save(["x:1"], "linux/arm64")
    assert caught.value.kind is Kind.NOT_FOUND


def test_import_and_save_of_it(host: Host) -> None:
    request = ImportRequest("made", "1", "by hand", "linux/amd64", {"Cmd": ["/x"]})
    found = host.store.transfers().import_tree(
        io.BytesIO(ONE.blob).read, request, progress=host.lines.append, gone=lambda: False
    )
    assert found.diff_ids == (ONE.diff_id,)
    assert found.config.cmd == ("/x",)
    assert found.comment == "by hand"
    data = save(host, "made:1")
    host.store.remove("made:1", force=True, users=lambda _: [])
    assert load(host, data)[0].id == found.id


def test_case_119_a_client_that_goes_away_leaves_nothing(host: Host) -> None:
    load(host, good("x:1"))
    data = docker_archive(config_for([OTHER]), [OTHER.tar], ["x:1"])
    with pytest.raises(EngineError) as caught:
        host.store.transfers().load(
            io.BytesIO(data).read,
            platform="",
            quiet=True,
            progress=host.lines.append,
            gone=lambda: True,
        )
    assert caught.value.kind is Kind.CANCELLED
    host.store.close()
    host.reopen()
    assert host.store.get("x:1").diff_ids == (ONE.diff_id, TWO.diff_id)
    assert list((host.root / "layers").glob(".new-*")) == []


def test_scrub_names_damage_and_a_new_pull_heals_it(host: Host) -> None:
    with EvilRegistry() as registry:
        registry.image("x", "1", [ONE, TWO])
        name = f"{registry.address}/x:1"
        host.pull(name)
        file = next((host.root / "layers").glob("*/diff/etc/y"))
        file.chmod(0o640)
        found = list(scrub.scrub(str(host.root)))
        assert [one.reason for one in found if isinstance(one, scrub.Damage)] == [
            "'etc/y' has another mode than it should have"
        ]
        file.write_bytes(b"evil")
        damage, checked = scrub.scrub(str(host.root))
        assert isinstance(damage, scrub.Damage)
        assert isinstance(checked, scrub.Checked)
        assert (damage.what, damage.digest) == ("layer", TWO.diff_id)
        assert f"{name}" in damage.images
        scrub.forget(str(host.root), checked.damaged)
        host.pull(name)
        assert list(scrub.scrub(str(host.root)))[-1] == scrub.Checked(2, 2, ())


def test_scrub_finds_a_damaged_document(host: Host) -> None:
    image = load(host, good("x:1"))[0]
    path = host.root / "images/blobs/sha256" / image.id.removeprefix("sha256:")
    path.write_bytes(path.read_bytes() + b" ")
    damage = next(iter(scrub.scrub(str(host.root))))
    assert isinstance(damage, scrub.Damage)
    assert (damage.what, damage.digest) == ("document", image.id)
