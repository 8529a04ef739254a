"""Security cases that need the whole: a created machine, its host, a neighbour, a registry.

Numbers are those of the catalogue of hostile cases.
"""

import base64
import json
import re
import socket
import subprocess
import threading

import pytest

from tests.lab.lab import Lab
from tests.support.installed import Installed

_DEFAULT_CAPABILITIES = 0xA80425FB
_ROOT, _RUN = "/var/lib/machine", "/run/machine"


def _capabilities(text: str) -> dict[str, int]:
    pairs = (line.split() for line in text.splitlines() if line.startswith("Cap"))
    return {name.rstrip(":"): int(value, 16) for name, value in pairs}


@pytest.mark.parametrize("way", ["run", "exec"])
def test_case_051_capabilities(box: Installed, way: str) -> None:
    def seen(flags: list[str], exec_flags: list[str]) -> dict[str, int]:
        if way == "run":
            command = ["run", "--rm", *flags, *exec_flags, "busybox"]
        else:
            box.docker("run", "-d", "--name", "one", *flags, "busybox", "sleep", "1000")
            command = ["exec", *exec_flags, "one"]
        text = box.docker(*command, "cat", "/proc/self/status").text
        box.docker("rm", "-f", "one", check=False)
        return _capabilities(text)

    default = seen([], [])
    assert default == {
        "CapInh": 0,
        "CapAmb": 0,
        "CapPrm": _DEFAULT_CAPABILITIES,
        "CapEff": _DEFAULT_CAPABILITIES,
        "CapBnd": _DEFAULT_CAPABILITIES,
    }
    assert set(seen(["--cap-drop", "ALL"], []).values()) == {0}
    user = seen([], ["-u", "33"])
    assert (user["CapEff"], user["CapPrm"], user["CapInh"], user["CapAmb"]) == (0, 0, 0, 0)
    assert user["CapBnd"] == _DEFAULT_CAPABILITIES


def test_case_052_supplementary_groups(box: Installed) -> None:
    def groups(*flags: str) -> str:
        return box.docker("run", "--rm", *flags, "busybox", "id", "-G").text

    assert groups() == "0"
    assert groups("-u", "33") == "33"
    assert groups("-u", "33:1") == "1"
    assert groups("-u", "4242") == "0"
    assert groups("--group-add", "1234", "--group-add", "daemon") == "0 1 1234" or (
        set(groups("--group-add", "1234", "--group-add", "daemon").split()) == {"0", "1", "1234"}
    )
    box.docker("run", "-d", "--name", "one", "--group-add", "77", "busybox", "sleep", "1000")
    assert set(box.docker("exec", "one", "id", "-G").text.split()) == {"0", "77"}
    assert set(box.docker("exec", "-u", "33", "one", "id", "-G").text.split()) == {"33", "77"}


_MASKED = "acpi asound interrupts kcore keys latency_stats sched_debug scsi timer_list timer_stats"


def test_case_053_masked_and_read_only_paths(box: Installed) -> None:
    script = f"""
for f in {_MASKED}; do p=/proc/$f
  [ -e $p ] || continue
  if [ -d $p ]; then [ -z "$(ls -A $p)" ] || echo "full $p"; else [ -z "$(head -c1 $p)" ] || echo "readable $p"; fi
done
for d in /sys/firmware /sys/devices/virtual/powercap; do
  [ -e $d ] && [ -n "$(ls -A $d)" ] && echo "full $d"
done
for f in /proc/sys/kernel/domainname /proc/sysrq-trigger /proc/irq/x /proc/bus/x /proc/fs/x /sys/x \
  /sys/fs/cgroup/memory/x /sys/fs/cgroup/pids/tasks; do
  [ -d $(dirname $f) ] || continue
  m=$( (echo x >$f) 2>&1) && echo "written $f"
  case $m in *"Read-only file system"*|*"nonexistent directory"*) ;; *) echo "odd $f: $m" ;; esac
done
echo done"""
    assert box.docker("run", "--rm", "busybox", "sh", "-c", script).lines == ["done"]


