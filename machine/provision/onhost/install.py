"""The one remote run of provisioning: bundle, configuration, certificate, service. Idempotent.

Input: one JSON line (the plan), then the bundle's bytes if the plan has `bundle_size`. A file that
is as wanted is not touched, and the agent is restarted only when something that it reads changed;
containers live on either way.
"""

from __future__ import annotations

import compileall
import gzip
import io
import json
import os
import shutil
import socket
import sys
import tarfile
import time
from pathlib import Path

from machine.provision.onhost.kit import (
    DOCKER,
    DOCKER_MARK,
    ETC,
    OPT,
    RUN,
    HostError,
    ask,
    folder,
    have,
    json_bytes,
    manifest,
    ours,
    perform,
    remember,
    run,
    sync,
    tell,
    until,
    write,
)

UNIT = Path("/etc/systemd/system/machine-agent.service")
WANTED = Path("/etc/systemd/system/multi-user.target.wants/machine-agent.service")
SUPERVISE = OPT / "supervise"
TLS = ETC / "tls"
KEY, CERT, CA = TLS / "server-key.pem", TLS / "server.pem", TLS / "ca.pem"
BUNDLE_LIMIT = 64 << 20  # bytes, unpacked
START_SECONDS = 60.0
LOG_LINES = 15  # of the agent's log when it does not start


class Plan:
    """The plan as it came, with its fields checked where they are used."""

    def __init__(self, doc: dict[str, object]) -> None:
        self._doc = doc

    def text(self, key: str) -> str:
        value = self._doc.get(key)
        if not isinstance(value, str):
            raise HostError(f"the plan has no {key}")
        return value

    def number(self, key: str) -> int:
        value = self._doc.get(key)
        return value if isinstance(value, int) else 0

    def document(self, key: str) -> dict[str, object]:
        value = self._doc.get(key)
        return value if isinstance(value, dict) else {}

    def texts(self, key: str) -> list[str]:
        value = self._doc.get(key)
        return [str(v) for v in value] if isinstance(value, list) else []


def main() -> None:
    os.umask(0o022)
    doc = json.loads(sys.stdin.buffer.readline())
    plan = Plan(doc)
    data = sys.stdin.buffer.read(plan.number("bundle_size"))
    folder(ETC, 0o755)
    folder(OPT, 0o755)
    _take_package_list()
    tell(step="bundle")
    changed = _bundle(plan.text("bundle"), data)
    tell(step="certificate")
    changed |= _certificate(plan)
    tell(step="config")
    folder(RUN, 0o700)
    changed |= write(ETC / "agent.json", json_bytes(plan.document("config")), 0o600)
    write(ETC / "owner.json", json_bytes(plan.document("owner")), 0o644)
    _firewall(plan.number("port"))
    tell(step="service")
    if plan.text("init") == "systemd":
        changed |= _systemd(plan, restart=changed)
    else:
        changed |= _supervise(plan, restart=changed)
    _docker()
    _sweep(plan.text("bundle"))
    tell(done=True, changed=changed)


def _take_package_list() -> None:
    """The shell step before us noted what the package manager added."""
    noted = ETC / "packages.new"
    if noted.exists():
        remember("packages", *noted.read_text().split())
        noted.unlink()


def _bundle(name: str, data: bytes) -> bool:
    target = OPT / name
    if not target.is_dir():
        if not data:
            raise HostError("the agent is not on the host and was not sent")
        for left in OPT.glob(".agent-*"):  # by a run that was killed
            shutil.rmtree(left)
        temp = OPT / f".{name}"
        _unpack(data, temp)
        compileall.compile_dir(str(temp), quiet=2, stripdir=str(temp), prependdir=str(target))
        temp.rename(target)
        sync(OPT)
    link = OPT / "agent"
    if link.is_symlink() and link.readlink() == Path(name):
        return False
    fresh = OPT / f".agent.{os.getpid()}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(name)
    fresh.replace(link)
    sync(OPT)
    return True


def _unpack(data: bytes, target: Path) -> None:
    """Regular files with plain relative names only; tarfile reads headers and never extracts."""
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
        plain = packed.read(BUNDLE_LIMIT + 1)
    if len(plain) > BUNDLE_LIMIT:
        raise HostError("the bundle is too large")
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        for member in archive:
            parts = Path(member.name).parts
            source = archive.extractfile(member)
            if source is None or ".." in parts or member.name.startswith("/"):
                raise HostError(f"the bundle holds {member.name!r}")
            path = target.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.read())


def _certificate(plan: Plan) -> bool:
    """The key is made here and never leaves; the laptop sees the request and signs it."""
    folder(TLS, 0o700)
    current = CERT.read_text() if CERT.exists() and KEY.exists() else ""
    answer = ask(tls=current)
    ca = answer.get("ca")
    if not isinstance(ca, str):
        raise HostError("the laptop sent no CA certificate")
    changed = write(CA, ca.encode(), 0o644)
    if not answer.get("renew"):
        return changed
    key = run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"])
    request = run(
        [
            "openssl",
            "req",
            "-new",
            "-sha256",
            "-key",
            "/dev/stdin",
            "-subj",
            f"/CN={plan.text('subject')}",
        ],
        stdin=key.encode(),
    )
    cert = ask(csr=request).get("cert")
    if not isinstance(cert, str):
        raise HostError("the laptop signed no certificate")
    write(KEY, key.encode(), 0o600)
    write(CERT, cert.encode(), 0o644)
    return True


