"""`docker run` and its flags against a created machine."""

import json
import re
import socket
import urllib.request

import pytest

from tests.support.installed import Installed


def test_exit_statuses(box: Installed) -> None:
    for status in (0, 1, 42, 255):
        done = box.docker("run", "--rm", "busybox", "sh", "-c", f"exit {status}", check=False)
        assert done.status == status
    box.fails("run", "--rm", "busybox", "/nosuch", status=127, says="no such file or directory")
    box.fails("run", "--rm", "busybox", "nosuch", status=127, says="executable file not found")
    box.fails("run", "--rm", "busybox", "/etc/passwd", status=126, says="permission denied")
    box.fails("run", "--rm", "--nosuchflag", "busybox", status=125)
    assert box.docker("run", "--rm", "busybox", "sh", "-c", "sh -c 'kill -9 $$'; exit $?",
                      check=False).status == 137  # fmt: skip
    assert box.docker("ps", "-aq").text == "", "a --rm container is left"


def test_failed_start_leaves_a_created_container(box: Installed) -> None:
    box.fails("run", "--name", "bad", "busybox", "/nosuch", status=127)
    state = box.state("bad")
    assert (state["Status"], state["ExitCode"]) == ("created", 127)
    assert "no such file" in str(state["Error"])


def test_name_and_its_conflict(box: Installed) -> None:
    first = box.docker("run", "-d", "--name", "one", "busybox", "sleep", "1000").text
    assert re.fullmatch("[0-9a-f]{64}", first)
    said = box.fails("run", "--name", "one", "busybox", status=125).complaint
    assert 'The container name "/one" is already in use by container "' + first + '"' in said
    box.fails("run", "--name", "-bad", "busybox", status=125, says="Invalid container name")
    generated = box.docker("run", "-d", "busybox", "true").text
    assert re.fullmatch("/[a-z]+_[a-z]+[0-9]?", str(box.inspect(generated)["Name"]))


def test_environment_directory_user(box: Installed) -> None:
    done = box.docker(
        "run", "--rm", "-e", "A=1", "-e", "B=two words", "-e", "PATH_FROM_HERE", "-w", "/tmp/new",
        "-u", "33:65534", "busybox", "sh", "-c", "env; pwd; id -u; id -g; id -un",
        extra={"PATH_FROM_HERE": "yes"},
    )  # fmt: skip
    assert {"A=1", "B=two words", "PATH_FROM_HERE=yes", "/tmp/new", "33", "65534"} <= set(
        done.lines
    )
    assert done.lines[-1] == "www-data"
    assert box.docker("run", "--rm", "-u", "www-data", "busybox", "id", "-u").text == "33"
    box.fails("run", "--rm", "-u", "nosuch", "busybox", "id", status=125,
              says="unable to find user nosuch")  # fmt: skip
    home = box.docker("run", "--rm", "busybox", "sh", "-c", "echo $HOME $HOSTNAME").text.split()
    assert home[0] == "/root"
    assert re.fullmatch("[0-9a-f]{12}", home[1])


def test_entrypoint_hostname_labels(box: Installed) -> None:
    run = ["run", "--rm", "--entrypoint", "/bin/echo", "--hostname", "web1", "--label", "a=b"]
    assert box.docker(*run, "busybox", "hello", "$HOME").text == "hello $HOME"
    seen = box.docker("run", "--rm", "--hostname", "web1", "busybox", "sh", "-c",
                      "hostname; cat /etc/hostname; grep -w web1 /etc/hosts")  # fmt: skip
    assert seen.lines[:2] == ["web1", "web1"]
    assert seen.lines[2].split()[1] == "web1"
    box.docker("create", "--name", "labelled", "--label", "a=b", "--label", "empty", "busybox")
    labels = json.loads(
        box.docker("inspect", "labelled", "--format", "{{json .Config.Labels}}").text
    )
    assert labels == {"a": "b", "empty": ""}


def test_limits_reach_the_kernel(box: Installed) -> None:
    box.docker("run", "-d", "--name", "small", "--memory", "64m", "--cpus", "0.5",
               "--pids-limit", "17", "busybox", "sleep", "1000")  # fmt: skip
    seen = box.docker("exec", "small", "sh", "-c",
                      "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max "
                      "/sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max "
                      "/sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; true")  # fmt: skip
    assert seen.lines[0] == str(64 << 20)
    assert seen.lines[1].split()[0] == "50000"
    assert seen.lines[2] == "17"
    host = box.inspect("small")["HostConfig"]
    assert isinstance(host, dict)
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (64 << 20, 500_000_000, 17)


