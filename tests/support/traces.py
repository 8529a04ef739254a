"""What containers leave on a host (oracle O2 of the security notes): two snapshots must be equal."""

import json
from dataclasses import dataclass

from tests.lab.host import Host

# One round trip. The agent's own mount namespace is the one that counts.
_LOOK = r"""
pid=$(cat /run/machine/agent.pid)
echo "== mounts"; awk '{print $5}' /proc/$pid/mountinfo | grep -E '^/(var/lib|run)/machine(/|$)'
echo "== host mounts"; awk '{print $5}' /proc/1/mountinfo | grep -E '^/(var/lib|run)/machine/'
echo "== links"; ip -o link | awk -F': ' '{print $2}' | cut -d@ -f1
echo "== netns"; ls /run/netns /var/run/machine/netns 2>/dev/null
echo "== cgroups"; find /sys/fs/cgroup -type d -path '*machine*' -regextype posix-extended \
  -regex '.*/[0-9a-f]{64}.*'
echo "== processes"; ps -eo comm= | grep -E '^(conmon|crun|runc|3|exe)' | sort
echo "== run"; cd /run/machine && find containers exits execs oci -mindepth 1 2>/dev/null
echo "== folders"; ls /var/lib/machine/containers
echo "== nft"; nft -j list ruleset
true
"""


@dataclass(frozen=True)
class Traces:
    """Sorted lines by kind; equality is what matters."""

    found: dict[str, tuple[str, ...]]

    def more_than(self, before: "Traces") -> dict[str, list[str]]:
        """What is there now and was not then, by kind."""
        kinds = {kind: sorted(set(lines) - set(before.found[kind]), key=str)
                 for kind, lines in self.found.items()}  # fmt: skip
        return {kind: lines for kind, lines in kinds.items() if lines}


def look(host: Host) -> Traces:
    """The host's traces of containers now."""
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in host.run("sh", "-c", _LOOK).stdout.splitlines():
        if line.startswith("== "):
            current = sections.setdefault(line[3:], [])
        elif line:
            current.append(line)
    sections["nft"] = _elements("\n".join(sections["nft"]))
    return Traces({kind: tuple(sorted(lines)) for kind, lines in sections.items()})


def _elements(ruleset: str) -> list[str]:
    """Each rule and each element of a set or map, without handles and counters."""
    lines = []
    for item in json.loads(ruleset)["nftables"]:
        for kind, body in item.items():
            if kind == "metainfo":
                continue
            for volatile in ("handle", "index"):
                body.pop(volatile, None)
            elements = body.pop("elem", [])
            name = f"{kind} {body.get('name', body.get('chain', ''))}"
            lines += [f"{name}: {json.dumps(e, sort_keys=True)}" for e in elements]
            if kind == "rule":
                plain = [e for e in body.get("expr", []) if "counter" not in e]
                lines.append(f"{name} {json.dumps(plain, sort_keys=True)}")
            elif kind in ("chain", "set", "map", "table"):
                lines.append(name)
    return lines
