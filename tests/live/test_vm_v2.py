"""A real machine: its own kernel, pure cgroup v2 with every controller, systemd, power that is cut.

One virtual machine for the module, emulated (never KVM): everything takes ten times as long as on
the lab's other hosts, so each test asks for much at once. They run in the order of the file: the
last ones reboot it and take the agent off it again.
"""

import http.client
import json
from collections.abc import Iterator, Mapping

import pytest

from tests.lab.errors import LabError
from tests.lab.lab import Lab
from tests.lab.process import run
from tests.lab.registry import Registry
from tests.lab.vm import Vm
from tests.support.installed import Answer, Done, Installed

pytestmark = pytest.mark.timeout(900)
SLOW = 180.0  # seconds until something must have happened
CGROUPS = "/sys/fs/cgroup"
WEB = "mkdir /w; echo hello >/w/index.html; exec httpd -f -p 80 -h /w"
GET = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 20 nc"  # busybox' wget needs a libc beside it


class VmMachine(Installed):
    """A created machine on a virtual one: its socket is not to be seen from here."""

    host: Vm
    before: list[str]

    def run(
        self,
        *argv: str,
        data: bytes = b"",
        check: bool = True,
        timeout: float = SLOW,
        extra: Mapping[str, str] | None = None,
    ) -> Done:
        """As every machine's, with patience."""
        return super().run(*argv, data=data, check=check, timeout=timeout, extra=extra)

    def api(self, method: str, path: str, body: object = None, **more: object) -> Answer:
        """A raw request over mutual TLS."""
        assert body is None
        more.pop("timeout", None)
        connection = http.client.HTTPSConnection(
            self.host.ip, 2376, context=self.tls_context(), timeout=60
        )
        words = "&".join(f"{name}={value}" for name, value in more.items())
        try:
            connection.request(method, f"/v1.51{path}?{words}")
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def tell(self, command: str) -> str:
        """What a shell command on the host prints, whatever its status."""
        return self.host.ssh(command, check=False).stdout.strip()

    def within(self, container: str, script: str) -> str:
        """What a shell script in the container prints."""
        return self.docker("exec", container, "sh", "-c", script).text

    def status(self, container: str) -> object:
        """.State.Status"""
        return self.state(container)["Status"]

    def wait_answer(self) -> None:
        """Return when the agent serves."""
        self.wait(self.answers, "the agent answers", SLOW)


def _http(ip: str, port: int) -> str:
    done = run(["curl", "-s", "-m", "20", f"http://{ip}:{port}/"], check=False)
    return done.stdout.strip() or f"curl: {done.returncode}"


@pytest.fixture(scope="module")
def machine(
    lab: Lab, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VmMachine]:
    """`machine create --driver ssh` on a fresh virtual machine, with busybox pulled."""
    vm = lab.vm()
    try:
        made = VmMachine("real", vm, tmp_path_factory.mktemp("real"), lab.docker_cli(), registry)
        made.before = _state_of(made)
        made.create()
        made.docker("pull", "-q", "busybox")
        yield made
    finally:
        vm.destroy()


@pytest.fixture
def vm(machine: VmMachine) -> Iterator[VmMachine]:
    """The machine, empty of containers after the test."""
    try:
        yield machine
    finally:
        machine.sweep()


def _state_of(machine: VmMachine) -> list[str]:
    """What `rm --uninstall` must leave as it was."""
    return machine.tell(
        "cd /; ls -d /opt/* /etc/machine /run/machine /usr/local/bin/* /etc/systemd/system/* "
        f"{CGROUPS}/*/ 2>/dev/null; ls /sys/class/net; nft list tables; getent group docker"
    ).splitlines()


def test_the_host_is_what_this_module_is_for(vm: VmMachine) -> None:
    assert vm.tell(f"stat -fc %T {CGROUPS}; ps -p 1 -o comm=") == "cgroup2fs\nsystemd"
    info = json.loads(vm.api("GET", "/info").body)
    assert (info["CgroupVersion"], info["CgroupDriver"]) == ("2", "cgroupfs")
    for known in ("MemoryLimit", "SwapLimit", "CpuCfsQuota", "CPUShares", "CPUSet", "PidsLimit"):
        assert info[known], known
    assert info["NCPU"] == 2


