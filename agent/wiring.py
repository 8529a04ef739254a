"""The composition root: configuration -> adapters -> engine -> API application.

Everything that the parts need of the outside (folders, clock, host facts) is made here and handed
in; no other module knows two adapters.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from agent import facts
from agent.api.application import EngineApplication
from agent.build import open_builder
from agent.config import Config, ConfigError, Tcp, check_key
from agent.engine.building import Builder, Runs
from agent.engine.core import Ports, Settings
from agent.engine.engine import Engine
from agent.host import process
from agent.host.tree import make_private
from agent.images import open_store
from agent.images.settings import RegistrySettings
from agent.images.store import ImageStore
from agent.net.network import HostNetworks, NetworkSettings, open_network
from agent.runtime import RuntimeSettings, open_runtime
from agent.server.listeners import Listener, TlsListener, UnixListener
from agent.server.tls import TlsConfig, TlsError, load_identity
from agent.state.lock import RootLock
from agent.state.records import SqliteRecords
from agent.volumes.local import open_volumes

_log = logging.getLogger("agent")

_ROOT_MODE: Final = 0o710  # nobody but root lists the data folder or reaches into it
_RUN_MODE: Final = 0o711  # others may reach the socket in it, but not list it


class SystemClock:
    """`agent.engine.ports.Clock` of this computer."""

    def now(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()


@dataclass
class Agent:
    """A composed agent, not yet listening.  `close` once: containers run on."""

    config: Config
    engine: Engine
    application: EngineApplication
    images: ImageStore
    network: HostNetworks
    ports: Ports
    _closing: contextlib.ExitStack

    def reconfigure(self, config: Config) -> None:
        """What can change while it runs: mirrors, insecure registries, labels."""
        self.images.reconfigure(registry_settings(config))
        self.engine.facts = dataclasses.replace(
            self.engine.facts,
            registry_mirrors=config.registry_mirrors,
            insecure_registries=config.insecure_registries,
            labels=config.labels,
        )

    def close(self) -> None:
        self._closing.close()


def compose(config: Config, version: str) -> Agent:
    """Opens everything; what earlier agents left is taken over when the engine starts.

    Raises LockedError (another agent), EngineError, OSError.  Nothing stays open on an error.
    """
    make_private(config.root, _ROOT_MODE)
    make_private(config.run, _RUN_MODE)
    with contextlib.ExitStack() as stack:
        stack.callback(RootLock(config.root).close)
        # Programs are asked for their versions while everything else is opened.
        asking = ThreadPoolExecutor(2, thread_name_prefix="versions")
        stack.callback(asking.shutdown)
        runtime_name = "crun" if config.runtime == "auto" else config.runtime
        asked = {
            name: asking.submit(facts.program_version, name) for name in (runtime_name, "conmon")
        }
        clock = SystemClock()
        records = SqliteRecords(config.root)
        stack.callback(records.close)
        images, snapshots = open_store(config.root, registry_settings(config))
        stack.callback(images.close)
        runtime = open_runtime(runtime_settings(config))
        stack.callback(runtime.close)
        network = open_network(network_settings(config))
        stack.callback(network.close)
        ports = Ports(
            clock=clock,
            images=images,
            snapshots=snapshots,
            runtime=runtime,
            network=network,
            volumes=open_volumes(config.root),
            records=records,
            inside=runtime,
            transfers=images.transfers(),
        )

        def version_of(name: str) -> str:
            return asked[name].result() if name in asked else facts.program_version(name)

        host = facts.host_facts(config, runtime.name, version, version_of)
        asking.shutdown()
        settings = Settings(root=config.root, boot_id=boot_id())

        def builder(runs: Runs) -> Builder:
            layers = images.layers()
            return open_builder(config.root, config.run, layers, runs, images, snapshots, clock)

        engine = Engine(ports, host, settings, builder)
        stack.callback(engine.close)
        application = EngineApplication(engine, clock.now, config.dns)
        return Agent(config, engine, application, images, network, ports, stack.pop_all())


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def host_goes_down() -> bool:
    """Whether systemd is shutting this host down; False where it is not the init system."""
    if not os.path.isdir("/run/systemd/system"):
        return False
    try:
        # Over the manager's private socket: it answers when the bus is gone already.
        done = process.run(["systemctl", "is-system-running"], timeout=10, check=False)
    except process.ProcessError:
        return False
    return done.stdout.strip() == b"stopping"


def registry_settings(config: Config) -> RegistrySettings:
    return RegistrySettings(mirrors=config.registry_mirrors, insecure=config.insecure_registries)


def runtime_settings(config: Config) -> RuntimeSettings:
    settings = RuntimeSettings(
        root=config.root,
        run=config.run,
        runtime=config.runtime,
        cgroup_parent=config.cgroup_parent,
    )
    if not config.init_path:
        return settings
    return dataclasses.replace(settings, init_paths=(config.init_path,))


def network_settings(config: Config) -> NetworkSettings:
    return NetworkSettings(
        root=config.root,
        bridge=config.bridge.name,
        table=config.nft_table,
        bip=config.bridge.bip,
        mtu=config.bridge.mtu,
        agent_ports=(config.tcp.port,) if config.tcp else (),
        block_metadata=config.block_metadata,
    )


def tls_config(tcp: Tcp) -> TlsConfig:
    return TlsConfig(
        certificate=tcp.cert,
        key=tcp.key,
        authority=tcp.ca,
        store_id=tcp.store_id or None,
        revoked=tcp.revoked or None,
    )


def check(config: Config) -> None:
    """What can be known to fail before anything is touched (security case 98).

    Raises ConfigError.
    """
    if config.tcp is None:
        return
    check_key(config.tcp)
    try:
        load_identity(tls_config(config.tcp))
    except TlsError as error:
        raise ConfigError(str(error)) from error


def listeners(config: Config) -> list[Listener]:
    found: list[Listener] = []
    if config.unix_socket is not None:
        found.append(UnixListener(config.unix_socket, config.group))
    if config.tcp is not None:
        hosts = frozenset(name.lower() for name in config.tcp.names)
        found.append(
            TlsListener(config.tcp.listen, config.tcp.port, tls_config(config.tcp), hosts or None)
        )
    return found


def teardown(config: Config, version: str) -> None:
    """For uninstalling: containers, bridge, nft table and $RUN go; images and volumes stay in
    $ROOT for whoever removes that folder.

    Raises LockedError when an agent is running, EngineError, OSError.
    """
    import shutil

    agent = compose(config, version)
    try:
        # Not the engine's start: restart policies would bring containers up first.
        _remove_containers(agent.ports)
        agent.network.teardown()
    finally:
        agent.close()
    shutil.rmtree(config.run, ignore_errors=True)
    _remove_cgroups(config.cgroup_parent)


def _remove_containers(ports: Ports) -> None:
    recorded = {one.id: one.name for one in ports.records.all()}
    found = {one.container_id: "" for one in ports.runtime.survivors()}
    for container_id, name in {**found, **recorded}.items():
        ports.runtime.delete(container_id)
        ports.runtime.remove_logs(container_id)
        ports.snapshots.remove(container_id)
        ports.records.delete(container_id)
        _log.info("removed container %s", name or container_id)


def _remove_cgroups(parent: str) -> None:
    """The empty groups that held containers and their monitors, in every hierarchy."""
    with os.scandir("/sys/fs/cgroup") as entries:
        tops = ["/sys/fs/cgroup", *(one.path for one in entries if one.is_dir())]
    for top in tops:
        for group in (parent, f"{parent}-conmon"):
            with contextlib.suppress(OSError):  # not there, or still in use by somebody
                os.rmdir(f"{top}{group}")