def _firewall(port: int) -> None:
    """A host firewall that is on is opened for the engine's port (docker-machine #4587)."""
    rule = f"{port}/tcp"
    if rule in manifest().get("firewall", []):
        return
    if have("firewall-cmd") and run(["firewall-cmd", "--state"], check=False).strip() == "running":
        remember("firewall", rule)
        run(["firewall-cmd", f"--add-port={rule}"])
        run(["firewall-cmd", "--permanent", f"--add-port={rule}"])
    elif have("ufw") and "Status: active" in run(["ufw", "status"], check=False):
        remember("firewall", rule)
        run(["ufw", "allow", rule])


def _systemd(plan: Plan, *, restart: bool) -> bool:
    unit = plan.text("unit").encode()
    fresh = write(UNIT, unit, 0o644)
    if not WANTED.is_symlink():
        WANTED.parent.mkdir(exist_ok=True)
        WANTED.symlink_to(UNIT)
        fresh = True
    if fresh:
        run(["systemctl", "daemon-reload"])
    active = run(["systemctl", "is-active", UNIT.name], check=False).strip() == "active"
    if restart or fresh or not active:
        began = f"--since=@{int(time.time())}"
        try:
            run(["systemctl", "restart", UNIT.name], timeout=150)
        except HostError as err:
            # no -n here: together with --since some versions show the first lines, not the last
            said = run(["journalctl", "-u", UNIT.name, "--no-pager", "-ocat", began], check=False)
            raise HostError("the agent did not start", _end_of(said or err.details)) from err
    _answers(lambda: run(["systemctl", "status", UNIT.name, "--no-pager", "-n", "20"], check=False))
    return fresh or not active


def _docker() -> None:
    """DOCKER_HOST=ssh://... runs `docker system dial-stdio` on the host.  A docker client that is
    there answers it itself, and is never touched."""
    if have("docker") and not ours(DOCKER):
        return
    DOCKER.parent.mkdir(parents=True, exist_ok=True)
    remember("commands", str(DOCKER))
    script = f'exec {sys.executable} -I {OPT}/agent/agent/dial "$@"\n'
    write(DOCKER, b"#!/bin/sh\n" + DOCKER_MARK + script.encode(), 0o755)


def _supervise(plan: Plan, *, restart: bool) -> bool:
    environment = "".join(line + "\n" for line in plan.texts("environment"))
    fresh = write(SUPERVISE, plan.text("supervise").encode(), 0o755)
    fresh |= write(ETC / "environment", environment.encode(), 0o600)
    _at_boot()
    if fresh or restart:
        run([str(SUPERVISE), "stop"], check=False, timeout=60)
    run([str(SUPERVISE), "start"])
    log = Path("/var/log/machine-agent.log")
    _answers(lambda: log.read_text(errors="replace")[-4000:] if log.exists() else "")
    return fresh


def _at_boot() -> None:
    """Start at boot by what is there: OpenRC or SysV scripts, rc.local, cron; in this order."""
    if manifest().get("boot"):
        return
    script = Path("/etc/init.d/machine-agent")
    if have("rc-update") and script.parent.is_dir():
        remember("boot", str(script))
        write(script, _OPENRC.encode(), 0o755)
        run(["rc-update", "add", script.name, "default"])
    elif have("update-rc.d") and script.parent.is_dir():
        remember("boot", str(script))
        write(script, _SYSV.encode(), 0o755)
        run(["update-rc.d", script.name, "defaults"])
    elif Path("/etc/cron.d").is_dir() and (have("cron") or have("crond")):
        remember("boot", "/etc/cron.d/machine-agent")
        write(
            Path("/etc/cron.d/machine-agent"), f"@reboot root {SUPERVISE} start\n".encode(), 0o644
        )
    else:
        remember("boot", "/etc/rc.local")
        _rc_local(Path("/etc/rc.local"))


def _rc_local(path: Path) -> None:
    """Our line stands before a final `exit 0`, and the file is made when it is missing."""
    line = f"{SUPERVISE} start  # machine\n"
    text = path.read_text() if path.exists() else "#!/bin/sh\n"
    if line in text:
        return
    head, mark, tail = text.rpartition("\nexit 0")
    text = f"{head}\n{line}exit 0{tail}" if mark else text.rstrip("\n") + "\n" + line
    write(path, text.encode(), 0o755)


_OPENRC = f"""#!/sbin/openrc-run
description="machine agent (container engine)"
depend() {{ need net; after firewall; }}
start() {{ ebegin "Starting machine agent"; {SUPERVISE} start; eend $?; }}
stop() {{ ebegin "Stopping machine agent"; {SUPERVISE} stop; eend $?; }}
status() {{ {SUPERVISE} status; }}
"""


_SYSV = f"""#!/bin/sh
### BEGIN INIT INFO
# Provides:          machine-agent
# Required-Start:    $network $local_fs
# Required-Stop:     $network $local_fs
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: machine agent (container engine)
### END INIT INFO
exec {SUPERVISE} "$@"
"""


def _answers(log: object) -> None:
    """Wait until the agent answers a ping on its socket."""
    if not until(_ping, START_SECONDS):
        said = log() if callable(log) else ""
        raise HostError("the agent does not answer", _end_of(str(said)))


def _end_of(log: str) -> str:
    """The last lines of a log: what went wrong stands at its end."""
    return "\n".join(log[-8000:].splitlines()[-LOG_LINES:])


def _ping() -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5.0)
        try:
            client.connect(str(RUN / "docker.sock"))
            client.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
            return b" 200 " in client.recv(256)
        except OSError:
            return False


def _sweep(current: str) -> None:
    """Older agents go, but the newest of them: a running process may still import from it."""
    others = [p for p in OPT.glob("agent-*") if p.name != current and p.is_dir()]
    others.sort(key=lambda p: p.stat().st_mtime, reverse=True)
    for path in others[1:]:
        shutil.rmtree(path, ignore_errors=True)


perform(main)
