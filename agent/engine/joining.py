"""Which networks, which network namespace and which /etc files a starting container gets."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from typing import Final

from agent.engine import hostsfile, linking, publishing
from agent.engine.core import Core
from agent.engine.lifecycle import live
from agent.engine.model import Container, Endpoint, EndpointRequest
from agent.engine.ports import NameServers
from agent.engine.sandboxfiles import EtcPaths
from agent.errors import EngineError, Kind, conflict
from agent.values import frozen

# Stands alone in Container.networks: it has been disconnected from everything.
NOWHERE: Final = "none"
_log = logging.getLogger(__name__)


@frozen
class Sandbox:
    """`namespace` as in Launch.network_namespace; no endpoint = no interface of its own.  `env` are
    the variables of links."""

    namespace: str
    hostname: str
    endpoints: tuple[Endpoint, ...]
    etc: EtcPaths
    env: tuple[str, ...] = ()


class Joining:
    """Reserves the network's part, and plugs it in; `leave` gives it back."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def join(self, container: Container) -> Sandbox:
        """Raises what network.reserve raises, NOT_FOUND/CONFLICT for "container:x"."""
        kind = publishing.mode(container.host_config.network_mode)
        if kind == "container":
            return self._shared(container)
        if kind == "host":
            return self._files(container, "host", ())
        network = self._core.ports.network
        requests = self._requests(container)
        if not requests:
            return self._files(container, "private", ())
        links = linking.resolve(container, self._core.book)
        ports = publishing.bindings(container.config, container.host_config)
        try:
            endpoints = network.reserve(container.id, ports, requests)
        except EngineError as error:
            if error.kind is Kind.NOT_FOUND:
                text = f"failed to set up container networking: {error.message}"
                raise EngineError(error.kind, text) from error
            raise
        try:
            sandbox = self._files(container, "private", endpoints, links)
        except (EngineError, OSError):
            self._release(container, endpoints)
            raise
        return dataclasses.replace(sandbox, env=linking.environment(container, links))

    def plug(self, container: Container, sandbox: Sandbox, pid: int) -> None:
        """Interfaces and name server of a process that has been created; `leave` is the undo."""
        for endpoint in sandbox.endpoints:
            self._core.ports.network.connect(container.id, endpoint, pid)
        if named(sandbox.endpoints):
            self.serve_names(container, pid)

    def serve_names(self, container: Container, pid: int) -> None:
        """Start its name server, or start it anew."""
        self._core.ports.network.serve_names(container.id, pid, self._upstream(container))

    def refresh_links(self, target: Container) -> None:
        """A container that others link to has started: its lines in their /etc/hosts."""
        for other in self._core.book.all():
            if not live(other.state.phase) or not other.host_config.links:
                continue
            try:
                found = linking.resolve(other, self._core.book)
            except EngineError:
                continue  # another of its targets is down
            links = [one for one in found if one.target.id == target.id]
            if links:
                text = linking.hosts_lines(links)
                names = [one.alias for one in links]
                self._core.files.amend_hosts(other.id, add=text, without_names=names)

    def leave(self, container: Container, sandbox: Sandbox) -> None:
        """Undo of `join` and `plug`."""
        self._core.ports.network.silence_names(container.id)
        self._release(container, sandbox.endpoints)

    def resolve_by_names(self, container: Container) -> None:
        """A running container is on its first network with names: its resolv.conf says so."""
        self._core.files.rewrite_resolv_conf(container.id, self._resolv_conf(container, named=True))

    def _release(self, container: Container, endpoints: Iterable[Endpoint]) -> None:
        for endpoint in endpoints:
            try:
                self._core.ports.network.release(container.id, endpoint)
            except EngineError as error:
                _log.error("the network of %s was not released: %s", container.id, error)

    def _requests(self, container: Container) -> list[EndpointRequest]:
        builtin = {one.name for one in self._core.ports.network.networks() if one.builtin}
        return [with_names(one, container, builtin) for one in wanted(container)]

    def _shared(self, container: Container) -> Sandbox:
        other = self._core.book.find(publishing.shared_with(container.host_config.network_mode))
        if other.id == container.id or not live(other.state.phase):
            raise conflict(f"cannot join network of a non running container: {other.id}")
        if publishing.mode(other.host_config.network_mode) == "host":
            return self._files(container, "host", ())
        return Sandbox(
            namespace=f"/proc/{other.state.pid}/ns/net",
            hostname=other.config.hostname,
            endpoints=(),
            etc=self._core.files.paths(other.id),
        )

    def _files(
        self,
        container: Container,
        namespace: str,
        endpoints: tuple[Endpoint, ...],
        links: Sequence[linking.Link] = (),
    ) -> Sandbox:
        files, config, host = self._core.files, container.config, container.host_config
        hostname = config.hostname or container.id[:12]
        out = next((one for one in endpoints if one.way_out), None)
        gateway = out.gateway if out else self._bridge_gateway(container)
        if namespace == "host":
            hosts = hostsfile.host_mode_hosts(files.host_hosts(), host.extra_hosts, gateway=gateway)
        else:
            hosts = hostsfile.hosts(host.extra_hosts, gateway=gateway, address="", hostname="")
            hosts += linking.hosts_lines(links)
            hosts += own_lines(container, endpoints)
        text = self._resolv_conf(container, named=named(endpoints), filtered=namespace != "host")
        etc = files.write(container.id, hosts=hosts, hostname=hostname, resolv_conf=text)
        return Sandbox(namespace, hostname, endpoints, etc)

    def _resolv_conf(self, container: Container, *, named: bool, filtered: bool = True) -> str:
        own = hostsfile.parse_resolver(self._core.files.host_resolv_conf())
        parts = hostsfile.resolver(own, container.host_config, filtered=filtered)
        if named:
            return hostsfile.embedded_resolv_conf(parts)
        return hostsfile.resolv_conf(parts)

    def _upstream(self, container: Container) -> NameServers:
        own = hostsfile.parse_resolver(self._core.files.host_resolv_conf())
        servers, from_host = hostsfile.upstream(own, container.host_config)
        return NameServers(servers, from_host)

    def _bridge_gateway(self, container: Container) -> str:
        """What "host-gateway" means without an interface of its own: the default bridge's."""
        if not any(hostsfile.HOST_GATEWAY in one for one in container.host_config.extra_hosts):
            return ""
        found = (one.gateway for one in self._core.ports.network.networks() if one.gateway)
        return next(found, "")