def test_memory_limit_kills(box: Installed) -> None:
    script = "x=a; while :; do x=$x$x; done"
    status = box.docker("run", "--name", "hungry", "--memory", "16m", "busybox", "sh", "-c", script,
                        check=False).status  # fmt: skip
    assert status == 137
    assert box.state("hungry")["OOMKilled"] is True


def test_pids_limit_holds(box: Installed) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done; wait"
    done = box.docker(
        "run", "--rm", "--pids-limit", "5", "busybox", "sh", "-c", script, check=False
    )
    assert "can't fork" in done.complaint


def test_read_only_and_tmpfs(box: Installed) -> None:
    script = "touch /x; touch /tmp/y && echo y; mount | grep ' /tmp '"
    done = box.docker("run", "--rm", "--read-only", "--tmpfs", "/tmp:size=1m,mode=1700", "busybox",
                      "sh", "-c", script)  # fmt: skip
    assert "Read-only file system" in done.complaint
    assert done.lines[0] == "y"
    assert "size=1024k" in done.lines[1]
    assert "mode=1700" in done.lines[1]
    assert "noexec" in done.lines[1]
    assert "nosuid" in done.lines[1]


def test_capabilities(box: Installed) -> None:
    def effective(*flags: str) -> int:
        done = box.docker("run", "--rm", *flags, "busybox", "grep", "CapEff", "/proc/self/status")
        return int(done.text.split()[1], 16)

    assert effective() == 0xA80425FB
    assert effective("--cap-drop", "ALL") == 0
    assert effective("--cap-drop", "ALL", "--cap-add", "NET_ADMIN") == 1 << 12
    assert effective("--cap-add", "CAP_SYS_ADMIN") == 0xA80425FB | 1 << 21
    assert effective("-u", "33") == 0
    # a lab host has no more than its supervisor leaves it
    all_of_them = box.host.run("grep", "CapBnd", "/proc/1/status").stdout.split()[1]
    assert effective("--privileged") == int(all_of_them, 16)
    box.fails("run", "--rm", "--cap-add", "NOSUCH", "busybox", status=125, says="NOSUCH")


def test_privileged_opens_devices(box: Installed) -> None:
    script = "mount -t tmpfs none /tmp && echo mounted; ls /dev | wc -l"
    done = box.docker("run", "--rm", "--privileged", "busybox", "sh", "-c", script).lines
    assert done[0] == "mounted"
    plain = box.docker("run", "--rm", "busybox", "sh", "-c", script)
    assert "permission denied" in plain.complaint
    assert int(done[1]) > int(plain.lines[0])


def test_init(box: Installed) -> None:
    box.host.run("sh", "-c", "apt-get -q update && apt-get install -qy tini")  # from a folder
    run = ["run", "--rm", "--init", "busybox", "sh", "-c", "tr '\\0' ' ' </proc/1/cmdline; exit 3"]
    done = box.docker(*run, check=False)
    assert done.status == 3
    assert "init -- sh -c" in done.text


@pytest.mark.parametrize("policy", ["no", "always", "unless-stopped", "on-failure:3"])
def test_restart_policies(box: Installed, policy: str) -> None:
    box.docker("run", "-d", "--name", "again", "--restart", policy, "busybox",
               "sh", "-c", "echo up; exit 3")  # fmt: skip

    def count() -> int:
        found = box.inspect("again")["RestartCount"]
        assert isinstance(found, int)
        return found

    if policy == "no":
        box.wait_status("again", "exited")
        assert count() == 0
    elif policy == "on-failure:3":
        box.wait(lambda: box.state("again")["Status"] == "exited" and count() == 3, "3 restarts")
        assert box.docker("logs", "again").text.count("up") == 4
    else:
        box.wait(lambda: count() >= 3, "3 restarts")
        box.docker("stop", "-t", "1", "again")
        assert box.state("again")["Status"] == "exited"
    if policy != "no":
        assert box.state("again")["ExitCode"] == 3
    box.fails("run", "--restart", "sometimes", "busybox", status=125)


def test_restart_on_failure_ignores_success(box: Installed) -> None:
    box.docker("run", "-d", "--name", "fine", "--restart", "on-failure", "busybox", "true")
    box.wait_status("fine", "exited")
    assert box.inspect("fine")["RestartCount"] == 0


