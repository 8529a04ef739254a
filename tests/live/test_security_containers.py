"""Hostile containers and images of chapter 5.3, and the layer-2 case of 5.6, on a created machine."""

import io
import json
import re
import tarfile

from tests.support.installed import Installed

_SLEEP = ("busybox", "sleep", "1000")


def _hashes(box: Installed) -> str:
    """Of all the programs that take part in an exec, and of the agent's own files."""
    script = (
        "sha256sum $(command -v crun) $(command -v runc) $(command -v conmon);"
        " find /opt/machine/agent/ -name '*.py' | sort | xargs sha256sum | sha256sum"
    )
    return box.host.run("sh", "-c", script).stdout


def test_case_040_overwriting_the_runtime(box: Installed) -> None:
    """CVE-2019-5736: /proc/<runtime>/exe is written to as soon as a runtime shows up inside."""
    before = _hashes(box)
    attack = (
        "while :; do for p in /proc/[0-9]*/exe; do"
        " [ $p = /proc/1/exe ] || (echo spoiled >$p) 2>/dev/null;"
        " done; done"
    )
    box.docker("run", "-d", "--name", "evil", "busybox", "sh", "-c", attack)
    box.docker("exec", "evil", "sh", "-c", "rm -f /bin/id; ln -s /proc/self/exe /bin/id")
    for _ in range(10):
        box.docker("exec", "evil", "/proc/self/exe", check=False, timeout=30)
        box.docker("exec", "evil", "/bin/id", check=False, timeout=30)
        box.docker("exec", "evil", "true", check=False, timeout=30)
    box.docker("restart", "-t", "0", "evil")
    assert _hashes(box) == before
    box.docker("rm", "-f", "evil")
    assert box.docker("run", "--rm", "busybox", "echo", "fine").text == "fine"


def test_case_043_nested_mount_targets_exchanged_meanwhile(box: Installed) -> None:
    """CVE-2021-30465: one container exchanges the target of another's inner mount for a link."""
    box.host.run("sh", "-c", "echo canary-of-the-host >/srv/canary-043")
    swap = (
        "while :; do rmdir /shared/inner 2>/dev/null; ln -sfn / /shared/inner 2>/dev/null;"
        " rm -f /shared/inner; mkdir -p /shared/inner 2>/dev/null; done"
    )
    box.docker("run", "-d", "--name", "swapper", "-v", "outer:/shared", "busybox", "sh", "-c", swap)
    look = "cat /proc/self/mountinfo; ls -R /shared/inner 2>/dev/null | head -500"
    mounts = ("-v", "outer:/shared", "-v", "inner:/shared/inner")
    box.docker("create", "--name", "victim", *mounts, "busybox", "sh", "-c", look)
    started = 0
    for _ in range(30):
        said = box.docker("start", "-a", "victim", check=False, timeout=30)
        started += said.status == 0
        assert b"canary-043" not in said.out
        # The fourth word is the root within the file system: of ours only volumes and bound files.
        roots = [line.split() for line in said.lines if re.match(r"[0-9]+ [0-9]+ [0-9]+:", line)]
        strange = [
            words for words in roots
            if words[4].startswith("/shared") and "/volumes/" not in words[3]
        ]  # fmt: skip
        assert strange == []
    assert started, "never started: nothing was tried"
    box.docker("rm", "-f", "swapper", "victim")
    assert box.host.run("cat", "/srv/canary-043").stdout == "canary-of-the-host\n"


def _image_with(box: Installed, name: str, *links: tuple[str, str]) -> None:
    """busybox's tree with symbolic links put into it."""
    box.docker("create", "--name", "tree", "busybox")
    tree = box.docker("export", "tree").out
    box.docker("rm", "tree")
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(tree)) as given,
        tarfile.open(fileobj=out, mode="w") as made,
    ):
        taken = {path for path, _ in links}
        for member in given:
            if member.name.rstrip("/") not in taken:
                made.addfile(member, given.extractfile(member) if member.isfile() else None)
        for path, target in links:
            link = tarfile.TarInfo(path)
            link.type, link.linkname = tarfile.SYMTYPE, target
            made.addfile(link)
    box.docker("import", "-", name, data=out.getvalue())


