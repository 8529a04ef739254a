"""Restart policies, pure (moby daemon/internal/restartmanager): who is started again, and when.

Back-off: 100 ms, doubling to 60 s; a run of 10 s or more starts over.  Durations are seconds.
"""

from __future__ import annotations

from typing import Final

from agent.engine.model import Container, Phase, RestartPolicy
from agent.errors import invalid
from agent.values import frozen

FIRST: Final = 0.1
LONGEST: Final = 60.0
HEALTHY_RUN: Final = 10.0
NAMES: Final = ("no", "always", "on-failure", "unless-stopped")


@frozen
class Verdict:
    """What follows an exit.  `delay`: seconds until the next start, and the new back-off."""

    restart: bool
    delay: float = 0.0


def enabled(policy: RestartPolicy) -> bool:
    return policy.name not in {"", "no"}


def after_exit(
    policy: RestartPolicy,
    *,
    code: int,
    manually_stopped: bool,
    restart_count: int,
    ran: float,
    last_delay: float,
) -> Verdict:
    """After init ended with `code`, having run `ran` seconds.  `last_delay` 0 = first time."""
    if manually_stopped or not _wants(policy, code, restart_count):
        return Verdict(restart=False)
    if ran >= HEALTHY_RUN or last_delay <= 0:
        return Verdict(restart=True, delay=FIRST)
    return Verdict(restart=True, delay=min(last_delay * 2, LONGEST))


def _wants(policy: RestartPolicy, code: int, restart_count: int) -> bool:
    if policy.name in {"always", "unless-stopped"}:
        return True
    if policy.name != "on-failure" or code == 0:
        return False
    return policy.maximum_retry_count == 0 or restart_count < policy.maximum_retry_count


def at_agent_start(container: Container, *, rebooted: bool) -> bool:
    """Whether a container that is down when the agent starts is to be started.

    Same boot (agent killed or upgraded): only what was waiting for its restart; a `stop` stays
    in force (case 139).  After a reboot as in Docker Engine: "always" starts even what a user had
    stopped, "unless-stopped" does not.
    """
    state, policy = container.state, container.host_config.restart_policy
    if state.phase is Phase.RESTARTING:
        return not state.manually_stopped
    if not rebooted or state.phase is not Phase.EXITED or not state.started_at:
        return False
    return policy.name == "always" or (
        policy.name == "unless-stopped" and not state.manually_stopped
    )


def validate(policy: RestartPolicy, *, auto_remove: bool) -> None:
    """Raises INVALID with docker's texts."""
    if policy.name not in NAMES and policy.name:
        raise invalid(
            f"invalid restart policy: unknown policy '{policy.name}'; use one of 'no', 'always',"
            " 'on-failure', or 'unless-stopped'"
        )
    if policy.maximum_retry_count < 0:
        raise invalid("invalid restart policy: maximum retry count cannot be negative")
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise invalid(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )
    if auto_remove and enabled(policy):
        raise invalid("can't create 'AutoRemove' container with restart policy")
