"""The docker client's image commands against a created machine."""

import json
import re

from agent.api.routes import ROUTES, Service
from tests.support.installed import Installed


def test_version_and_info(box: Installed) -> None:
    said = box.docker("version").text
    assert re.search(r"API version: +1\.51 \(minimum version 1\.24\)", said)
    info = json.loads(box.docker("info", "--format", "{{json .}}").text)
    assert info["ServerVersion"] == json.loads(
        box.docker("version", "--format", "{{json .Server.Version}}").text
    )
    assert (info["Name"], info["OSType"], info["Driver"]) == (box.host.name, "linux", "overlay2")
    assert info["RegistryConfig"]["Mirrors"] == [f"{box.registry.url}/"] or (
        info["RegistryConfig"]["Mirrors"] == [box.registry.url]
    )
    for one in info.get("Warnings") or ():  # Debian's runtimes are older than the fixes of 2026
        assert re.fullmatch(r"WARNING: (crun|runc) \S+ is older than .*CVE-.*", one), one


def test_pull_shows_progress_and_digest(box: Installed) -> None:
    box.docker("rmi", "-f", "alpine", check=False)
    said = box.docker("pull", "alpine").lines
    assert said[0] == "Using default tag: latest"
    assert said[1] == "latest: Pulling from library/alpine"
    # a layer is there already when an image of an earlier test shares it
    assert re.fullmatch(r"[0-9a-f]{12}: (Pull complete|Already exists)", said[-4])
    assert re.fullmatch(r"Digest: sha256:[0-9a-f]{64}", said[-3])
    assert said[-2] == "Status: Downloaded newer image for alpine:latest"
    assert said[-1] == "docker.io/library/alpine:latest"
    again = box.docker("pull", "alpine").lines
    assert again[-2] == "Status: Image is up to date for alpine:latest"
    assert box.docker("pull", "-q", "alpine:3.19").text == "docker.io/library/alpine:3.19"


def test_pull_on_a_terminal_draws(box: Installed) -> None:
    box.docker("rmi", "-f", "layers:gzip", check=False)
    with box.terminal("docker", "pull", "layers:gzip") as terminal:
        assert terminal.finish(60) == 0
        assert b"Pull complete" in terminal.seen
    box.docker("rmi", "layers:gzip")


def test_pull_by_digest(box: Installed) -> None:
    reference = box.docker(
        "image", "inspect", "busybox", "--format", "{{index .RepoDigests 0}}"
    ).text
    assert re.fullmatch(r"busybox@sha256:[0-9a-f]{64}", reference)
    assert box.docker("pull", reference).lines[-1] == f"docker.io/library/{reference}"
    assert box.docker("run", "--rm", reference, "echo", "by digest").text == "by digest"
    wrong = "busybox@sha256:" + "0" * 64
    box.fails("pull", wrong, says="not found")


def test_pull_zstd_layers(box: Installed) -> None:
    box.docker("pull", "-q", "layers:zstd")
    listing = box.docker("run", "--rm", "layers:zstd", "ls", "/srv").lines
    assert listing == [f"layer{n}" for n in range(1, 6)]
    box.docker("rmi", "layers:zstd")


def test_pull_platform(box: Installed) -> None:
    for tag, platform in (("latest", "amd64"), ("list", "arm64")):
        box.docker("pull", "-q", "--platform", f"linux/{platform}", f"multi:{tag}")
        label = '{{index .Config.Labels "lab.architecture"}} {{.Architecture}}'
        shown = box.docker("image", "inspect", f"multi:{tag}", "--format", label).text
        assert shown == f"{platform} {platform}"
    box.fails("pull", "--platform", "linux/s390x", "multi", says="no match")
    assert box.docker("run", "--rm", "multi:oci").text == "hello from amd64"
    for tag in ("latest", "list", "oci"):
        box.docker("rmi", "-f", f"multi:{tag}")


