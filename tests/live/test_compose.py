"""Docker Compose v2, unmodified, against a created machine: its commands and one project's life."""

import json
import signal

import yaml

from tests.lab.images import ARCHITECTURE
from tests.live.compose.project import Project
from tests.live.conftest import MakeProject
from tests.support.installed import PATIENCE, Installed, Terminal


def test_daily_use(project: MakeProject, box: Installed) -> None:
    daily = project("daily.yaml")
    daily("pull", "-q")
    said = daily.up(WHO="me").complaint
    assert "Container daily-web-1  Started" in said, said
    assert daily.states() == {"job-1": "running", "web-1": "running"}
    published = daily("port", "web", "80").text
    assert published.startswith("127.0.0.1:")
    page = box.host.run("curl", "-s", f"http://{published}/")
    assert "Welcome to nginx" in page.stdout
    logs = daily("logs", "--no-color", "job").lines
    assert sorted(logs) == ["job-1  | one", "job-1  | two"]
    assert daily.sh("job", "echo $WHO; cat", check=False).lines == ["me"]
    assert daily.sh("job", "exit 7", check=False).status == 7
    assert len(daily.sh("job", "ls /data").lines) == 1
    assert daily("top", "job").lines[-1].endswith("sleep 1000")
    images = json.loads(daily("images", "--format", "json").out)
    assert {i["Repository"] for i in images} == {"busybox", "nginx"}
    assert [v["Name"] for v in map(json.loads, daily("volumes", "--format", "json").lines)] == [
        "daily_data"
    ]
    (listed,) = json.loads(daily("ls", "--format", "json").out)
    assert (listed["Name"], listed["Status"]) == ("daily", "running(2)")


def test_config(project: MakeProject) -> None:
    daily = project("daily.yaml")
    document = yaml.safe_load(daily("config", WHO="you").out)
    assert document["services"]["job"]["environment"] == {"WHO": "you"}
    assert sorted(daily("config", "--services").lines) == ["job", "web"]  # it has no order
    assert daily("config", "--volumes").lines == ["data"]
    daily.write("services: {a: {imag: x}}")
    assert "imag" in daily("config", check=False).complaint
    daily.write("services: {}\n")


def test_standalone_program(project: MakeProject, compose_program: object, box: Installed) -> None:
    daily = project("daily.yaml")
    words = ["-f", str(daily.folder / "compose.yaml"), "--progress", "quiet"]
    box.run(str(compose_program), *words, "up", "-d", "--no-build", "job")
    assert daily.states() == {"job-1": "running"}
    box.run(str(compose_program), *words, "down", "-v", "-t", "0")
    assert daily.left() == []


def test_run(project: MakeProject, box: Installed) -> None:
    daily = project("daily.yaml")
    done = daily("run", "--rm", "-T", "job", "sh", "-c", "echo $WHO; echo no >&2; exit 5",
                 check=False, WHO="runner")  # fmt: skip
    assert (done.status, done.text) == (5, "runner")
    assert done.complaint.endswith("no")
    typed = box.docker(*daily.argv("run", "--rm", "-T", "job", "cat"), data=b"in\nto\n",
                       extra=daily.extra)  # fmt: skip
    assert typed.out == b"in\nto\n"
    name = daily("run", "-d", "--name", "aside", "-e", "X=1", "-p", "18088:80", "web").text
    assert name == "aside" or len(name) == 64
    assert daily("ps", "--format", "{{.Name}}").text == "", "one-off ones are not listed"
    assert daily("ps", "-a", "--format", "{{.Name}}").text == "aside"
    assert "18088" in box.docker("port", "aside").text
    daily("run", "--rm", "--service-ports", "--entrypoint", "true", "web")


def test_scale_and_recreate(project: MakeProject) -> None:
    daily = project("daily.yaml")
    daily.up("--scale", "job=3", "job")
    assert daily.states() == {"job-1": "running", "job-2": "running", "job-3": "running"}
    assert daily.sh("job", "ls /data | wc -l", index=3).text == "3"
    ids = {row["ID"] for row in daily.rows()}
    daily.up("--scale", "job=3", "job")
    assert {row["ID"] for row in daily.rows()} == ids, "nothing has changed"
    daily("scale", "job=1")
    assert daily.states() == {"job-1": "running"}
    first = daily.document("job-1")["Id"]
    daily.up("job", WHO="somebody else")
    assert daily.document("job-1")["Id"] != first
    assert daily.states("-a") == {"job-1": "running"}
    again = daily.document("job-1")["Id"]
    daily.up("--force-recreate", "job", WHO="somebody else")
    assert daily.document("job-1")["Id"] != again


