"""Amazon's EC2 and SSM on loopback: moto's server, with what moto leaves out.

    with MotoLab() as lab: ...              # instances are records only
    with MotoLab(CloudHosts(lab)) as lab:   # instances are lab hosts, which boot and answer SSH

What moto leaves out: client tokens, states between others (an instance is pending, stopping,
shutting-down for a while), groups that are in use until the instance has really ended, public
parameters of Debian and Ubuntu. By script: `faults` (lost answers, 429, 500), `hide` (what was
launched is not listed for a while), `page` (listings come in pages). moto's own made-up public
addresses, which are somebody's, never leave it: instances have the lab's, or those of TEST-NET-1.
"""

import base64
import datetime as dt
import hashlib
import io
import itertools
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode
from xml.sax.saxutils import escape

from tests.lab.cloudhosts import CloudHosts, CloudSeed

ACCOUNT = "123456789012"
REGION = "us-east-1"
UBUNTU, DEBIAN, DEBIAN_ARM = "ami-0ubuntu2604amd64", "ami-0debian13amd64", "ami-0debian13arm64"
_CANONICAL, _DEBIAN = "099720109477", "136693071363"
_IMAGES = (
    (UBUNTU, "ubuntu/images/hvm-ssd-gp3/ubuntu-r-26.04-amd64-server-20261101", _CANONICAL,
     "x86_64", "/aws/service/canonical/ubuntu/server/26.04/stable/current/amd64/hvm/ebs-gp3/ami-id"),
    ("ami-0ubuntu2404amd64", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20261102",
     _CANONICAL, "x86_64",
     "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"),
    (DEBIAN, "debian-13-amd64-20261101-2000", _DEBIAN, "x86_64",
     "/aws/service/debian/release/13/latest/amd64"),
    (DEBIAN_ARM, "debian-13-arm64-20261101-2000", _DEBIAN, "arm64",
     "/aws/service/debian/release/13/latest/arm64"),
)  # fmt: skip
Environ = dict[str, Any]  # WSGI's
_CODES = {
    "pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64,
    "stopped": 80,
}  # fmt: skip
_EMPTY = (
    '<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
    "<reservationSet/></DescribeInstancesResponse>"
)
_SETTINGS = {"MOTO_EC2_LOAD_DEFAULT_AMIS": "false", "MOTO_ENABLE_AMI_VALIDATION": "true"}


@dataclass(frozen=True)
class Fault:
    """One request goes wrong: `status` and `code` are answered; with `after` it was carried out."""

    code: str
    status: int = 400
    after: bool = False
    message: str = "made up by a test"


@dataclass
class _Coming:
    """A state that an instance is about to have, once `ready`."""

    state: str
    ready: Callable[[], bool]
    seen: int = 0  # how often it was asked for since


@dataclass
class Script:
    """How the provider misbehaves."""

    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    hide: int = 0  # how many listings do not show an instance that was just launched
    page: int = 0  # instances in a page; 0 all in one


