"""Which network namespace and which /etc files a starting container gets."""

from __future__ import annotations

from dataclasses import dataclass

from agent.engine import hostsfile, publishing
from agent.engine.core import Core
from agent.engine.lifecycle import live
from agent.engine.model import Container, Endpoint
from agent.engine.sandboxfiles import EtcPaths
from agent.errors import EngineError, conflict


@dataclass(frozen=True)
class Sandbox:
    """`namespace` as in Launch.network_namespace; no endpoint = no interface of its own."""

    namespace: str
    hostname: str
    endpoint: Endpoint | None
    etc: EtcPaths


class Joining:
    """Reserves the network's part; `undo` gives it back."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def join(self, container: Container) -> Sandbox:
        """Raises what network.reserve raises, NOT_FOUND/CONFLICT for "container:x"."""
        kind = publishing.mode(container.host_config.network_mode)
        if kind == "container":
            return self._shared(container)
        if kind == "host":
            return self._files(container, "host", None)
        if kind == "none":
            return self._files(container, "private", None)
        ports = publishing.bindings(container.config, container.host_config)
        endpoint = self._core.ports.network.reserve(container.id, ports)
        try:
            return self._files(container, "private", endpoint)
        except (EngineError, OSError):
            self._core.ports.network.release(container.id, endpoint)
            raise

    def leave(self, container: Container, sandbox: Sandbox) -> None:
        """Undo of `join`."""
        if sandbox.endpoint is not None:
            self._core.ports.network.release(container.id, sandbox.endpoint)

    def _shared(self, container: Container) -> Sandbox:
        other = self._core.book.find(publishing.shared_with(container.host_config.network_mode))
        if other.id == container.id or not live(other.state.phase):
            raise conflict(f"cannot join network of a non running container: {other.id}")
        if publishing.mode(other.host_config.network_mode) == "host":
            return self._files(container, "host", None)
        return Sandbox(
            namespace=f"/proc/{other.state.pid}/ns/net",
            hostname=other.config.hostname,
            endpoint=None,
            etc=self._core.files.paths(other.id),
        )

    def _files(self, container: Container, namespace: str, endpoint: Endpoint | None) -> Sandbox:
        files, config, host = self._core.files, container.config, container.host_config
        hostname = config.hostname or container.id[:12]
        gateway = endpoint.gateway if endpoint else self._bridge_gateway(container)
        if namespace == "host":
            hosts = hostsfile.host_mode_hosts(files.host_hosts(), host.extra_hosts, gateway=gateway)
        else:
            hosts = hostsfile.hosts(
                host.extra_hosts,
                gateway=gateway,
                address=endpoint.address if endpoint else "",
                hostname=hostname,
                domainname=config.domainname,
            )
        own = hostsfile.parse_resolver(files.host_resolv_conf())
        parts = hostsfile.resolver(own, host, filtered=namespace != "host")
        etc = files.write(
            container.id,
            hosts=hosts,
            hostname=hostname,
            resolv_conf=hostsfile.resolv_conf(parts),
        )
        return Sandbox(namespace, hostname, endpoint, etc)

    def _bridge_gateway(self, container: Container) -> str:
        """What "host-gateway" means without an interface of its own: the default bridge's."""
        if not any(hostsfile.HOST_GATEWAY in one for one in container.host_config.extra_hosts):
            return ""
        found = (one.gateway for one in self._core.ports.network.networks() if one.gateway)
        return next(found, "")