def test_pull_names_that_are_wrong(box: Installed) -> None:
    said = box.fails("pull", "nosuchimage").complaint
    assert "pull access denied for nosuchimage" in said or "manifest unknown" in said, said
    box.fails("pull", "busybox:nosuchtag", says="busybox:nosuchtag")
    box.fails("pull", "BusyBox", says="must be lowercase")
    box.fails("run", "nosuchimage", status=125, says="Unable to find image 'nosuchimage:latest'")
    assert box.api("POST", "/images/create", fromImage="a/../b", tag="x").status == 400


def test_images_tag_rmi(box: Installed) -> None:
    identity = box.docker("images", "-q", "--no-trunc", "busybox:latest").text
    box.docker("tag", "busybox", "team.example:5000/tools/box:v1")
    listed = box.docker("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}", "--no-trunc")
    assert f"team.example:5000/tools/box:v1 {identity}" in listed.lines
    assert box.docker("images", "-q", "--filter", "reference=team.example:5000/*/*").lines
    header = box.docker("images").lines[0].split()
    assert header[:2] == ["REPOSITORY", "TAG"]
    gone = box.docker("rmi", "team.example:5000/tools/box:v1").lines
    assert gone == ["Untagged: team.example:5000/tools/box:v1"]
    box.fails("rmi", "nosuchimage", says="No such image: nosuchimage")
    box.fails("tag", "nosuchimage", "x", says="No such image: nosuchimage")


def test_rmi_of_an_image_in_use(box: Installed) -> None:
    box.docker("pull", "-q", "hello-world")
    container = box.docker("create", "--name", "user", "hello-world").text
    said = box.fails("rmi", "hello-world").complaint
    assert "conflict: unable to remove repository reference" in said
    assert container[:12] in said
    box.docker("rm", "user")
    lines = box.docker("rmi", "hello-world").lines
    assert lines[0] == "Untagged: hello-world:latest"
    assert any(re.fullmatch(r"Deleted: sha256:[0-9a-f]{64}", line) for line in lines)
    assert box.api("GET", "/images/hello-world/json").status == 404


def test_running_image_survives_forced_rmi_by_name(box: Installed) -> None:
    box.docker("pull", "-q", "alpine")
    box.docker("run", "-d", "--name", "up", "alpine", "sleep", "1000")
    identity = box.docker("images", "-q", "alpine:latest").text
    box.fails("rmi", "-f", identity, says="conflict")
    assert box.docker("exec", "up", "echo", "alive").text == "alive"


_COMMANDS = {  # of the specification's rows; what is served by now is not asked
    "/commit": ["commit", "up", "x"],
    "/containers/{id}/archive": ["cp", "up:/etc/passwd", "-"],
    "/containers/{id}/stats": ["stats", "--no-stream", "up"],
    "/containers/{id}/top": ["top", "up"],
    "/containers/{id}/changes": ["diff", "up"],
    "/containers/{id}/export": ["export", "-o", "e", "up"],
    "/images/get": ["save", "-o", "s", "busybox"],
    "/containers/{id}/update": ["update", "--memory", "64m", "up"],
    "/networks/create": ["network", "create", "other"],
    "/volumes/prune": ["volume", "prune", "-f"],
    "/swarm/init": ["swarm", "init"],
}


def test_commands_not_served_say_so(box: Installed) -> None:
    box.docker("run", "-d", "--name", "up", "busybox", "sleep", "1000")
    later = {row.template for row in ROUTES if row.service is Service.LATER}
    for template in later & set(_COMMANDS):
        done = box.docker(*_COMMANDS[template], check=False)
        assert done.status != 0, template
        assert "served" in done.complaint, (template, done)


def test_paths_not_served_say_so(box: Installed) -> None:
    """501 and a message that names it; never a silent success."""
    for row in ROUTES:
        if row.service is Service.LATER:
            path = row.template.replace("{id}", "x").replace("{name}", "x")
            answer = box.api(row.method, path)
            assert answer.status == 501, row
            if row.method != "HEAD":
                assert "is not served" in answer.message or "not served" in answer.message, row
