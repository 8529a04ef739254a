import dataclasses

import pytest

from agent.engine.model import (
    Container,
    ContainerConfig,
    HostConfig,
    Phase,
    RestartPolicy,
    State,
)
from agent.engine.restart import after_exit, at_agent_start, validate
from agent.errors import EngineError

ALWAYS = RestartPolicy("always")
UNLESS = RestartPolicy("unless-stopped")
FAILURE = RestartPolicy("on-failure")
TWICE = RestartPolicy("on-failure", 2)


@pytest.mark.parametrize(
    ("policy", "code", "manual", "count", "wanted"),
    [
        (RestartPolicy("no"), 1, False, 0, False),
        (RestartPolicy(""), 1, False, 0, False),
        (ALWAYS, 0, False, 99, True),
        (ALWAYS, 1, True, 0, False),
        (UNLESS, 0, False, 0, True),
        (UNLESS, 0, True, 0, False),
        (FAILURE, 0, False, 0, False),
        (FAILURE, 1, False, 1000, True),
        (FAILURE, 1, True, 0, False),
        (TWICE, 1, False, 1, True),
        (TWICE, 1, False, 2, False),
    ],
)
def test_who_is_restarted(policy, code, manual, count, wanted):
    verdict = after_exit(
        policy, code=code, manually_stopped=manual, restart_count=count, ran=0, last_delay=0
    )
    assert verdict.restart is wanted


def test_case_139_back_off():
    delays, last = [], 0.0
    for _ in range(12):
        last = after_exit(
            ALWAYS, code=1, manually_stopped=False, restart_count=0, ran=0.1, last_delay=last
        ).delay
        delays.append(last)
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-2:] == [60, 60]
    healthy = after_exit(
        ALWAYS, code=1, manually_stopped=False, restart_count=0, ran=10, last_delay=60
    )
    assert healthy.delay == 0.1


@pytest.mark.parametrize(
    ("policy", "phase", "manual", "rebooted", "wanted"),
    [
        (ALWAYS, Phase.EXITED, True, True, True),
        (ALWAYS, Phase.EXITED, True, False, False),
        (ALWAYS, Phase.EXITED, False, False, False),
        (UNLESS, Phase.EXITED, False, True, True),
        (UNLESS, Phase.EXITED, True, True, False),
        (FAILURE, Phase.EXITED, False, True, False),
        (FAILURE, Phase.RESTARTING, False, False, True),
        (ALWAYS, Phase.RESTARTING, False, True, True),
        (ALWAYS, Phase.RUNNING, False, True, False),
    ],
)
def test_at_agent_start(policy, phase, manual, rebooted, wanted):
    host = HostConfig(restart_policy=policy)
    state = State(phase=phase, manually_stopped=manual, started_at=1)
    container = Container(
        "i" * 64, "web", 1, ContainerConfig(), host, "", "", "sh", (), state=state
    )
    assert at_agent_start(container, rebooted=rebooted) is wanted
    never = dataclasses.replace(container, state=State(phase=Phase.CREATED))
    assert at_agent_start(never, rebooted=rebooted) is False


@pytest.mark.parametrize(
    ("policy", "auto_remove", "text"),
    [
        (ALWAYS, True, "can't create 'AutoRemove' container with restart policy"),
        (
            RestartPolicy("sometimes"),
            False,
            (
                "invalid restart policy: unknown policy 'sometimes'; use one of 'no', 'always',"
                " 'on-failure', or 'unless-stopped'"
            ),
        ),
        (
            RestartPolicy("always", 3),
            False,
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ),
        (
            RestartPolicy("on-failure", -1),
            False,
            "invalid restart policy: maximum retry count cannot be negative",
        ),
    ],
)
def test_refused_policies(policy, auto_remove, text):
    with pytest.raises(EngineError) as caught:
        validate(policy, auto_remove=auto_remove)
    assert caught.value.message == text


def test_auto_remove_without_policy():
    validate(RestartPolicy("no"), auto_remove=True)
    validate(TWICE, auto_remove=False)