def test_case_056_a_host_user_reads_nothing(any_box: Installed) -> None:
    box = any_box
    box.docker(
        "run", "-d", "-i", "--name", "one", "-e", "SECRET=x", "-v", "store:/data", "busybox", "cat"
    )
    identity, pid = box.inspect("one")["Id"], box.agent_pid()
    places = [
        f"ls {_ROOT}", f"ls {_RUN}", f"ls {_ROOT}/layers", f"ls {_ROOT}/volumes/store/_data",
        f"cat {_ROOT}/state.db", f"cat {_ROOT}/containers/{identity}/*", "cat /etc/machine/agent.json",
        "cat /etc/machine/tls/server-key.pem", "ls /etc/machine/tls", f"cat /proc/{pid}/environ",
        f"ls {_RUN}/containers/{identity}", f"ls /proc/{pid}/fd",
    ]  # fmt: skip
    for command in places:
        done = box.host.ssh(command, user="debian", check=False)
        assert done.returncode != 0, command
        assert "denied" in done.stderr, (command, done.stderr)
    connect = (
        "import socket,sys; s = socket.socket(socket.AF_UNIX, getattr(socket, sys.argv[1]));"
        "s.connect(sys.argv[2])"
    )
    for kind, path in (
        ("SOCK_STREAM", f"{_RUN}/docker.sock"),
        ("SOCK_SEQPACKET", f"{_RUN}/containers/{identity}/attach"),
    ):
        done = box.host.ssh(f"python3 -c '{connect}' {kind} {path}", user="debian", check=False)
        assert "PermissionError" in done.stderr, (path, done.stderr)


def test_case_057_setuid_files_of_layers_are_out_of_reach(box: Installed) -> None:
    box.docker("pull", "-q", "debian")
    find = f"find {_ROOT} -perm -4000 -type f 2>/dev/null"
    found = box.host.run("sh", "-c", find).stdout.splitlines()
    assert found, "no setuid file to try"
    for path in found:
        done = box.host.ssh(f"{path} --help", user="debian", check=False)
        assert done.returncode == 126, (path, done)
        assert "Permission denied" in done.stderr


def test_case_059_terminal_injection(any_box: Installed) -> None:
    """Logs give the exact bytes; tables and the agent's own log show escapes."""
    box = any_box
    evil = "\x1b]52;c;aGVsbG8=\x07\x1b[2J\rforged"
    box.docker("run", "-d", "--name", "one", "--label", f"x={evil}", "busybox", "sh", "-c",
               f"printf '%s' '{evil}'; sleep 1000")  # fmt: skip
    box.wait(lambda: box.docker("logs", "one").out == evil.encode(), "the exact bytes")
    table = box.machine("ps", "--no-trunc").out
    assert not {b"\x1b", b"\x07", b"\r"} & {bytes([byte]) for byte in table}
    for template in (
        "{{.Command}}",
        "{{.Labels}}",
    ):  # as written into a pipe, escaped on a terminal
        with box.terminal("machine", "ps", "--no-trunc", "--format", template) as terminal:
            terminal.finish()
            assert b"\x1b" not in terminal.seen
            assert b"\x07" not in terminal.seen
    box.api("GET", "/containers/x%1b%5d52%0aforged/json")
    box.api("POST", "/containers/create", {"Image": evil, "Cmd": ["x"]}, name="twoo")
    box.api("POST", "/images/create", fromImage=f"a{evil}", tag="x")
    log = (
        box.host.run("cat", "/var/log/machine-agent.log").stdout
        if box.host.variant == "plain"
        else box.host.run("journalctl", "-u", "machine-agent", "-o", "cat", "--all").stdout
    )
    assert "\x1b" not in log
    assert not re.search(r"^forged", log, re.MULTILINE)


