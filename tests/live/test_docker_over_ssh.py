"""DOCKER_HOST=ssh:// and `docker context`: the client runs `docker system dial-stdio` on the host."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.live.conftest import MakeBox
from tests.support.installed import Installed


def over_ssh(box: Installed, folder: Path, user: str = "root") -> Mapping[str, str]:
    """An environment whose docker client reaches the machine by OpenSSH alone."""
    target = f"{user}@{box.host.ip}"
    argv = [one for one in box.host.ssh_argv(user) if one != target]
    wrapper = folder / "ssh"  # OpenSSH takes its settings from the passwd entry's home, not $HOME
    wrapper.write_text(f'#!/bin/sh\nexec /usr/bin/{shlex.join(argv)} "$@"\n')
    wrapper.chmod(0o755)
    return {
        "PATH": f"{folder}:{box.environment['PATH']}",
        "DOCKER_HOST": f"ssh://{target}",
        "DOCKER_TLS_VERIFY": "",
        "DOCKER_CERT_PATH": "",
    }


@pytest.mark.parametrize("user", ["root", "debian"])
def test_run_over_ssh(box: Installed, tmp_path: Path, user: str) -> None:
    env = over_ssh(box, tmp_path, user)
    data = b"line\n" * 200_000
    said = box.docker("run", "-i", "--rm", "busybox", "cat", data=data, extra=env)
    assert said.out == data  # stdin's end is passed on, and nothing after it is lost
    assert box.docker("run", "--rm", "busybox", "sh", "-c", "exit 7", check=False,
                      extra=env).status == 7  # fmt: skip
    assert box.docker("version", "-f", "{{.Server.APIVersion}}", extra=env).text == "1.51"
    box.docker("run", "-d", "--name", "far", "busybox", "sleep", "1000", extra=env)
    said = box.docker("exec", "-i", "far", "sh", data=b"echo in; echo err >&2; exit 3", check=False,
                      extra=env)  # fmt: skip
    assert (said.status, said.out, said.err) == (3, b"in\n", b"err\n")


def test_contexts_over_ssh_and_tls(box: Installed, tmp_path: Path) -> None:
    env = dict(over_ssh(box, tmp_path))
    host = env.pop("DOCKER_HOST")
    env["DOCKER_HOST"] = ""
    box.docker("context", "create", "far", "--docker", f"host={host}", extra=env)
    certs = box.environment["DOCKER_CERT_PATH"]
    described = ",".join(
        [f"host={box.environment['DOCKER_HOST']}"]
        + [f"{name}={certs}/{name}.pem" for name in ("ca", "cert", "key")]
    )
    box.docker("context", "create", "near", "--docker", described, extra=env)
    names = [
        json.loads(box.docker("--context", name, "info", "-f", "{{json .}}", extra=env).out)["ID"]
        for name in ("far", "near")
    ]
    assert names[0] == names[1] == box.api("GET", "/info").document["ID"]
    for name in ("far", "near"):
        box.docker("context", "rm", "-f", name, extra=env)


def test_the_hosts_docker_says_what_it_is(box: Installed) -> None:
    done = box.host.ssh("docker ps", check=False)
    assert done.returncode == 1
    assert "no docker client on this host" in done.stderr
    done = box.host.ssh("docker --host unix:///nowhere.sock system dial-stdio", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("docker: cannot connect to the engine at unix:///nowhere.sock")


def test_it_goes_with_the_machine_and_never_replaces_a_client(make_box: MakeBox) -> None:
    box = make_box(name="mine")
    assert box.host.run("test", "-x", "/usr/local/bin/docker", check=False).returncode == 0
    box.machine("rm", "--uninstall", "-y", "mine")
    assert box.host.run("test", "-e", "/usr/local/bin/docker", check=False).returncode == 1
    box.host.run("sh", "-c", "printf '#!/bin/sh\\necho real\\n' >/usr/local/bin/docker")
    box.host.run("chmod", "755", "/usr/local/bin/docker")
    box.create()
    assert box.host.ssh("docker ps").stdout == "real\n"
    box.machine("rm", "--uninstall", "-y", "mine")
    assert box.host.ssh("docker ps").stdout == "real\n"