def test_stop_start_restart_kill_pause(project: MakeProject) -> None:
    daily = project("daily.yaml")
    daily.up()
    started = daily.document("job-1")["State"]["StartedAt"]  # type: ignore[index]
    daily("restart", "-t", "0", "job")
    assert daily.document("job-1")["State"]["StartedAt"] != started  # type: ignore[index]
    daily("pause", "web")
    assert daily.states()["web-1"] == "paused"
    daily("unpause", "web")
    daily("kill", "web")
    daily("stop", "-t", "0")
    assert daily.states("-a") == {"job-1": "exited", "web-1": "exited"}
    daily("start", "job")
    assert daily.states() == {"job-1": "running"}
    daily("rm", "-f", "-s", "web")
    assert daily.states("-a") == {"job-1": "running"}
    daily("create", "--no-build", "web")
    assert daily.states("-a") == {"job-1": "running", "web-1": "created"}


def test_copy(project: MakeProject) -> None:
    daily = project("daily.yaml")
    daily.up("job")
    daily.write("carried\n", "note")
    daily("cp", str(daily.folder / "note"), "job:/tmp/note")
    assert daily.sh("job", "cat /tmp/note").text == "carried"
    daily("cp", "job:/tmp/note", str(daily.folder / "back"))
    assert (daily.folder / "back").read_text() == "carried\n"


def test_logs_follow_and_events(project: MakeProject) -> None:
    daily = project("daily.yaml")
    daily.up("job")
    follower = daily.begin("logs", "-f", "--no-color", "job")
    watcher = daily.begin("events", "--json")
    assert follower.stdout is not None
    assert sorted(follower.stdout.readline() for _ in "12") == [
        b"job-1  | one\n", b"job-1  | two\n",
    ]  # fmt: skip
    daily("kill", "job")
    assert follower.wait(PATIENCE) == 0, "the log's end ends logs -f"
    assert watcher.stdout is not None
    seen = [json.loads(watcher.stdout.readline()) for _ in "12"]
    assert [(e["action"], e["service"]) for e in seen] == [("kill", "job"), ("die", "job")]
    watcher.send_signal(signal.SIGINT)
    for one in (follower, watcher):
        one.communicate(timeout=PATIENCE)


def test_up_in_the_foreground(project: MakeProject) -> None:
    both = project("daily.yaml")
    both.write(
        "services:\n"
        "  talks: {image: busybox, command: sh -c 'echo said; sleep 0.3; exit 4'}\n"
        "  waits: {image: busybox, command: sleep 1000, stop_grace_period: 0s}\n"
    )
    done = both("up", "--no-build", "--no-color", "--exit-code-from", "talks", check=False)
    assert done.status == 4, done
    assert "talks-1  | said" in done.lines
    assert "talks-1 exited with code 4" in done.text
    assert both.states("-a") == {"talks-1": "exited", "waits-1": "exited"}


def test_interrupted_in_the_foreground(project: MakeProject) -> None:
    daily = project("daily.yaml")
    running = daily.begin("up", "--no-build", "--no-color", "job")
    assert running.stdout is not None
    while b"| one" not in running.stdout.readline():
        pass
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=PATIENCE)
    assert running.returncode in (0, 130)
    assert daily.states("-a") == {"job-1": "exited"}


def test_conditions(project: MakeProject) -> None:
    chain = project("conditions.yaml")
    chain.up()
    assert chain.states("-a") == {
        "app-1": "running", "db-1": "running", "migrate-1": "exited", "worker-1": "running",
    }  # fmt: skip
    assert chain.document("db-1")["State"]["Health"]["Status"] == "healthy"  # type: ignore[index]
    order = [_started(chain, name) for name in ("db-1", "migrate-1", "app-1", "worker-1")]
    assert order == sorted(order)
    finished = chain.document("migrate-1")["State"]["FinishedAt"]  # type: ignore[index]
    assert finished <= _started(chain, "app-1")
    (row,) = chain.rows("db")
    assert row["Health"] == "healthy"
    assert chain("wait", "migrate", check=False).text in ("0", "")
    before = _started(chain, "app-1")
    chain("restart", "-t", "0", "db")
    assert _started(chain, "app-1") > before, "depends_on with restart"