def test_case_083_listeners(any_box: Installed) -> None:
    box = any_box
    lines = box.host.run("ss", "-Hlntup").stdout.splitlines()
    ports = {
        line.split()[4].rpartition(":")[2] for line in lines if line.startswith(("tcp", "udp"))
    }
    assert ports == {"22", "2376"}, lines
    assert box.host.run("stat", "-c", "%a %U", f"{_RUN}/docker.sock").stdout.split()[:2] == [
        "660",
        "root",
    ]


def test_case_082_nothing_without_a_certificate(box: Installed) -> None:
    with socket.create_connection((box.host.ip, 2376), timeout=5) as plain:
        plain.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        said = plain.recv(1000)
    assert said == b"" or b"400" in said.split(b"\r\n")[0] or said[:1] == b"\x15", said
    done = box.docker(
        "--tlsverify=false", "--tls", "--tlscert=", "--tlskey=", "version", check=False
    )
    assert done.status != 0


def _neighbour(lab: Lab) -> str:
    """The network namespace of another host on the same bridge."""
    return lab.host("neighbour", "plain", "bare").netns


def _reaches(netns: str, address: str, port: int) -> bool:
    script = f"import socket; socket.create_connection(('{address}', {port}), 1).close()"
    command = ["ip", "netns", "exec", netns, "python3", "-c", script]
    return subprocess.run(command, capture_output=True, timeout=20).returncode == 0


def test_case_100_loopback_port_from_a_neighbour(box: Installed, lab: Lab) -> None:
    box.docker("run", "-d", "--name", "one", "-p", "127.0.0.1:7100:7", "-p", "7101:7", "busybox",
               "nc", "-ll", "-p", "7", "-e", "cat")  # fmt: skip
    netns = _neighbour(lab)
    box.wait(lambda: _reaches(netns, box.host.ip, 7101), "the port that is open")
    assert not _reaches(netns, box.host.ip, 7100)
    route = ["ip", "-n", netns, "route", "add", "127.0.0.0/8", "via", box.host.ip, "table", "7"]
    rule = ["ip", "-n", netns, "rule", "add", "to", "127.9.9.0/24", "table", "7"]
    for command in (route, rule):
        subprocess.run(command, check=True, capture_output=True)
    for command in (["sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1"],):
        subprocess.run(["ip", "netns", "exec", netns, *command], check=True, capture_output=True)
    assert not _reaches(netns, "127.9.9.1", 7100), "a packet to 127/8 from outside got in"


def test_case_101_unpublished_port_by_route(box: Installed, lab: Lab) -> None:
    box.docker("run", "-d", "--name", "one", "-p", "7102:7", "busybox", "sh", "-c",
               "nc -ll -p 8 -e cat & exec nc -ll -p 7 -e cat")  # fmt: skip
    netns = _neighbour(lab)
    box.wait(lambda: _reaches(netns, box.host.ip, 7102), "the published port")
    address = box.docker("exec", "one", "hostname", "-i").text
    network = ".".join(address.split(".")[:2]) + ".0.0/16"
    add = ["ip", "-n", netns, "route", "replace", network, "via", box.host.ip]
    subprocess.run(add, check=True, capture_output=True)
    assert not _reaches(netns, address, 8), "an unpublished port is open by route"
    assert not _reaches(netns, address, 7), "a container's address is open by route"


def test_case_106_container_to_the_agent(box: Installed) -> None:
    gateway = box.docker(
        "run", "--rm", "busybox", "sh", "-c", "ip route | awk '/default/ {print $3}'"
    ).text
    for address in (gateway, box.host.ip, "127.0.0.1"):
        done = box.docker(
            "run", "--rm", "busybox", "timeout", "2", "nc", "-w", "1", address, "2376", check=False
        )
        assert done.status != 0, f"a container reaches {address}:2376"
    seen = box.docker(
        "run", "--rm", "busybox", "sh", "-c", f"ls {_RUN} {_ROOT} 2>&1; cat /proc/net/unix | wc -l"
    )
    assert "No such file" in seen.text
    assert seen.lines[-1] == "1", "abstract sockets of the host are visible"


