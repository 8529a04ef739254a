"""Health checks, as clients see them, and what hostile ones do (security.md 170)."""

import json

from tests.support.installed import Installed

_QUICK = ["--health-interval", "200ms", "--health-retries", "2", "--health-timeout", "1s"]


def health(box: Installed, name: str) -> dict[str, object]:
    found = box.state(name)["Health"]
    assert isinstance(found, dict)
    return found


def test_a_life(box: Installed) -> None:
    box.docker(
        "run", "-d", "--name", "one", "--health-cmd", "echo seen; test -f /ok", *_QUICK,
        "busybox", "sleep", "1000",
    )  # fmt: skip
    assert health(box, "one")["Status"] == "starting"
    box.wait(lambda: health(box, "one")["Status"] == "unhealthy", "unhealthy")
    found = health(box, "one")
    streak = found["FailingStreak"]
    assert isinstance(streak, int)
    assert streak >= 2
    assert "(unhealthy)" in box.docker("ps", "--format", "{{.Status}}").text
    box.docker("exec", "one", "touch", "/ok")
    box.wait(lambda: health(box, "one")["Status"] == "healthy", "healthy")
    assert box.docker("ps", "-q", "--filter", "health=healthy").lines
    assert not box.docker("ps", "-q", "--filter", "health=none").lines
    log = health(box, "one")["Log"]
    assert isinstance(log, list)
    assert len(log) <= 5
    assert log[-1]["Output"] == "seen\n"
    assert log[-1]["ExitCode"] == 0
    box.docker("pause", "one")
    box.docker("unpause", "one")
    box.docker("stop", "-t", "0", "one")
    assert health(box, "one")["Status"] == "unhealthy"

    def actions() -> set[str]:
        # The client's "until" is in whole seconds: what happened just now comes a second later.
        said = box.docker("events", "--since", "1m", "--until", "0s", "--format", "{{json .}}")
        return {json.loads(line)["Action"] for line in said.lines}

    wanted = {"health_status: unhealthy", "health_status: healthy"}
    box.wait(lambda: wanted <= actions(), "both events")


def test_start_period_and_interval(box: Installed) -> None:
    check = {
        "Test": ["CMD-SHELL", "exit 1"], "StartPeriod": 2_000_000_000, "Retries": 1,
        "StartInterval": 100_000_000, "Interval": 300_000_000,  # the client's flag is of Docker 25
    }  # fmt: skip
    wanted = {"Image": "busybox", "Cmd": ["sleep", "1000"], "Healthcheck": check}
    assert box.api("POST", "/containers/create?name=one", wanted).status == 201
    box.docker("start", "one")
    box.wait(lambda: len(health(box, "one")["Log"]) >= 3, "several in the start period")  # type: ignore[arg-type]
    assert health(box, "one")["FailingStreak"] == 0
    box.wait(lambda: health(box, "one")["Status"] == "unhealthy", "after the start period")


def test_none_and_mistakes(box: Installed) -> None:
    box.docker("run", "-d", "--name", "one", "--no-healthcheck", "busybox", "sleep", "1000")
    assert "Health" not in box.state("one")
    answer = box.api(
        "POST", "/containers/create", {"Image": "busybox", "Healthcheck": {"Interval": 5}}
    )
    assert answer.status == 400
    assert answer.message == "Interval in Healthcheck cannot be less than 1ms"


def test_case_170_checks_that_hang_flood_and_fork(box: Installed) -> None:
    """Killed with their children; 4 KiB and 5 results are kept."""
    short = ["--health-interval", "200ms", "--health-timeout", "500ms", "--health-retries", "1"]
    hang = "sleep 777 & (sleep 778 & sleep 779) & sleep 780"
    box.docker(
        "run", "-d", "--name", "hang", "--health-cmd", hang, *short, "busybox", "sleep", "999"
    )
    box.docker(
        "run", "-d", "--name", "flood", "--health-cmd", "yes", *short, "busybox", "sleep", "999"
    )
    box.wait(lambda: len(health(box, "hang")["Log"]) == 5, "five results")  # type: ignore[arg-type]
    box.wait(lambda: len(health(box, "flood")["Log"]) == 5, "five results")  # type: ignore[arg-type]
    log = health(box, "hang")["Log"]
    assert isinstance(log, list)
    assert log[0]["ExitCode"] == -1
    assert log[0]["Output"].startswith("Health check exceeded timeout (500ms)")
    flood = health(box, "flood")["Log"]
    assert isinstance(flood, list)
    assert all(len(one["Output"]) < 4096 + 64 for one in flood)
    processes = [line for line in box.docker("top", "hang").lines if "sleep 77" in line]
    assert len(processes) <= 4  # those of the check that runs now


def test_health_over_an_agent_restart(box: Installed) -> None:
    box.docker(
        "run", "-d", "--name", "one", "--health-cmd", "true", *_QUICK, "busybox", "sleep", "1000"
    )
    box.wait(lambda: health(box, "one")["Status"] == "healthy", "healthy")
    before = box.agent_pid()
    box.host.run("kill", "-9", str(before))
    box.restart_wait(before)
    assert health(box, "one")["Status"] == "healthy"
    end = health(box, "one")["Log"][-1]["End"]  # type: ignore[index]
    box.wait(lambda: health(box, "one")["Log"][-1]["End"] > end, "it goes on")  # type: ignore[index]