def _started(chain: Project, container: str) -> str:
    state = chain.document(container)["State"]
    assert isinstance(state, dict)
    return str(state["StartedAt"])


def test_conditions_that_fail(project: MakeProject) -> None:
    chain = project("conditions.yaml")
    done = chain("up", "--no-build", "-d", check=False, MIGRATION="3")
    assert done.status == 1
    assert 'service "migrate" didn\'t complete successfully: exit 3' in done.complaint
    assert chain.states("-a")["app-1"] == "created"
    chain.down()
    text = (chain.folder / "compose.yaml").read_text()
    chain.write(
        text.replace('"test", "-e", "/ready"', '"false"').replace("retries: 50", "retries: 2")
    )
    done = chain("up", "--no-build", "-d", check=False)
    assert "dependency failed to start: container conditions-db-1 is unhealthy" in done.complaint


def test_wait_for_health(project: MakeProject) -> None:
    chain = project("conditions.yaml")
    chain("up", "--no-build", "--wait", "--wait-timeout", "30", "db")
    (row,) = chain.rows()
    assert (row["Service"], row["Health"]) == ("db", "healthy")


def test_profiles(project: MakeProject) -> None:
    some = project("profiles.yaml")
    some.up()
    assert some.states() == {"always-1": "running"}
    some("--profile", "debug", "up", "-d", "--no-build")
    assert some.states() == {"always-1": "running", "debug-1": "running", "tool-1": "running"}
    some("--profile", "debug", "down", "-t", "0")
    some.up("tool")  # a service that is named needs no profile
    assert some.states() == {"tool-1": "running"}
    some.up(COMPOSE_PROFILES="tools")
    assert some.states() == {"always-1": "running", "tool-1": "running"}


def test_orphans(project: MakeProject) -> None:
    some = project("profiles.yaml")
    some.up("always", "tool")
    some.write("services: {always: {image: busybox, command: sleep 1000, stop_grace_period: 0s}}")
    assert "Found orphan containers" in some.up().complaint
    some.up("--remove-orphans")
    assert some.states("--orphans") == {"always-1": "running"}


def test_restart_policies(project: MakeProject, box: Installed) -> None:
    some = project("restarts.yaml")
    some.up()
    policies = {
        name: some.document(f"{name}-1")["HostConfig"]["RestartPolicy"]  # type: ignore[index]
        for name in ("thrice", "phoenix", "still")
    }
    assert policies == {
        "thrice": {"Name": "on-failure", "MaximumRetryCount": 2},
        "phoenix": {"Name": "always", "MaximumRetryCount": 0},
        "still": {"Name": "no", "MaximumRetryCount": 0},
    }
    box.wait_status(f"{some.name}-thrice-1", "exited")
    box.wait(lambda: some.document("thrice-1")["RestartCount"] == 2, "two restarts")
    assert some("logs", "--no-log-prefix", "thrice").lines == ["run"] * 3
    box.docker("exec", f"{some.name}-phoenix-1", "kill", "-9", "1", check=False)
    pid = some.document("phoenix-1")["State"]["Pid"]  # type: ignore[index]
    box.host.run("kill", "-9", str(pid))
    box.wait(lambda: some.document("phoenix-1")["RestartCount"] == 1, "a restart")
    box.wait_status(f"{some.name}-phoenix-1", "running")


def test_settings_reach_the_container(project: MakeProject) -> None:
    some = project("settings.yaml")
    some.up("--wait")
    seen = some.sh("full", "hostname; id; pwd; ulimit -n; cat /proc/sys/net/core/somaxconn; "
                   "echo $A $B; df -m /scratch /quick /dev/shm | awk '{print $2}'; cat /etc/outer; "
                   "getent hosts other || grep other /etc/hosts; "
                   "touch /x 2>&1; grep search /etc/resolv.conf; cat /proc/1/comm").lines  # fmt: skip
    assert seen[0].startswith("named"), seen
    assert "uid=33(www-data)" in seen[1]
    assert "1234" in seen[1]
    assert seen[2:6] == ["/tmp/new", "1000", "1024", "1 two words"]
    assert seen[7:10] == ["1", "1", "8"]
    assert seen[11].split()[:2] == ["10.1.2.3", "other"]
    assert "Read-only file system" in seen[12]
    assert seen[13] == "search example.lab"
    document = some.document("full-1")
    host, config = document["HostConfig"], document["Config"]
    assert isinstance(host, dict)
    assert isinstance(config, dict)
    assert (host["NanoCpus"], host["Memory"], host["MemoryReservation"]) == (
        500000000,
        64 << 20,
        32 << 20,
    )
    assert (host["CapDrop"], host["CapAdd"]) == (["ALL"], ["CAP_CHOWN"])
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "2", "max-size": "1m"}}
    assert (config["StopSignal"], config["Tty"], config["OpenStdin"]) == ("SIGUSR1", True, True)
    assert host["Annotations"] == {"note": "kept"}
    assert config["Healthcheck"]["StartInterval"] == 100_000_000