def test_case_044_links_where_masks_and_consoles_go(box: Installed) -> None:
    """CVE-2025-31133, CVE-2025-52565: /dev/null, /dev/console, /dev/pts/0 of the image are links."""
    _image_with(
        box, "evil",
        ("dev/null", "/proc/sys/kernel/core_pattern"),
        ("dev/console", "/proc/sysrq-trigger"),
        ("dev/pts/0", "/proc/sys/kernel/core_pattern"),
    )  # fmt: skip
    pattern = box.host.run("cat", "/proc/sys/kernel/core_pattern").stdout
    script = (
        "echo x >/dev/null; head -c 1 /proc/kcore 2>/dev/null | wc -c; (echo h >/proc/sysrq-trigger) 2>&1;"
        " (echo spoiled >/proc/sys/kernel/core_pattern) 2>&1; test -c /dev/null && echo device"
    )
    for flags in ([], ["-t"]):
        said = box.docker("run", "--rm", *flags, "evil", "sh", "-c", script, check=False).text
        assert said.split()[0] == "0", said
        assert said.count("can't create") == 2, said  # read-only, or not in this kernel
        assert "device" in said
    assert box.host.run("cat", "/proc/sys/kernel/core_pattern").stdout == pattern
    box.docker("rmi", "-f", "evil")


_RESERVED = {
    "machine.id": "x", "io.machine.pid": "1", "containerd.io/distribution.source.x": "y",
    "io.podman.annotations.privileged": "TRUE", "com.docker.network.bridge.name": "machine0",
    "org.criu.config": "/canary/c", "run.oci.handler": "krun",
}  # fmt: skip


def test_case_045_reserved_labels_of_an_image(box: Installed) -> None:
    lines = "".join(f'LABEL "{name}"="{value}"\n' for name, value in _RESERVED.items())
    box.docker("build", "-q", "-t", "labelled", "-", data=f"FROM busybox\n{lines}".encode())
    shown = json.loads(
        box.docker("image", "inspect", "-f", "{{json .Config.Labels}}", "labelled").out
    )
    assert shown == _RESERVED
    identity = box.docker("run", "-d", "--name", "one", "labelled", "sleep", "1000").text
    path = f"/run/machine/containers/{identity}/config.json"
    document = json.loads(box.host.run("cat", path).stdout)
    assert not set(document.get("annotations", {})) & set(_RESERVED)
    assert box.docker("inspect", "-f", "{{.HostConfig.Privileged}}", "one").text == "false"
    before = box.agent_pid()
    box.host.run("kill", "-KILL", str(before))
    box.restart_wait(before)  # what the labels say of it changes nothing for the next agent either
    assert box.state("one")["Running"] is True
    box.docker("rm", "-f", "one")
    box.docker("rmi", "-f", "labelled")


def test_case_047_labels_with_hostile_text(box: Installed) -> None:
    labels = {
        "large": "x" * (1 << 20),
        "lines": "a\nb\r\nc",
        "escape": "\x1b]0;owned\x07\x1b[2J",
        "template": "{{.ID}} {{ range . }}",
        "format": "%s%n%d$(id)`id`",
        "\x1b[31mname": "\u202e\ud7ff",
    }
    made = box.api(
        "POST", "/containers/create", {"Image": "busybox", "Labels": labels}, name="talk"
    )
    assert made.status == 201, made.message
    config = box.inspect("talk")["Config"]
    assert isinstance(config, dict)
    assert config["Labels"] == labels
    listed = json.loads(box.api("GET", "/containers/json", all="1").body)
    assert [one["Labels"] for one in listed] == [labels]
    for words in (("ps", "-a"), ("docker", "ps", "-a", "--no-trunc")):
        said = box.machine(*words, check=False)
        assert said.status == 0, said
        assert b"\x1b" not in said.out
    filtered = json.dumps({"label": [f"template={labels['template']}"]})
    found = box.api("GET", "/containers/json", all="1", filters=filtered).body
    assert len(json.loads(found)) == 1


def test_case_109_spoofing_on_the_link(box: Installed) -> None:
    """Documented in docs/engine.md: NET_RAW, one of docker's defaults, is what it takes."""
    box.docker("run", "-d", "--name", "victim", *_SLEEP)
    raw = "arping -c 1 -w 1 -I eth0 172.17.0.1 2>&1; udhcpc -n -q -t 1 -T 1 -i eth0 2>&1"
    said = box.docker(
        "run", "--rm", "--cap-drop", "NET_RAW", "busybox", "sh", "-c", raw, check=False
    ).text
    assert said.count("Operation not permitted") >= 2, said
    mine = (
        "ip link set eth0 address 02:42:ac:11:00:99 2>&1; ip addr add 172.17.0.99/16 dev eth0 2>&1"
    )
    for flags in ([], ["--cap-drop", "NET_RAW"]):
        said = box.docker("run", "--rm", *flags, "busybox", "sh", "-c", mine, check=False).text
        assert said.count("Operation not permitted") == 2, said
    assert (
        box.docker("exec", "victim", "ip", "-o", "link", "show", "eth0").text.count(
            "02:42:ac:11:00:99"
        )
        == 0
    )