def test_bind_mounts(box: Installed) -> None:
    box.host.run("mkdir", "-p", "/srv/shared")
    box.host.run("sh", "-c", "echo from the host >/srv/shared/file")
    mount = ["-v", "/srv/shared:/mnt"]
    assert box.docker("run", "--rm", *mount, "busybox", "cat", "/mnt/file").text == "from the host"
    box.docker("run", "--rm", *mount, "busybox", "sh", "-c", "echo back >/mnt/new")
    assert box.host.run("cat", "/srv/shared/new").stdout == "back\n"
    done = box.docker("run", "--rm", "-v", "/srv/shared:/mnt:ro", "busybox", "touch", "/mnt/x",
                      check=False)  # fmt: skip
    assert "Read-only file system" in done.complaint
    box.docker("run", "--rm", "-v", "/srv/made-by-run:/mnt", "busybox", "true")
    assert box.host.run("stat", "-c", "%F", "/srv/made-by-run").stdout.strip() == "directory"
    box.fails("run", "--rm", "--mount", "type=bind,src=/srv/nosuch,dst=/mnt", "busybox", status=125,
              says="bind source path does not exist")  # fmt: skip
    box.fails("run", "--rm", "-v", "/srv:/", "busybox", status=125, says="destination can't be '/'")


def test_named_volumes_copy_up_and_stay(box: Installed) -> None:
    box.docker("run", "--rm", "-v", "keep:/etc", "busybox", "sh", "-c", "echo 1 >/etc/mark")
    seen = box.docker(
        "run", "--rm", "-v", "keep:/data", "busybox", "sh", "-c", "ls /data; cat /data/mark"
    )
    assert {"passwd", "group", "mark", "1"} <= set(seen.lines)
    box.docker("run", "--rm", "-v", "empty:/etc:nocopy", "busybox", "true")
    kept = box.docker("run", "--rm", "-v", "empty:/data", "busybox", "ls", "/data").lines
    assert "passwd" not in kept
    box.docker("run", "-d", "--name", "user", "-v", "keep:/data", "busybox", "sleep", "1000")
    box.fails("volume", "rm", "keep", says="volume is in use")


def test_anonymous_volumes_end_with_rm(box: Installed) -> None:
    box.docker("run", "--rm", "-v", "/data", "busybox", "touch", "/data/x")
    assert box.docker("volume", "ls", "-q").text == ""
    box.docker("run", "--name", "left", "-v", "/data", "busybox", "true")
    box.docker("rm", "left")
    assert len(box.docker("volume", "ls", "-q").lines) == 1
    box.docker("run", "--name", "left", "-v", "/data", "busybox", "true")
    box.docker("rm", "-v", "left")
    assert len(box.docker("volume", "ls", "-q").lines) == 1


def _answers(address: str, port: int) -> str:
    with urllib.request.urlopen(f"http://{address}:{port}/", timeout=10) as answer:
        return str(answer.read().decode())


_SERVE = "mkdir /w; echo served >/w/index.html; exec httpd -f -p 80 -h /w"


def test_published_ports(box: Installed) -> None:
    box.docker("run", "-d", "--name", "web", "-p", "8080:80", "-p", "8090-8091:80-81", "-p", "80",
               "-p", "127.0.0.1:8085:80", "busybox", "sh", "-c", _SERVE)  # fmt: skip
    ports = box.docker("port", "web").lines
    assert "80/tcp -> 0.0.0.0:8080" in ports
    assert "80/tcp -> 127.0.0.1:8085" in ports
    assert "81/tcp -> 0.0.0.0:8091" in ports
    chosen = [
        int(line.rpartition(":")[2])
        for line in ports
        if line.startswith("80/tcp -> 0.0.0.0:") and not re.search(r":80[89][05]?0$", line)
    ]
    for port in (8080, 8090, *chosen):
        box.wait(lambda port=port: _connects(box.host.ip, port), f"port {port}")  # type: ignore[misc]
        assert _answers(box.host.ip, port) == "served\n"
    inside = box.host.run("python3", "-c", "import urllib.request as u; "
                          "print(u.urlopen('http://127.0.0.1:8085/').read().decode())")  # fmt: skip
    assert "served" in inside.stdout
    assert not _connects(box.host.ip, 8085), "a loopback port answers from outside"
    box.fails(
        "run", "--rm", "-p", "8080:80", "busybox", status=125, says="port is already allocated"
    )
    assert box.docker("port", "web", "81").lines[0] == "0.0.0.0:8091"