class _Watch:
    """Samples what everybody can see of the host's processes, and keeps what holds the secret."""

    def __init__(self, box: Installed, secret: str) -> None:
        script = (
            "import glob, sys\nsecret = sys.argv[1].encode()\nprint('ready', flush=True)\n"
            "me = str(__import__('os').getpid())\n"
            "import select\n"
            "while not select.select([0], [], [], 0.002)[0]:\n"
            "    for name in glob.glob('/proc/[0-9]*/cmdline') + glob.glob('/proc/[0-9]*/environ'):\n"
            "        if name.split('/')[2] == me: continue\n"
            "        try: data = open(name, 'rb').read()\n"
            "        except OSError: continue\n"
            "        if secret[::-1] in data: print(name, data[:200], flush=True)\n"
        )
        argv = box.host.inside_argv(["python3", "-c", script, secret[::-1]])
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(argv, **pipes)  # type: ignore[call-overload]
        assert self._process.stdout.readline() == "ready\n"

    def finish(self) -> str:
        """What was seen."""
        return str(self._process.communicate("end\n", timeout=20)[0])


def test_case_153_o6_registry_password_stays_in_memory(any_box: Installed) -> None:
    box, registry = any_box, any_box.registry
    trust = f"/etc/machine/certs.d/{registry.tls}"
    box.host.run("mkdir", "-p", trust)
    box.host.run("sh", "-c", f"cat >{trust}/ca.crt", text=registry.ca.read_text())
    image = f"{registry.tls}/library/alpine"
    refused = box.docker("pull", image, check=False)
    assert refused.status == 1
    assert "no basic auth credentials" in refused.complaint, refused.complaint

    wrong = "wrong-password-that-must-not-be-seen"
    answer = _pull_with(box, image, wrong)
    assert wrong.encode() not in answer
    assert b"unauthorized" in answer or b"denied" in answer, answer

    seen: list[str] = []
    watch = _Watch(box, wrong)
    try:
        thread = threading.Thread(
            target=lambda: seen.append(_pull_with(box, image, wrong).decode())
        )
        thread.start()
        assert b"Downloaded newer image" in _pull_with(box, image, registry.password)
        thread.join()
    finally:
        found = watch.finish()
    assert found == "", "the password is in an argv or environment"
    assert box.docker("run", "--rm", image, "echo", "pulled").text == "pulled"
    box.docker("rmi", image)
    _assert_nowhere(box, wrong)
    _assert_nowhere(
        box, base64.b64encode(f"{registry.username}:{registry.password}".encode()).decode()
    )
    _assert_nowhere(box, base64.b64encode(f"{registry.username}:{wrong}".encode()).decode())


def _pull_with(box: Installed, image: str, password: str) -> bytes:
    login = {
        "username": box.registry.username,
        "password": password,
        "serveraddress": box.registry.tls,
    }
    header = base64.urlsafe_b64encode(json.dumps(login).encode()).decode()
    return box.api("POST", "/images/create", fromImage=image, tag="latest",
                   headers={"X-Registry-Auth": header}).body  # fmt: skip


def _assert_nowhere(box: Installed, secret: str) -> None:
    """In no file of the agent, and in no log."""
    places = f"{_ROOT} {_RUN} /etc/machine /var/log /tmp /root /opt/machine"
    command = f"grep -rlaF --exclude-dir=layers -e '{secret}' {places} 2>/dev/null; true"
    assert box.host.run("sh", "-c", command).stdout == ""
    if box.host.variant != "plain":
        log = box.host.run("journalctl", "--no-pager", "--all", "-o", "cat").stdout
        assert secret not in log