def wanted(container: Container) -> tuple[EndpointRequest, ...]:
    """The networks that it is to be on; records of earlier agents name only the mode."""
    kind = publishing.mode(container.host_config.network_mode)
    if kind in {"host", "container"}:
        return ()
    if container.networks or kind == "none":
        return tuple(one for one in container.networks if one.network != NOWHERE)
    mode = container.host_config.network_mode
    return (EndpointRequest("bridge" if kind == "bridge" else mode),)


def with_names(
    request: EndpointRequest, container: Container, builtin: Iterable[str]
) -> EndpointRequest:
    """What others find it by: nothing on the default bridge (moby's buildEndpointDNSNames)."""
    if request.network in builtin:
        return request
    names = [container.name, *request.aliases, container.id[:12]]
    if container.config.hostname:
        names.append(container.config.hostname)
    return dataclasses.replace(request, dns_names=tuple(dict.fromkeys(names)))


def named(endpoints: Iterable[Endpoint]) -> bool:
    """Whether one of them is on a network that has names."""
    return any(one.dns_names for one in endpoints)


def own_lines(container: Container, endpoints: Iterable[Endpoint]) -> str:
    """The container's own addresses in its /etc/hosts."""
    hostname = container.config.hostname or container.id[:12]
    return "".join(
        hostsfile.line(address, hostname, container.config.domainname)
        for one in endpoints
        for address in (one.address, one.address6)
        if address
    )