def _connects(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


_ECHO = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 53))
while True: s.sendto(*s.recvfrom(100))
"""


def test_published_udp(box: Installed) -> None:
    box.docker("run", "-d", "--name", "udp", "-p", "5353:53/udp", "python", "python3", "-c", _ECHO)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.3)
        client.connect((box.host.ip, 5353))

        def echoed() -> bool:
            try:
                client.send(b"ping")
                return client.recv(100) == b"ping"
            except OSError:
                return False

        box.wait(echoed, "an echo over UDP")
    assert box.docker("port", "udp", "53/udp").text == "0.0.0.0:5353"


def test_network_modes(box: Installed) -> None:
    links = box.docker("run", "--rm", "--network", "none", "busybox", "ip", "-o", "link").lines
    assert [line.split(":")[1].strip() for line in links] == ["lo"]
    on_host = box.docker(
        "run", "--rm", "--network", "host", "busybox", "ip", "-o", "-4", "addr"
    ).text
    assert box.host.ip in on_host
    named = box.docker("run", "--rm", "--network", "host", "busybox", "hostname").text
    assert named == box.host.name
    box.docker("run", "-d", "--name", "first", "busybox", "sleep", "1000")
    address = box.docker("exec", "first", "hostname", "-i").text
    assert box.docker("run", "--rm", "--network", "container:first", "busybox", "hostname",
                      "-i").text == address  # fmt: skip
    box.fails("run", "--rm", "--network", "nosuch", "busybox", status=125, says="nosuch")
    box.fails("run", "--rm", "--network", "container:nosuch", "busybox", status=125,
              says="No such container: nosuch")  # fmt: skip


def test_containers_reach_each_other_and_the_outside(box: Installed) -> None:
    box.docker("run", "-d", "--name", "web", "busybox", "sh", "-c", _SERVE)
    address = box.docker("inspect", "web", "--format", "{{.NetworkSettings.IPAddress}}").text
    fetch = f"until wget -qO- http://{address}/; do usleep 50000; done"
    assert box.docker("run", "--rm", "busybox", "sh", "-c", fetch).text == "served"
    registry = f"http://{box.registry.http}/v2/"
    assert box.docker("run", "--rm", "busybox", "wget", "-qO-", registry).text == "{}"


def test_detached_and_cidfile(box: Installed) -> None:
    box.docker("run", "-d", "--cidfile", "cid", "busybox", "sleep", "1000")
    identity = (box.folder / "cid").read_text()
    (box.folder / "cid").unlink()
    assert box.docker("ps", "-q", "--no-trunc").text == identity


def test_what_cannot_be_had_is_refused_by_name(box: Installed) -> None:
    for flags, name in (
        (["--gpus", "all"], "gpu"),
        (["--link", "other"], "could not get container for other"),
        (["--isolation", "hyperv"], "isolation"),
        (["--runtime", "nosuch"], "nosuch"),
        (["--log-driver", "syslog"], "syslog"),
    ):
        done = box.fails("run", "--rm", *flags, "busybox", "true", status=125)
        assert name in done.complaint.lower(), (flags, done)
        assert "Pulling" not in done.complaint, (flags, done)


def test_the_runtime_that_is_asked_for_runs_it(box: Installed) -> None:
    info = box.api("GET", "/info").document
    runtimes, default = info["Runtimes"], info["DefaultRuntime"]
    assert isinstance(runtimes, dict)
    assert default in runtimes
    for number, asked in enumerate(["", *runtimes, "io.containerd.runc.v2"]):
        name = f"by{number}"
        flags = ["--runtime", asked] if asked else []
        identity = box.docker("run", "-d", "--name", name, *flags, "busybox", "sleep", "9").text
        host_config = box.inspect(name)["HostConfig"]
        assert isinstance(host_config, dict)
        assert host_config["Runtime"] == (asked or default)
        used = asked if asked in runtimes else default
        # What they leave of a container: runc a state.json, crun a status.
        files = box.host.run("ls", f"/run/machine/oci/{identity}").stdout.split()
        assert ("state.json" in files) is (used == "runc"), (asked, files)
        assert box.docker("exec", name, "echo", "in").text == "in"
        box.docker("restart", "-t", "0", name)
        box.docker("rm", "-f", name)
