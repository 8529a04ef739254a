"""The composition root of the laptop's side: real clock, processes and HTTP, made when needed."""

from __future__ import annotations

import getpass
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from drivers import registry
from drivers.errors import DriverError
from drivers.polling import SystemClock
from machine.cli.session import Session
from machine.hostkeys import HostKey, KnownHost
from machine.hosts import Ports, SshConnect
from machine.model import SshEndpoint
from machine.paths import home
from machine.process import LocalRunner
from machine.progress import make_progress
from machine.service import Service
from machine.transport.api import Transport

_ANSWER_LIMIT: Final = 16 << 20


class VerifiedHttp:
    """drivers.api.Http by the standard library: certificates verified, no redirect is followed."""

    def __init__(self) -> None:
        context = ssl.create_default_context()
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), _NoRedirect()
        )

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout: float = 60.0,
    ) -> tuple[int, bytes]:
        if urlsplit(url).scheme != "https" and urlsplit(url).hostname not in {
            "127.0.0.1",
            "localhost",
        }:
            raise DriverError(f"{urlsplit(url).hostname} without https is refused")
        asked = urllib.request.Request(  # noqa: S310  the scheme was checked
            url, data=body or None, headers=dict(headers or {}), method=method
        )
        try:
            with self._opener.open(asked, timeout=timeout) as answer:
                return answer.status, answer.read(_ANSWER_LIMIT)
        except urllib.error.HTTPError as err:
            with err:
                return err.code, err.read(_ANSWER_LIMIT)
        except OSError as err:
            raise DriverError(f"{urlsplit(url).hostname} did not answer: {err}") from err


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def passphrases(
    session: Session, read_secret: Callable[[str], str] = getpass.getpass
) -> Callable[[str], str | None]:
    """path of a key -> its passphrase; None when there is no terminal to ask on."""
    asking = threading.Lock()  # one question at a time
    answers: dict[str, str] = {}  # a command may connect several times, and asks once

    def ask(path: str) -> str | None:
        if not session.stdin.isatty():
            return None
        with asking:
            if path not in answers:
                session.close()  # a live line would be drawn over the question
                answers[path] = read_secret(f"Passphrase for {path}: ")
            return answers[path]

    return ask


def ssh_connector(session: Session) -> SshConnect:
    """Logs in by paramiko, which is imported at the first connection; asks for passphrases."""
    ask = passphrases(session)

    def connect(
        endpoint: SshEndpoint, known: KnownHost, first: Callable[[HostKey], None]
    ) -> Transport:
        from machine.transport import ssh

        session.debug(f"SSH to {endpoint.user}@{endpoint.host} port {endpoint.port}")
        return ssh.connect(endpoint, known, ssh.SshPorts(first, ask, home(session.env)))

    return connect


def make_plugins(session: Session) -> registry.Plugins:
    """docker-machine's plugin binaries; what they print is shown as it comes."""
    from drivers.plugins.finding import Plugins

    path = session.env.get("PATH", "")
    return Plugins(path, LocalRunner(session.env), session.service_note, session.debug)


def make_service(session: Session) -> Service:
    """The use cases over the session's store. Progress is live only on a terminal."""
    live = session.stdout.isatty() and not session.flags.debug
    progress = make_progress(session.stdout, live=live)

    ports = Ports(
        env=session.env,
        clock=SystemClock(),
        runner=LocalRunner(session.env),
        http=VerifiedHttp(),
        cache=session.cache,
        ssh=ssh_connector(session),
        say=progress.note,
        debug=session.debug,
        plugins=session.plugins,
    )
    session.on_exit(progress.close)
    return Service(session.store, ports, progress)
