"""The docker client pushes, saves and loads on a created machine; skopeo and the registry judge."""

import json
import re

import pytest

from tests.support.installed import Installed


def trust(box: Installed) -> str:
    """The TLS registry, its CA in certs.d; host:port."""
    registry = box.registry
    folder = f"/etc/machine/certs.d/{registry.tls}"
    box.host.run("mkdir", "-p", folder)
    box.host.run("sh", "-c", f"cat >{folder}/ca.crt", text=registry.ca.read_text())
    return registry.tls


def layers_of(box: Installed, image: str) -> list[str]:
    found = box.docker("image", "inspect", "-f", "{{json .RootFS.Layers}}", image).text
    return [str(one) for one in json.loads(found)]


@pytest.fixture(name="tls")
def _tls(box: Installed) -> str:
    tls = trust(box)
    registry = box.registry
    said = box.docker(
        "login", "-u", registry.username, "--password-stdin", tls, data=b"secret"
    ).text
    assert "Login Succeeded" in said
    return tls


def test_login_is_checked(box: Installed) -> None:
    tls = trust(box)
    refused = box.docker("login", "-u", "lab", "--password-stdin", tls, data=b"wrong", check=False)
    assert refused.status == 1
    assert "unauthorized" in refused.complaint


def test_push_and_pull_again(box: Installed, tls: str) -> None:
    box.docker("pull", "-q", "layers")
    name = f"{tls}/pushed/layers:live"
    box.docker("tag", "layers", name)
    said = box.docker("push", name).lines
    assert said[0] == f"The push refers to repository [{tls}/pushed/layers]"
    found = re.fullmatch(r"live: digest: (sha256:[0-9a-f]{64}) size: \d+", said[-1])
    assert found
    again = box.docker("push", name).text
    assert again.count("Layer already exists") == 6
    mounted = f"{tls}/mounted/layers:live"
    box.docker("tag", "layers", mounted)
    assert box.docker("push", mounted).text.count("Mounted from pushed/layers") == 6
    before = layers_of(box, "layers")
    digest = f"{tls}/pushed/layers@{found[1]}"
    assert digest in box.docker("image", "inspect", "-f", "{{.RepoDigests}}", "layers").text
    for one in (name, mounted, "layers:latest"):
        box.docker("rmi", one)
    box.docker("pull", "-q", digest)
    assert layers_of(box, digest) == before
    assert box.docker("run", "--rm", digest, "ls", "/srv").lines[0] == "layer1"
    box.docker("rmi", digest)


def test_skopeo_copies_what_was_pushed(box: Installed, tls: str) -> None:
    name = f"{tls}/pushed/busybox:skopeo"
    box.docker("tag", "busybox", name)
    box.docker("push", name)
    credentials = f"{box.registry.username}:{box.registry.password}"
    box.run(
        "skopeo", "copy", "--src-tls-verify=false", "--src-creds", credentials,
        f"docker://{name}", f"docker-archive:{box.folder}/copied.tar:copied:1",
    )  # fmt: skip
    assert "Loaded image: copied:1" in box.docker("load", "-i", "copied.tar").text
    assert layers_of(box, "copied:1") == layers_of(box, "busybox")
    box.docker("rmi", "copied:1", name)


def test_push_without_credentials(box: Installed) -> None:
    tls = trust(box)
    box.docker("logout", tls, check=False)
    name = f"{tls}/denied/busybox:1"
    box.docker("tag", "busybox", name)
    box.fails("push", name, says="no basic auth credentials")
    box.docker("rmi", name)


def test_save_and_load(box: Installed) -> None:
    box.docker("tag", "busybox", "saved:a")
    box.docker("tag", "busybox", "saved:b")
    box.docker("save", "-o", "two.tar", "saved:a", "saved:b")
    assert box.docker("save", "saved:a", "saved:b").out == (box.folder / "two.tar").read_bytes()
    box.docker("rmi", "saved:a", "saved:b")
    said = box.docker("load", "-i", "two.tar").lines
    assert said == ["Loaded image: saved:a", "Loaded image: saved:b"]
    packed = box.run("gzip", "-c", "two.tar").out
    assert box.docker("load", "-q", data=packed).lines == said
    box.docker("rmi", "saved:a", "saved:b")
    box.fails("load", says="invalid archive")


def test_import_history_prune(box: Installed) -> None:
    tree = box.docker("export", box.docker("create", "busybox").text).out
    image = box.docker(
        "import", "-c", 'CMD ["echo", "imported"]', "-m", "by test", "-", "made:1", data=tree
    ).text
    assert box.docker("run", "--rm", "made:1").text == "imported"
    assert "by test" in box.docker("history", "made:1").text
    box.docker("tag", "busybox", "made:1")
    assert image in box.docker("image", "prune", "-f").text
    box.docker("rmi", "made:1")
    sizes = box.docker("history", "--format", "{{.Size}}", "layers", check=False)
    assert sizes.status == 1 or any(one != "0B" for one in sizes.lines)


def test_pull_all_tags_and_distribution(box: Installed) -> None:
    said = box.docker("pull", "-a", "multi").text
    assert said.count("Digest: sha256:") == 3
    found = box.api("GET", "/distribution/multi:latest/json").document
    platforms = found["Platforms"]
    assert isinstance(platforms, list)
    assert {one["architecture"] for one in platforms} >= {"amd64", "arm64"}
    tags = box.docker("images", "-q", "multi").lines
    box.docker("rmi", "-f", tags[0])


def test_search_without_an_index_is_told(box: Installed, tls: str) -> None:
    box.fails("search", f"{tls}/x", says="can't be searched")
    box.fails("search", "x", says="can't be searched")


def test_own_commands(box: Installed) -> None:
    tls = trust(box)
    more = {"DOCKER_CONFIG": str(box.folder / "own")}
    box.machine("docker", "login", "-u", "lab", "--password-stdin", tls, data=b"secret", extra=more)
    name = f"{tls}/own/busybox:1"
    box.docker("tag", "busybox", name)
    assert "digest: sha256:" in box.machine("push", name, extra=more).text
    box.machine("save", "-o", "own.tar", name, extra=more)
    box.docker("rmi", name)
    assert box.machine("load", "-i", "own.tar", extra=more).text == f"Loaded image: {name}"
    box.docker("rmi", name)


def test_scrub_on_the_host(box: Installed) -> None:
    command = "exec python3 -I /opt/machine/agent scrub"
    done = box.host.run("sh", "-c", command)
    assert re.search(r"checked \d+ layers and \d+ documents", done.stdout)
