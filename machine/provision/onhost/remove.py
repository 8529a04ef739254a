"""The remote run of `rm --uninstall`: the host is as it was before. Idempotent.

Order: containers and agent, service, network, mounts, folders, boot entries, firewall, packages.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from machine.provision.onhost.kit import (
    ETC,
    OPT,
    RUN,
    have,
    manifest,
    ours,
    perform,
    run,
    tell,
)

UNIT = Path("/etc/systemd/system/machine-agent.service")
WANTED = Path("/etc/systemd/system/multi-user.target.wants/machine-agent.service")
AGENT = OPT / "agent"


def main() -> None:
    plan = json.loads(sys.stdin.buffer.readline())
    done = manifest()
    root = Path(_data_root())
    tell(step="containers")
    _stop_service()
    if AGENT.exists():
        python = str(plan.get("python") or sys.executable)
        said = run([python, "-I", str(AGENT), "teardown"], check=False, timeout=180)
        tell(note=said.strip()[-500:])
    tell(step="network")
    _network()
    tell(step="folders")
    _boot_entries(done)
    for name in done.get("commands", []):
        if ours(Path(name)):  # a docker client that was installed over it stays
            Path(name).unlink()
    for path in (root, RUN, OPT, ETC):
        _remove_tree(path)
    Path("/var/log/machine-agent.log").unlink(missing_ok=True)
    _firewall(done)
    packages = done.get("packages", [])
    if packages and not plan.get("keep_packages"):
        tell(step="packages")
        _packages(packages)
    tell(done=True)


def _data_root() -> str:
    try:
        found = json.loads((ETC / "agent.json").read_bytes()).get("root")
    except (OSError, ValueError, AttributeError):
        found = None
    wanted = found if isinstance(found, str) and found.count("/") >= 2 else ""
    return wanted or "/var/lib/machine"


def _stop_service() -> None:
    if UNIT.exists():
        run(["systemctl", "stop", UNIT.name], check=False)
        WANTED.unlink(missing_ok=True)
        UNIT.unlink(missing_ok=True)
        run(["systemctl", "daemon-reload"], check=False)
        run(["systemctl", "reset-failed", UNIT.name], check=False)
    supervise = OPT / "supervise"
    if supervise.exists():
        run([str(supervise), "stop"], check=False, timeout=60)


def _network() -> None:
    """What the agent's own teardown left behind, should it have failed."""
    if have("nft"):
        for family in ("inet", "ip", "ip6", "bridge", "netdev"):
            run(["nft", "delete", "table", family, "machine"], check=False)
    if Path("/sys/class/net/machine0").exists() and have("ip"):
        run(["ip", "link", "delete", "machine0"], check=False)


def _boot_entries(done: dict[str, list[str]]) -> None:
    for name in done.get("boot", []):
        path = Path(name)
        if name == "/etc/rc.local":
            _rc_local(path)
            continue
        if have("rc-update"):
            run(["rc-update", "del", path.name], check=False)
        path.unlink(missing_ok=True)
        if have("update-rc.d"):
            run(["update-rc.d", path.name, "remove"], check=False)


def _rc_local(path: Path) -> None:
    if not path.exists():
        return
    lines = [line for line in path.read_text().splitlines() if not line.endswith("# machine")]
    if [line for line in lines if line.strip()] == ["#!/bin/sh"]:
        path.unlink()
    else:
        path.write_text("\n".join(lines) + "\n")


def _remove_tree(path: Path) -> None:
    """Mounts below go first; a folder that is itself a mount (its own disk) is emptied only."""
    below = [m for m in _mounts() if m.startswith(f"{path}/")]
    for mount in reversed(below):
        run(["umount", "-l", mount], check=False)
    if any(m.startswith(f"{path}/") for m in _mounts()):
        tell(note=f"{path} is left: something is still mounted below it")
        return
    own_disk = str(path) in _mounts()
    if path.is_symlink() or not path.exists():
        path.unlink(missing_ok=True)
    elif own_disk:
        for entry in path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    else:
        shutil.rmtree(path)


def _mounts() -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [_plain(line.split()[4]) for line in lines]


def _plain(text: str) -> str:
    for code, char in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        text = text.replace(code, char)
    return text


def _firewall(done: dict[str, list[str]]) -> None:
    for rule in done.get("firewall", []):
        if have("firewall-cmd"):
            run(["firewall-cmd", f"--remove-port={rule}"], check=False)
            run(["firewall-cmd", "--permanent", f"--remove-port={rule}"], check=False)
        elif have("ufw"):
            run(["ufw", "delete", "allow", rule], check=False)


_REMOVE = {
    "apt-get": ["apt-get", "-y", "-o", "DPkg::Lock::Timeout=300", "purge"],
    "dnf": ["dnf", "-y", "remove", "--noautoremove"],
    "yum": ["yum", "-y", "remove"],
    "zypper": ["zypper", "--non-interactive", "remove"],
    "pacman": ["pacman", "-R", "--noconfirm"],
    "apk": ["apk", "del"],
}


def _packages(names: list[str]) -> None:
    """Exactly the packages that came with ours; python3 stays while it is what runs this."""
    for manager, argv in _REMOVE.items():
        if have(manager):
            run(
                [*argv, *(n for n in names if not n.startswith(("python3", "libpython3")))],
                check=False,
                timeout=600,
            )
            return


perform(main)