def test_corners(project: MakeProject, box: Installed) -> None:
    some = project("corners.yaml")
    some.up(ARCHITECTURE=ARCHITECTURE)
    assert set(some.states("-a").values()) == {"running"}
    assert len(some.states()) == 13
    assert some.sh("host", "hostname").text == box.host.name
    assert "sleep 1000" in some.sh("taker", "ps").text.partition("\n")[2]
    some.sh("reader", "touch /anonymous/seen")
    assert some.sh("giver", "ls /anonymous").text == "seen"
    assert some.sh("hooked", "cat /tmp/hooked").text == "33"
    assert some.sh("giver", "ls /store").text == "begun"
    shown = some.sh("six", "ip addr show lan0").text
    assert "10.198.0.3/24" in shown
    assert "fd00:7777::" in shown
    assert "default via fd00:7777::1" in some.sh("six", "ip -6 route").text
    assert some.sh("linked", "ping -c1 -w5 -q stranger").status == 0
    assert "1" in some.sh("open", "ls -l /dev/nothing").text
    assert some.sh("limited", "cat /sys/fs/cgroup/cpuset/cpuset.cpus "
                   "/sys/fs/cgroup/cpuset.cpus.effective", check=False).text == "0"  # fmt: skip
    some("stop", "-t", "0", "hooked")
    assert some.sh("giver", "ls /store").lines == ["begun", "ended"]


def test_on_a_terminal(project: MakeProject, box: Installed) -> None:
    daily = project("daily.yaml")
    environment = box.environment | daily.extra | {"COMPOSE_PROGRESS": "auto"}
    with Terminal(
        ["docker", *daily.argv("up", "-d", "--no-build", "job")], environment, box.folder
    ) as up:
        assert up.finish() == 0
        assert b"Started" in up.seen
    with Terminal(["docker", *daily.argv("exec", "job", "sh")], environment, box.folder) as shell:
        shell.expect("# ")
        shell.type("tty\n")
        shell.expect("/dev/pts/0\r\n")
        shell.type("exit 9\n")
        assert shell.finish() == 9
    with Terminal(
        ["docker", *daily.argv("run", "--rm", "job", "sh")], environment, box.folder
    ) as shell:
        shell.expect("# ")
        shell.type("echo $((6 * 7))\n")
        shell.expect("\r\n42\r\n")
        shell.type("\x04")
        assert shell.finish() == 0
    assert daily.states("-a") == {"job-1": "running"}


def test_the_lesser_commands(project: MakeProject, box: Installed) -> None:
    daily = project("daily.yaml")
    daily.up()
    rows = [json.loads(x) for x in daily("stats", "--no-stream", "--format", "json").lines]
    assert {row["Name"] for row in rows} == {"daily-job-1", "daily-web-1"}
    stamped = daily(
        "logs", "--no-color", "--tail", "1", "--timestamps", "--since", "5m", "job"
    ).text
    assert stamped.startswith("job-1  | 20")
    assert daily("ps", "--filter", "status=running", "-q").text.count("\n") == 1
    target = daily.folder / "tree.tar"
    daily("export", "-o", str(target), "job")
    assert target.stat().st_size > 1_000_000
    daily("commit", "job", "own/committed")
    box.docker("rmi", "own/committed")
    daily.down()
    daily.write("services: {x: {image: busybox, command: sh -c 'sleep 3; exit 7'}}")
    daily.up()
    waited = daily("wait", "x", check=False)
    assert waited.status == 7, waited
    daily.down()
    daily.write("services: {x: {image: 'nosuchimage:1'}}")
    missing = daily("pull", check=False)
    assert missing.status == 1
    assert "manifest for nosuchimage:1 not found" in missing.complaint
    missing = daily("up", "-d", "--pull", "never", check=False)
    assert "No such image: nosuchimage:1" in missing.complaint