def test_limits_are_seen_inside_and_hold(vm: VmMachine) -> None:
    limits = ("--memory", "48m", "--cpus", "0.5", "--pids-limit", "20", "--cpuset-cpus", "1")
    vm.docker(
        "run", "-d", "--name", "one", "--cpu-shares", "512", *limits, "busybox", "sleep", "999"
    )
    files = "memory.max memory.swap.max cpu.max pids.max cpuset.cpus cpu.weight"
    shown = vm.within("one", f"cat /proc/self/cgroup; cd {CGROUPS}; cat {files}")
    size = str(48 << 20)
    assert shown.split("\n") == ["0::/", size, size, "50000 100000", "20", "1", "20"]
    # what systemd does to its tree does not take the limits off ours
    vm.host.ssh("systemctl daemon-reload && systemctl start systemd-tmpfiles-clean.service")
    assert vm.within("one", f"cat {CGROUPS}/memory.max {CGROUPS}/cpu.max").split()[:1] == [size]
    vm.docker("update", "--memory", "64m", "--memory-swap", "96m", "one")
    assert vm.within("one", f"cd {CGROUPS}; cat memory.max memory.swap.max").split() == [
        str(64 << 20),
        str(32 << 20),
    ]
    vm.docker("pause", "one")
    assert vm.status("one") == "paused"
    vm.docker("unpause", "one")
    fork = "for i in $(seq 30); do sleep 20 & done"
    done = vm.docker("exec", "one", "sh", "-c", fork, check=False)
    assert "can't fork" in done.complaint
    stats = vm.docker("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "one").text
    assert "/ 64MiB" in stats


def test_out_of_memory(vm: VmMachine) -> None:
    eat = "x=aaaaaaaa; while :; do x=$x$x; done"
    vm.docker("run", "--name", "one", "--memory", "16m", "busybox", "sh", "-c", eat, check=False)
    state = vm.state("one")
    assert (state["OOMKilled"], state["ExitCode"], state["Status"]) == (True, 137, "exited")


def test_devices_are_denied_by_the_kernel(vm: VmMachine) -> None:
    """On cgroup v2 there is no devices controller: the runtime loads an eBPF program."""
    number = vm.tell("stat -c '%Hr %Lr' /dev/vda")
    script = f"mknod /d b {number} && head -c 1 /d"
    assert "not permitted" in vm.fails("run", "--rm", "busybox", "sh", "-c", script).complaint
    read = "head -c 1 /dev/vda | wc -c"
    given = vm.docker("run", "--rm", "--device", "/dev/vda", "busybox", "sh", "-c", read)
    assert given.text == "1"
    privileged = vm.docker("run", "--rm", "--privileged", "busybox", "sh", "-c", read)
    assert privileged.text == "1"


def test_groups_made_inside_go_with_the_container(vm: VmMachine) -> None:
    """A container that runs an engine itself: process in a leaf, controllers given on."""
    nest = (
        f"cd {CGROUPS}; mkdir init; for p in $(cat cgroup.procs); do echo $p >init/cgroup.procs;"
        " done; echo '+memory +pids' >cgroup.subtree_control; mkdir -p x/y; echo ready; sleep 999"
    )
    vm.docker("run", "-d", "--name", "one", "--privileged", "busybox", "sh", "-c", nest)
    vm.wait(lambda: "ready" in vm.docker("logs", "one").text, "nested groups", SLOW)
    assert vm.within("one", "echo in").strip() == "in"
    vm.docker("run", "-d", "--name", "two", "--cgroupns", "host", "busybox", "sleep", "999")
    identity = vm.docker("inspect", "--format", "{{.Id}}", "two").text
    assert identity in vm.within("two", "cat /proc/self/cgroup")
    vm.docker("rm", "-f", "one", "two")
    assert vm.tell(f"find {CGROUPS}/machine -mindepth 1 -type d") == ""


def test_published_ports_on_a_kernel_with_modules(vm: VmMachine) -> None:
    web = ("busybox", "sh", "-c", WEB)
    vm.docker("run", "-d", "--name", "web", "-p", "8080:80", *web)
    vm.docker("run", "-d", "--name", "own", "-p", "127.0.0.1:8081:80", *web)
    assert _http(vm.host.ip, 8080) == "hello"
    assert _http(vm.host.ip, 8081) == "curl: 7"
    asked = f"for u in {vm.host.ip}:8080 127.0.0.1:8080 127.0.0.1:8081; do curl -s -m 20 $u; done"
    assert vm.tell(asked).split() == ["hello"] * 3
    # from a container through the host's address, to another one and to itself
    assert vm.within("web", f"{GET} {vm.host.ip} 8080").endswith("hello")
    assert vm.within("own", f"{GET} {vm.host.ip} 8080").endswith("hello")


def test_agent_killed_and_runc(vm: VmMachine) -> None:
    """Containers stay. The next agent is told to use runc, Docker's runtime, on the way: each start
    of the agent costs many seconds here."""
    vm.docker("run", "-d", "--name", "stays", "--restart", "always", "busybox", "sleep", "999")
    pid = vm.state("stays")["Pid"]
    known = vm.tell("cat /etc/machine/agent.json")
    before = vm.agent_pid()
    text = json.dumps(json.loads(known) | {"runtime": "runc"})
    vm.host.ssh("cat >/etc/machine/agent.json; systemctl kill -s KILL machine-agent", text=text)
    vm.restart_wait(before, SLOW)
    assert vm.state("stays")["Pid"] == pid
    _runc(vm)
    assert vm.within("stays", "echo in") == "in"
    assert "machine-conmon" in vm.tell("cat /proc/$(pgrep conmon)/cgroup")
    vm.docker("restart", "-t", "0", "stays")
    assert vm.state("stays")["Pid"] != pid
    vm.host.ssh("cat >/etc/machine/agent.json", text=known)  # for after the reboot


def _runc(vm: VmMachine) -> None:
    limits = ("--memory", "48m", "--pids-limit", "20", "--cpus", "0.5")
    vm.docker("run", "-d", "--name", "by-runc", *limits, "busybox", "sleep", "999")
    shown = vm.within("by-runc", f"cd {CGROUPS}; cat memory.max pids.max cpu.max").splitlines()
    assert shown == [str(48 << 20), "20", "50000 100000"]
    vm.docker("rm", "-f", "by-runc")
    assert vm.tell(f"find {CGROUPS}/machine -mindepth 1 -type d | wc -l") == "1"


def _boots_in_order(vm: VmMachine) -> None:
    boot = vm.host.boot_id()
    vm.host.ssh("systemctl reboot", check=False)
    vm.host.wait_reboot(boot)


def _power_cut(vm: VmMachine) -> None:
    vm.host.stop()
    with pytest.raises(LabError, match="is off"):
        vm.host.run("true")
    vm.host.start()


def _check_after_boot(vm: VmMachine) -> None:
    vm.wait_answer()
    for name in ("always", "failing"):
        vm.wait_status(name, "running", seconds=SLOW)
    assert (vm.status("none"), vm.status("stopped")) == ("exited", "exited")
    vm.wait(lambda: _http(vm.host.ip, 8080) == "hello", "the published port", SLOW)


def test_reboot_and_power_cut(vm: VmMachine) -> None:
    """In order: containers are ended while there is a network, and nothing waits for the deaf ones
    (a process 1 that ignores SIGTERM holds systemd-shutdown up for 90 s). Then without warning."""
    deaf = f"trap 'echo got TERM' TERM; ({WEB}) & while :; do wait; sleep 0.1; done"
    policies: dict[str, tuple[str, ...]] = {
        "none": (),
        "always": ("--restart", "always", "-p", "8080:80"),
        "stopped": ("--restart", "unless-stopped"),
        "failing": ("--restart", "on-failure"),
    }
    for name, options in policies.items():
        more = (*options, "--stop-timeout", "2", "busybox", "sh", "-c", deaf)
        vm.docker("run", "-d", "--name", name, *more)
    vm.docker("stop", "-t", "0", "stopped")
    _boots_in_order(vm)
    _check_after_boot(vm)
    assert "Waiting for process" not in vm.host.console()
    assert vm.docker("logs", "none").text == "got TERM"
    assert vm.state("none")["ExitCode"] == 137
    vm.docker("start", "none")
    _power_cut(vm)
    _check_after_boot(vm)
    assert vm.state("none")["ExitCode"] == 255
    vm.docker("run", "--rm", "busybox", "true")


def _last_check(vm: VmMachine) -> object:
    health = vm.state("one")["Health"]
    assert isinstance(health, dict)
    return health["Log"][-1]["Start"] if health["Log"] else None


def _another_check(vm: VmMachine, jump: str) -> None:
    before = _last_check(vm)
    vm.wait(lambda: _last_check(vm) != before, f"a health check after {jump}", SLOW)


def test_case_135_clock_jumps(vm: VmMachine) -> None:
    """A day forward and a day back: checks and back-off go by the monotonic clock."""
    vm.docker("run", "-d", "--name", "one", "--health-cmd", "true", "--health-interval", "1s",
              "busybox", "sleep", "1000")  # fmt: skip
    vm.docker("run", "-d", "--name", "loop", "--restart", "always", "busybox", "false")
    vm.wait(lambda: _last_check(vm) is not None, "a first health check", SLOW)
    pid = vm.state("one")["Pid"]
    for jump in ("+1 day", "-1 day"):
        restarts = int(str(vm.inspect("loop")["RestartCount"]))
        vm.tell(f"date -s '{jump}'")
        for _ in range(2):
            _another_check(vm, jump)
        more = int(str(vm.inspect("loop")["RestartCount"])) - restarts
        assert more < 20, "a storm of restarts"
    assert vm.state("one")["Pid"] == pid


def test_uninstall_leaves_the_host_as_it_was(machine: VmMachine) -> None:
    machine.docker("run", "-d", "--name", "one", "-p", "8080:80", "busybox", "sleep", "999")
    machine.machine("rm", "--uninstall", "-y", machine.name)
    assert _state_of(machine) == machine.before
    assert machine.tell("pgrep -l 'conmon|crun|runc'; systemctl --failed --no-legend") == ""