class MotoLab:
    """The server. Everything is forgotten at `reset` and at the end."""

    def __init__(self, hosts: CloudHosts | None = None, *, pending: float = 0.0) -> None:
        """`pending`: seconds that an instance is so before it boots, 5 to 15 at Amazon."""
        self.hosts = hosts
        self._never = threading.Event()
        self._pending = pending
        self.script = Script()
        self.calls: Counter[str] = Counter()
        self._lock = threading.RLock()  # moto is not made for several threads
        self._tokens: dict[tuple[str, str], tuple[str, bytes]] = {}
        self._coming: dict[str, _Coming] = {}
        self._groups: dict[str, set[str]] = {}  # of instances that have not ended
        self._hidden = 0
        self._numbers = itertools.count(1)
        self._threads: list[threading.Thread] = []
        self._saved: dict[str, str | None] = {}

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._saved = {name: os.environ.get(name) for name in _SETTINGS}
        os.environ.update(_SETTINGS)
        from moto.moto_server.werkzeug_app import (
            DomainDispatcherApplication,
            MotoRequestHandler,
            create_backend_app,
        )
        from werkzeug.serving import make_server

        self._app = DomainDispatcherApplication(create_backend_app)
        self.reset()
        self._server = make_server(
            "127.0.0.1", 0, self._answer, threaded=True, request_handler=_silent(MotoRequestHandler)
        )
        self._serving = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._serving.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._serving.join()
        self._server.server_close()
        for thread in self._threads:
            thread.join()
        if self.hosts is not None:
            self.hosts.close()
        self.reset()
        for name, value in self._saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    # -- what a test looks at

    @property
    def backend(self) -> Any:
        """moto's EC2 of the account and region."""
        from moto.ec2.models import ec2_backends

        return ec2_backends[ACCOUNT][REGION]

    def reset(self) -> None:
        """An account that was made a moment ago."""
        from moto.ec2.models import ec2_backends
        from moto.ssm.models import ssm_backends

        with self._lock:
            ec2_backends.reset()
            ssm_backends.reset()
            self.script = Script()
            self.calls.clear()
            self._tokens.clear()
            self._coming.clear()
            self._groups.clear()
            self._hidden = 0
            self._furnish()

    def inventory(self, uuid: str = "") -> list[str]:
        """Everything that bears a machine's tag (that machine's), as "host i-1", "volume ..."."""
        with self._lock:
            ec2 = self.backend
            groups = [g for by_id in ec2.groups.values() for g in by_id.values()]
            found = [
                *(("host", i) for i in ec2.all_instances() if i.state != "terminated"),
                *(("group", g) for g in groups),
                *(("key", k) for k in ec2.key_pairs.values()),
                *(("volume", v) for v in ec2.volumes.values()),
                *(("snapshot", s) for s in ec2.snapshots.values()),
                *(("card", e) for e in ec2.enis.values()),
            ]
            out = []
            for word, thing in found:
                mark = _tags(thing).get("machine-uuid", "")
                if mark and mark == (uuid or mark):
                    out.append(f"{word} {thing.id}")
            return sorted(out)

    def instance(self, uuid: str) -> Any:
        """The machine's instance that has not ended."""
        with self._lock:
            return next(
                one
                for one in self.backend.all_instances()
                if _tags(one).get("machine-uuid") == uuid and one.state != "terminated"
            )

    def terminate(self, ident: str) -> None:
        """What its owner may do by the web page, behind the driver's back."""
        with self._lock:
            instance = self.backend.get_instance(ident)
            self.backend.terminate_instances([ident])
            self._terminated(instance, {})

    # -- answering

    def _answer(self, environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        asked = dict(parse_qsl(body.decode("latin-1"), keep_blank_values=True))
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        action = asked.get("Action") or target.rpartition(".")[2]
        with self._lock:
            self.calls[action] += 1
            status, answer = self._do(action, asked, body, environ)
        kind = "application/x-amz-json-1.1" if target else "text/xml"
        start(f"{status} X", [("Content-Type", kind), ("Content-Length", str(len(answer)))])
        return [answer]

    def _do(
        self, action: str, asked: dict[str, str], body: bytes, environ: Environ
    ) -> tuple[int, bytes]:
        waiting = self.script.faults.get(action)
        fault = waiting.pop(0) if waiting else None
        if fault is not None and not fault.after:
            return fault.status, _error(fault.code, fault.message)
        refused = self._before(action, asked)
        if refused is not None:
            return refused
        token = (action, asked.get("ClientToken", ""))
        digest = _digest(asked)
        known = self._tokens.get(token)
        if known is not None:
            if known[0] != digest:
                return 400, _error("IdempotentParameterMismatch", "other parameters, same token")
            return 200, known[1]
        if action == "DescribeInstances" and self.script.page and "InstanceId.1" not in asked:
            body = urlencode({**asked, "MaxResults": str(self.script.page)}).encode()
        before = {one.id for one in self.backend.all_instances()}
        status, answer = self._moto(body, environ)
        if status == 200:
            if token[1]:
                self._tokens[token] = (digest, answer)
            self._after(action, asked, before)
        if fault is not None:
            return fault.status, _error(fault.code, fault.message)
        return status, answer

    def _moto(self, body: bytes, environ: Environ) -> tuple[int, bytes]:
        said: list[str] = []

        def start(status: str, headers: object, info: object = None) -> Callable[[bytes], None]:
            said.append(status)
            return lambda data: None

        inner = {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        parts = self._app(inner, start)
        try:
            answer = b"".join(parts)
        finally:
            getattr(parts, "close", lambda: None)()
        return int(said[0].split()[0]), answer

    def _before(self, action: str, asked: dict[str, str]) -> tuple[int, bytes] | None:
        if action == "DescribeInstances" and self._hidden:
            self._hidden -= 1
            if "InstanceId.1" in asked:
                ident = asked["InstanceId.1"]
                text = f"The instance ID '{ident}' does not exist"
                return 400, _error("InvalidInstanceID.NotFound", text)
            return 200, _EMPTY.encode()
        if action == "DeleteSecurityGroup":
            group = asked.get("GroupId", "")
            if any(group in used for used in self._groups.values()):
                text = f"resource {group} has a dependent object"
                return 400, _error("DependencyViolation", text)
        if action == "GetConsoleOutput" and self.hosts is not None:
            host = self.hosts.find(asked["InstanceId"])
            said = base64.b64encode((host.console() if host else "").encode()).decode()
            return 200, _console(asked["InstanceId"], said).encode()
        return None

    def _after(self, action: str, asked: dict[str, str], before: set[str]) -> None:
        if action == "RunInstances":
            self._hidden = self.script.hide
            for one in self.backend.all_instances():
                if one.id not in before:
                    self._launched(one)
        elif action == "DescribeInstances":
            self._advance()
        elif action in _VERBS:
            number = 1
            while f"InstanceId.{number}" in asked:
                instance = self.backend.get_instance(asked[f"InstanceId.{number}"])
                getattr(self, _VERBS[action])(instance, asked)
                number += 1

    # -- instances

    def _launched(self, instance: Any) -> None:
        card = instance.nics[0]
        self._groups[instance.id] = {one.id for one in card.group_set}
        self._mark(card, instance)
        if self.hosts is None:
            self._new_address(instance)
            self._become(instance, "pending", "running", lambda: True)
            return
        card.public_ip = None
        data = base64.b64decode(str(instance.user_data)) if instance.user_data else b""
        key = self.backend.key_pairs.get(instance.key_name)
        public = key.material_public if key else b""
        line = public.decode() if isinstance(public, bytes) else str(public)
        seed = CloudSeed(instance.id, data, (line,) if line else (), f"ip-{instance.id[-8:]}")
        hosts = self.hosts

        def boot() -> None:
            self._never.wait(self._pending)
            self._addressed(instance, hosts.create(seed).ip)

        done = self._begin(boot)
        self._become(instance, "pending", "running", done)

    def _mark(self, card: Any, instance: Any) -> None:
        """moto drops the tags that were asked for the network interface."""
        card.add_tags(_tags(instance))

    def _addressed(self, instance: Any, ip: str) -> None:
        with self._lock:
            card = instance.nics[0]
            if card.public_ip_auto_assign:
                card.public_ip = ip
            card.private_ip_address = ip

    def _new_address(self, instance: Any) -> None:
        card = instance.nics[0]
        if card.public_ip_auto_assign:
            card.public_ip = f"192.0.2.{next(self._numbers) % 250 + 1}"

    def _started(self, instance: Any, asked: dict[str, str]) -> None:
        host = self.hosts.find(instance.id) if self.hosts else None
        if host is None:
            self._new_address(instance)
            self._become(instance, "pending", "running", lambda: True)
            return
        instance.nics[0].public_ip = None

        def boot() -> None:
            host.start(move=True)
            self._addressed(instance, host.ip)

        self._become(instance, "pending", "running", self._begin(boot))

    def _stopped(self, instance: Any, asked: dict[str, str]) -> None:
        host = self.hosts.find(instance.id) if self.hosts else None
        end = (host.cut if asked.get("Force") == "true" else host.shut_down) if host else None
        self._become(instance, "stopping", "stopped", self._begin(end))

    def _terminated(self, instance: Any, asked: dict[str, str]) -> None:
        host = self.hosts.find(instance.id) if self.hosts else None
        self._become(
            instance, "shutting-down", "terminated", self._begin(host.destroy if host else None)
        )

    def _rebooted(self, instance: Any, asked: dict[str, str]) -> None:
        host = self.hosts.find(instance.id) if self.hosts else None
        self._begin(host.reboot if host else None)

    def _become(self, instance: Any, now: str, then: str, ready: Callable[[], bool]) -> None:
        instance._state.name, instance._state.code = now, _CODES[now]
        self._coming[instance.id] = _Coming(then, ready)

    def _advance(self) -> None:
        """A state that was seen by a caller once may be followed by the next."""
        for instance in self.backend.all_instances():
            coming = self._coming.get(instance.id)
            if coming is None or not coming.ready():
                continue
            instance._state.name, instance._state.code = coming.state, _CODES[coming.state]
            del self._coming[instance.id]
            if coming.state == "terminated":
                self._groups.pop(instance.id, None)

    def _begin(self, work: Callable[[], None] | None) -> Callable[[], bool]:
        """Do it in the background; the answer tells whether it is done."""
        if work is None:
            return lambda: True
        thread = threading.Thread(target=work)
        self._threads.append(thread)
        thread.start()
        return lambda: not thread.is_alive()

    def _furnish(self) -> None:
        from moto.ec2.models.amis import Ami
        from moto.ssm.models import Parameter, ssm_backends

        made: Any = Parameter  # abstract to mypy, not to moto
        now = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
        parameters = ssm_backends[ACCOUNT][REGION]._parameters
        for ident, name, owner, architecture, parameter in _IMAGES:
            self.backend.amis[ident] = Ami(
                self.backend, ident, name=name, owner_id=owner, public=True,
                virtualization_type="hvm", architecture=architecture, creation_date=now,
                root_device_type="ebs", root_device_name="/dev/xvda",
            )  # fmt: skip
            parameters[parameter].append(
                made(
                    account_id=ACCOUNT, name=parameter, value=ident, parameter_type="String",
                    description=None, allowed_pattern=None, keyid=None, last_modified_date=now,
                    version=1, data_type="text",
                )
            )  # fmt: skip


_VERBS = {
    "StartInstances": "_started",
    "StopInstances": "_stopped",
    "TerminateInstances": "_terminated",
    "RebootInstances": "_rebooted",
}


def _tags(thing: Any) -> dict[str, str]:
    return {str(one["key"]): str(one["value"]) for one in thing.get_tags()}


def _digest(asked: dict[str, str]) -> str:
    return hashlib.sha256(repr(sorted(asked.items())).encode()).hexdigest()


def _error(code: str, message: str) -> bytes:
    return (
        f"<Response><Errors><Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
        "</Error></Errors><RequestID>lab</RequestID></Response>"
    ).encode()


def _console(ident: str, said: str) -> str:
    return (
        '<GetConsoleOutputResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
        f"<instanceId>{ident}</instanceId><output>{said}</output></GetConsoleOutputResponse>"
    )


def _silent(handler: Any) -> Any:
    """moto's request handler, without a line on stderr for each request."""

    class Silent(handler):  # type: ignore[misc]
        def log_request(self, *_: object) -> None:
            """Nothing."""

    return Silent
