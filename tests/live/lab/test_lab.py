"""The lab itself: what the other live tests rely on."""

import json
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.lab import cgroups
from tests.lab.fixtures import MakeHost
from tests.lab.hostroot import VARIANTS, Variant
from tests.lab.lab import known_labs, open_lab, remove, remove_stale
from tests.lab.registry import Registry
from tests.lab.settings import REPOSITORY, Settings

_NESTED = (Path(__file__).parent / "nested.sh").read_text()


@pytest.mark.parametrize("variant", ["systemd", "plain"])
def test_containers_run_inside(make_host: MakeHost, variant: Variant) -> None:
    """Overlay, veth, bridge, nft; runc, and crun under conmon, with memory and pids limits."""
    host = make_host(variant)
    said = host.ssh("bash -s", text=_NESTED).stdout.split("\n")
    for expected in (
        "overlay ok", "nat ok", "ping ok", "loop ok", "shared mount ok",
        "runc memory 67108864 pids 50 rc 0", "crun memory 67108864 pids 50 rc 0",
        "conmon crun memory 67108864 pids 50 rc 7",
    ):  # fmt: skip
        assert expected in said, "\n".join(said)


@pytest.mark.parametrize("variant", VARIANTS)
def test_reboot_and_power(make_host: MakeHost, variant: Variant) -> None:
    host = make_host(variant)
    before = host.boot_id()
    host.ssh("touch /root/kept; ip link add br7 type bridge; shutdown -r now", check=False)
    host.wait_reboot(before)
    assert host.ssh("ls /root; ip -br link show type bridge").stdout == "kept\n"
    host.stop()
    assert not host.running
    host.start()
    assert host.ssh("ls /root", user="root").stdout == "kept\n"
    assert host.ssh("sudo id -un", user="debian").stdout == "root\n"


def test_systemd_is_content(make_host: MakeHost) -> None:
    host = make_host("systemd")
    state = host.ssh("systemctl is-system-running --wait; systemctl --failed --no-legend").stdout
    assert state == "running\n"


@pytest.mark.parametrize("variant", ["systemd", "plain"])
def test_a_bare_host_installs_from_its_own_repository(
    make_host: MakeHost, variant: Variant
) -> None:
    host = make_host(variant, "bare")
    assert host.ssh("command -v crun runc conmon nft", check=False).stdout == ""
    host.ssh("apt-get -qq update && apt-get -qq -y install crun conmon nftables", user="root")
    assert host.ssh("crun --version").stdout.startswith("crun version")


def test_plain_has_no_systemd(make_host: MakeHost) -> None:
    host = make_host("plain")
    assert host.ssh("command -v systemctl; ls -d /run/systemd", check=False).stdout == ""
    host.ssh("(sh -c 'exit 0' & exec sh -c 'exit 0') ; (setsid sh -c 'exit 3' &)")
    assert "Z" not in host.ssh("ps -eo stat=").stdout.replace(" ", "").split("\n")


def test_hosts_reach_each_other_and_the_registry(make_host: MakeHost, registry: Registry) -> None:
    one, two = make_host(), make_host("plain")
    one.ssh(f"ping -c1 -W2 {two.ip}")
    assert two.ssh(f"curl -fsS {registry.url}/v2/").stdout == "{}"
    assert two.ssh("curl -fsS http://registry.lab:5000/v2/").stdout == "{}"


def test_the_registry_serves_every_kind_of_image(registry: Registry) -> None:
    def manifest(name: str) -> dict[str, list[dict[str, str]]]:
        kinds = (
            "application/vnd.docker.distribution.manifest.v2+json,"
            "application/vnd.docker.distribution.manifest.list.v2+json,"
            "application/vnd.oci.image.manifest.v1+json,application/vnd.oci.image.index.v1+json"
        )
        repository, _, tag = name.partition(":")
        address = f"{registry.url}/v2/library/{repository}/manifests/{tag or 'latest'}"
        with urllib.request.urlopen(
            urllib.request.Request(address, headers={"Accept": kinds})
        ) as r:
            body = json.load(r)
            assert body["mediaType"] == r.headers["Content-Type"]
            return body  # type: ignore[no-any-return]

    assert [len(manifest(n)["layers"]) for n in ("debian", "httpd:2.4", "layers")] == [1, 2, 6]
    assert {x["mediaType"][-4:] for x in manifest("layers:zstd")["layers"]} == {"zstd"}
    assert len(manifest("multi")["manifests"]) == len(manifest("multi:list")["manifests"]) == 2


def test_tls_wants_the_password(registry: Registry) -> None:
    def status(*more: str) -> str:
        argv = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", str(registry.ca)]
        done = subprocess.run(
            [*argv, *more, f"https://{registry.tls}/v2/"], capture_output=True, encoding="ascii"
        )
        return done.stdout

    assert status() == "401"
    assert status("-u", "lab:wrong") == "401"
    assert status("-u", f"{registry.username}:{registry.password}") == "200"


def test_the_docker_client_runs(docker_cli: Path) -> None:
    done = subprocess.run([docker_cli, "--version"], capture_output=True, encoding="utf-8")
    assert done.stdout.startswith("Docker version")


def _traces(name: str, settings: Settings) -> list[str]:
    mounts = [m for m in Path("/proc/self/mounts").read_text().splitlines() if f"/{name}/" in m]
    netns = [str(p) for p in Path("/run/netns").glob(f"mlab.{name}.*")]
    groups = [str(p) for h in cgroups.hierarchies() for p in h.path.glob(f"machine-lab/{name}")]
    folders = [str(p) for p in settings.state.glob(f"*{name}*")]
    return [*mounts, *netns, *groups, *folders, *map(str, cgroups.members(name))]


_KILLED = """
import os, signal, sys
from tests.lab.lab import open_lab
from tests.lab.settings import from_environment
lab = open_lab(from_environment(os.environ), sys.argv[1], owner=os.getpid())
lab.host(); lab.host(variant="plain", wait=False)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_lab_whose_process_was_killed_is_removed(lab_settings: Settings) -> None:
    name = "killed"
    subprocess.run(
        [str(REPOSITORY / ".venv/bin/python"), "-c", _KILLED, name], cwd=REPOSITORY, check=False
    )
    assert _traces(name, lab_settings)
    assert name in remove_stale(lab_settings)
    assert _traces(name, lab_settings) == []


def test_two_labs_are_apart_and_go_without_a_trace(lab_settings: Settings) -> None:
    names = ["apart-a", "apart-b"]
    try:
        labs = [open_lab(lab_settings, name) for name in names]
        ips = {lab.host("h").ip for lab in labs}
        assert len(ips) == 2
        assert labs[0].host("h").ip in ips  # the same host again
        assert set(names) <= {r.name for r in known_labs(lab_settings)}
    finally:
        for name in names:
            remove(lab_settings, name)
    assert [t for name in names for t in _traces(name, lab_settings)] == []


def test_down_works_from_the_name_alone(lab_settings: Settings) -> None:
    lab = open_lab(lab_settings, "nameless")
    lab.host("h", wait=False)
    (lab.directory / "lab.json").unlink()
    remove(lab_settings, "nameless")
    assert _traces("nameless", lab_settings) == []
