"""Waiting for cloud-init on a host that a driver has just made."""

from __future__ import annotations

from typing import Final

from machine.config import PROVISION_TIMEOUT
from machine.errors import printable
from machine.transport.api import Transport, run

_SHOWN: Final = 4000  # characters of what cloud-init says
# Exit codes of `cloud-init status` (its documentation): 0 done or disabled, 1 failed, 2 done with errors.
# The log is for root; without one the status has to do.
_WAIT: Final = """
command -v cloud-init >/dev/null 2>&1 || exit 0
said=$(cloud-init status --wait --long 2>&1)
code=$?
[ $code = 0 ] && exit 0
if [ "$(id -u)" = 0 ]; then s=; else s="sudo -n"; fi
printf '%s\\n' "$said" | sed '/^\\.*$/d'
$s tail -n 15 /var/log/cloud-init-output.log 2>/dev/null
exit $code
"""


def wait(transport: Transport) -> str:
    """Return when the first boot has ended: "" when all went well, else what cloud-init says.

    A host without cloud-init is ready at once. Raises MachineError when it takes longer than
    PROVISION_TIMEOUT.
    """
    done = run(transport, "sh -s", stdin=_WAIT.encode(), timeout=PROVISION_TIMEOUT)
    if done.status == 0:
        return ""
    return printable((done.stdout or done.stderr).strip()[-_SHOWN:]) or f"status {done.status}"
