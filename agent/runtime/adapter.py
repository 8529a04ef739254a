"""`agent.engine.ports.Runtime` by crun or runc under conmon."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal as signals
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

from agent.engine.inside import Process, Sample
from agent.engine.model import ANY_RUNTIME, Container, ExecConfig, LogQuery, Resources
from agent.engine.ports import Exit, Launch, Rootfs, Survivor
from agent.errors import EngineError, conflict, internal, invalid, not_found, not_implemented
from agent.host import process
from agent.runtime import (
    conmon,
    copyup,
    host,
    logfiles,
    namespace,
    processes,
    realtime,
    record,
    rootfs,
    sources,
    spec,
    spec_linux,
    translate,
    users,
    view,
)
from agent.runtime import exec as execs
from agent.runtime.attach import ConmonAttach, Parking
from agent.runtime.cgroups import Cgroups, parse_mountinfo
from agent.runtime.filters import FilterCache
from agent.runtime.leftovers import Leftovers
from agent.runtime.logs import LogStream, open_logs
from agent.runtime.settings import Paths, RuntimeSettings
from agent.runtime.usage import Gauge
from agent.runtime.watcher import Watcher, read_exit


class OciRuntime:
    """See the port for the contract; `open_runtime` makes it."""

    def __init__(
        self, settings: RuntimeSettings, name: str, program: str, runtimes: Mapping[str, str]
    ) -> None:
        """`name` and `program` of the default among `runtimes` (name -> path)."""
        self.name = name
        self.runtimes = runtimes
        self.settings = settings
        self.paths = Paths(settings)
        self._program = program
        self._creating: set[str] = set()
        shutil.rmtree(self.paths.execs, ignore_errors=True)  # their runtimes' parent has died
        shutil.rmtree(self.paths.views, ignore_errors=True)
        self.paths.make()
        hierarchies = parse_mountinfo(host.read("/proc/self/mountinfo"))
        own = host.read("/proc/self/cgroup")
        self.cgroups = Cgroups(hierarchies, settings.cgroup_parent, own)
        self._rotator = logfiles.Rotator(self.paths)
        self._adopt_settings()
        self._facts = host.facts(hierarchies, settings.init_paths)
        self._boot = host.boot_id()
        self._gauge = Gauge(self.cgroups)
        self._launcher = namespace.Launcher(hierarchies.hidden)
        self._watcher = Watcher(self.paths, self.cgroups)
        self._leftovers = Leftovers(self.paths, self.cgroups)
        self._filters = FilterCache(f"{settings.run}/filters", enabled="crun" in runtimes)

    # ------------------------------------------------------------------------------ life of one

    def create(self, launch: Launch) -> int:
        container_id = launch.container.id
        known = record.load(self.paths, container_id)
        if known and record.alive(known.pid, known.started, known.boot_id, self._boot):
            raise conflict(f"container {container_id[:12]} runs already")
        self._creating.add(container_id)
        self._watcher.forget(container_id)
        self._leftovers.clear(container_id)
        try:
            return self._create(launch)
        except BaseException as error:
            self._leftovers.clear(container_id)
            self._watcher.forgotten(container_id)
            if isinstance(error, conmon.RuntimeRefusedError):
                args = (launch.container.path, *launch.container.args)
                name = launch.container.host_config.runtime
                shown = self.name if name in ("", ANY_RUNTIME) else name
                raise translate.create_error(shown, error.said, args) from error
            if isinstance(error, OSError | process.ProcessError):
                raise internal(f"failed to create task for container: {error}") from error
            raise
        finally:
            self._creating.discard(container_id)

    def _create(self, launch: Launch) -> int:
        container = launch.container
        bundle = self.paths.bundle(container.id)
        os.makedirs(f"{bundle}/rootfs", mode=0o700)
        os.makedirs(self.paths.log_dir(container.id), mode=0o700, exist_ok=True)
        self._place_cgroup(container, bundle)
        limits = log_limits(container)
        if limits and limits.files > 1 and container.host_config.log_driver != "none":
            self._rotator.add(container.id, limits)
        hidden = self.cgroups.hierarchies.hidden
        clones = sources.clone_shared(launch.mounts)
        try:
            monitor, key = namespace.run_private(
                lambda: self._start_monitor(launch, bundle, clones), hidden
            )
        finally:
            sources.close_all(clones)
        try:
            pid = monitor.create(
                lambda conmon_pid: self._before_create(bundle, conmon_pid),
                self.settings.create_timeout,
            )
            found = record.Record(
                pid=pid,
                started=record.start_time(pid),
                monitor=monitor.child.pid,
                monitor_started=record.start_time(monitor.child.pid),
                boot_id=self._boot,
                tty=container.config.tty,
                stdin=container.config.open_stdin,
                hostname=launch.hostname,
                program=self._program_of(container),
                stdin_once=container.config.stdin_once,
            )
            record.save(self.paths, container.id, found)
            self._watcher.add_monitor(container.id, monitor.child, monitor.child.pid)
            self._filters.learn(key, f"{self.paths.state}/{container.id}")
        except BaseException:
            monitor.child.kill()
            with contextlib.suppress(ChildProcessError):
                monitor.child.wait(10)
            monitor.child.close()
            raise
        finally:
            monitor.close_pipes()
        return pid

    def _before_create(self, bundle: str, conmon_pid: int) -> None:
        # Written before anything runs: an agent killed now leaves a conmon that can be found.
        with open(f"{bundle}/conmon.pid", "w", encoding="ascii") as file:
            file.write(f"{conmon_pid} {record.start_time(conmon_pid)}")
        self.cgroups.adopt_monitor(conmon_pid)

    def _place_cgroup(self, container: Container, bundle: str) -> None:
        """Noted in the bundle as well: the next agent must find its groups."""
        parent = container.host_config.resources.cgroup_parent
        self.cgroups.place(container.id, parent)
        self._make_room(container.host_config.resources)
        if parent:
            with open(f"{bundle}/cgroup-parent", "w", encoding="utf-8") as file:
                file.write(parent)

    def _make_room(self, limits: Resources) -> None:
        runtime = limits.cpu_realtime_runtime
        top = realtime.hierarchy(self.cgroups.hierarchies) if runtime else ""
        if top:
            parent = limits.cgroup_parent or self.cgroups.parent
            realtime.make_room(top, parent, runtime, limits.cpu_realtime_period)

    def _adopt_settings(self) -> None:
        for container_id in os.listdir(self.paths.bundles):
            self._rotator.adopt(container_id)
            with contextlib.suppress(OSError):
                self.cgroups.place(
                    container_id, host.read(f"{self.paths.bundle(container_id)}/cgroup-parent")
                )

    def _start_monitor(
        self, launch: Launch, bundle: str, clones: dict[str, int]
    ) -> tuple[conmon.Monitor, str]:
        """In the private namespace: mount, look things up, write config.json, start conmon."""
        container = launch.container
        namespace.mount_overlay(launch.rootfs, bundle)
        root_fd = rootfs.open_root(f"{bundle}/rootfs")
        try:
            rootfs.check_skeleton(root_fd)
            users.check_files(root_fd)
            placed = replace(launch, mounts=sources.place(launch.mounts, clones, bundle))
            resolved = self._resolve(launch, root_fd, bundle)
            config = spec.build(placed, resolved, self._facts_for(container))
            cwd = spec.working_directory(container.config.working_dir)
            os.close(rootfs.ensure_directory(root_fd, cwd))
            _check_sources(launch)
            copyup.fill(root_fd, launch.mounts)
        finally:
            os.close(root_fd)
        linux = config["linux"]
        program = self._program_of(container)
        key = ""
        if os.path.basename(program) == "crun":  # nobody else takes, or keeps, compiled filters
            key = self._filters.key(linux.get("seccomp") if isinstance(linux, dict) else None)
        if known := self._filters.annotations(key):
            config["annotations"] = known
        with open(f"{bundle}/config.json", "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump(config, file, ensure_ascii=False)
        argv = conmon.arguments(self.paths, program, _monitor_plan(container))
        return conmon.Monitor(argv), key

    def _program_of(self, container: Container) -> str:
        """The OCI runtime's path.  INVALID when the one that was asked for is no longer there."""
        name = container.host_config.runtime
        if name in ("", ANY_RUNTIME):
            return self._program
        if name not in self.runtimes:
            raise invalid(f"unknown or invalid runtime name: {name}")
        return self.runtimes[name]

    def _facts_for(self, container: Container) -> spec.HostFacts:
        devices = host.all_devices() if container.host_config.privileged else ()
        # Looked for again, since --init's error asks for its installation.
        init = self._facts.init or host.init_program(self.paths.settings.init_paths)
        return replace(self._facts, host_devices=devices, init=init)

    def _resolve(self, launch: Launch, root_fd: int, bundle: str) -> spec.Resolved:
        container = launch.container
        pid_mode = container.host_config.pid_mode
        pid_namespace = ""
        if pid_mode.startswith("container:"):
            other = self._running(pid_mode.removeprefix("container:"))
            pid_namespace = f"/proc/{other.pid}/ns/pid"
        elif pid_mode not in ("", "host", "private"):
            raise invalid(f"invalid PID mode: {pid_mode}")
        ipc_namespace, memory = self._shared_ipc(container, bundle)
        return spec.Resolved(
            identity=users.look_up(root_fd, container.config.user, container.host_config.group_add),
            cgroup=self.cgroups.path(container.id),
            devices=host.given_devices(container.host_config.resources.devices),
            pid_namespace=pid_namespace,
            ipc_namespace=ipc_namespace,
            shared_memory=memory,
            ulimits=self.settings.default_ulimits,
        )

    def _shared_ipc(self, container: Container, bundle: str) -> tuple[str, str]:
        """(namespace, /dev/shm) of the container that --ipc container:<id> names."""
        mode = container.host_config.ipc_mode
        if not mode.startswith("container:"):
            return "", ""
        pid = self._running(mode.removeprefix("container:")).pid
        tree = sources.shared_memory(pid, self.cgroups.hierarchies.hidden)
        try:
            return f"/proc/{pid}/ns/ipc", sources.attach_memory(tree, bundle)
        finally:
            os.close(tree)

    def attach(self, container_id: str) -> ConmonAttach:
        found = self._record(container_id)
        keep = found.stdin_once and found.stdin and not found.tty
        parking = Parking(container_id, self._watcher, keep)
        bundle = self.paths.bundle(container_id)
        return ConmonAttach(bundle, tty=found.tty, stdin=found.stdin, parking=parking)

    def start(self, container_id: str) -> None:
        self._record(container_id)
        done = self._command("start", container_id)
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace")
            raise translate.create_error(self.name, said, self._arguments(container_id))

    def signal(self, container_id: str, signal: int) -> None:
        found = self._running(container_id)
        try:
            fd = os.pidfd_open(found.pid)
        except OSError as error:
            raise self._not_running(container_id) from error
        try:
            if record.start_time(found.pid) != found.started:
                raise self._not_running(container_id)
            signals.pidfd_send_signal(fd, signal)
        except ProcessLookupError as error:
            raise self._not_running(container_id) from error
        except (ValueError, OSError) as error:
            raise invalid(f"Invalid signal: {signal}") from error
        finally:
            os.close(fd)

    def pause(self, container_id: str) -> None:
        self._running(container_id)
        if not self.cgroups.freeze(container_id, frozen=True):
            self.cgroups.freeze(container_id, frozen=False)
            raise internal(f"cannot pause container {container_id}: no freezer cgroup")

    def resume(self, container_id: str) -> None:
        self._running(container_id)
        if not self.cgroups.freeze(container_id, frozen=False):
            raise internal(f"cannot resume container {container_id}: no freezer cgroup")

    def resize(self, container_id: str, height: int, width: int) -> None:
        if not self._running(container_id).tty:
            return
        try:
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(f"{self.paths.bundle(container_id)}/ctl", flags)
        except OSError as error:
            raise self._not_running(container_id) from error
        try:
            os.write(fd, f"1 {height} {width}\n".encode("ascii"))
        except OSError as error:
            raise internal(f"cannot resize: {error.strerror}") from error
        finally:
            os.close(fd)

    def delete(self, container_id: str) -> None:
        self._watcher.forget(container_id)
        self._rotator.forget(container_id)
        self._leftovers.clear(container_id)
        self.cgroups.place(container_id, "")
        self._watcher.forgotten(container_id)

    def remove_logs(self, container_id: str) -> None:
        shutil.rmtree(self.paths.log_dir(container_id), ignore_errors=True)

    # ------------------------------------------------------------------------------------- exec

    def exec(
        self,
        container: Container,
        config: ExecConfig,
        exec_id: str,
        *,
        detach: bool,
        on_exit: Callable[[int], None],
    ) -> execs.RunningExec:
        found = self._running(container.id)
        if not config.cmd:
            raise invalid("No exec command specified")
        try:
            root_fd = rootfs.open_root(f"/proc/{found.pid}/root")
        except OSError as error:
            raise self._not_running(container.id) from error
        try:
            user = config.user or container.config.user
            identity = users.look_up(root_fd, user, container.host_config.group_add)
        finally:
            os.close(root_fd)
        limits = self.settings.default_ulimits
        document = spec.exec_process(
            container, config, identity, self._facts, found.hostname, limits
        )
        program = found.program or self._program
        plan = execs.ExecPlan(
            folder=f"{self.paths.execs}/{exec_id}",
            command=(program, "--root", self.paths.state),
            container_id=container.id,
            document=document,
            config=config,
            detach=detach,
            timeout=self.settings.command_timeout,
            console_socket=os.path.basename(program) == "crun",
        )
        return execs.start(plan, self._launcher, self._watcher, on_exit)

    # ------------------------------------------------------------------------ looking in from outside

    @property
    def block_weight(self) -> bool:
        return host.weighs_block_io(self.cgroups.hierarchies)

    @property
    def real_time(self) -> bool:
        return bool(realtime.hierarchy(self.cgroups.hierarchies))

    def view(
        self, container: Container, rootfs: Rootfs, *, writable: bool, mounts: bool = True
    ) -> view.View:
        if mounts:
            with contextlib.suppress(OSError, EngineError):
                found = self._running(container.id)
                opened = view.of_process(found.pid)
                if record.start_time(found.pid) == found.started:
                    return opened
                opened.close()
        try:
            return view.mounted(
                self.paths.views,
                rootfs,
                container.mounts if mounts else (),
                writable=writable,
                hidden=self.cgroups.hierarchies.hidden,
            )
        except OSError as error:
            raise internal(f"cannot mount the root of {container.id[:12]}: {error}") from error

    def owner(self, root_fd: int, user: str) -> tuple[int, int]:
        identity = users.look_up(root_fd, user, ())
        return identity.uid, identity.gid

    def processes(self, container_id: str) -> list[Process]:
        return processes.processes(self.cgroups.pids(container_id))

    def sample(self, container_id: str) -> Sample:
        return self._gauge.sample(container_id, self._running(container_id).pid)

    def update(self, container: Container, resources: Resources) -> None:
        self._running(container.id)
        self._make_room(resources)
        document = spec_linux.resources(
            resources, swap_limit=self._facts.swap_limit, unified=self._facts.unified
        )
        with tempfile.NamedTemporaryFile(
            "w", dir=self.paths.bundle(container.id), prefix="update-", encoding="ascii"
        ) as file:
            json.dump(document, file)
            file.flush()
            done = self._command("update", container.id, f"--resources={file.name}")
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip()
            raise internal(f"Cannot update container {container.id}: {said}")

    def end_exec(self, container_id: str, pid: int) -> None:
        processes.end_family(lambda: self.cgroups.pids(container_id), pid)

    # ------------------------------------------------------------------------- logs, ends, agent

    def logs(self, container: Container, query: LogQuery) -> LogStream:
        if container.host_config.log_driver == "none":
            raise not_implemented("configured logging driver does not support reading")
        return open_logs(self.paths, container.id, query, tty=container.config.tty)

    def watch(self, on_exit: Callable[[Exit], None]) -> None:
        self._watcher.watch(on_exit)

    def survivors(self) -> list[Survivor]:
        found = []
        for container_id in sorted(set(os.listdir(self.paths.bundles)) - self._creating):
            survivor = self._survivor(container_id)
            if survivor:
                found.append(survivor)
        self._leftovers.clear_unknown(self._creating)
        return found

    def _survivor(self, container_id: str) -> Survivor | None:
        known = record.load(self.paths, container_id)
        if known is None:  # killed in the middle of create: nothing was acknowledged
            self._leftovers.clear(container_id)
            return None
        ended = read_exit(self.paths, container_id)
        if ended:
            return Survivor(container_id, 0, ended)
        watched = record.alive(known.monitor, known.monitor_started, known.boot_id, self._boot)
        if watched and not self._watcher.is_watched(container_id):
            with contextlib.suppress(ProcessLookupError):
                self._watcher.add_monitor(container_id, None, known.monitor)
                watched = record.start_time(known.monitor) == known.monitor_started
        if not watched and known.boot_id == self._boot:
            self._watcher.monitor_lost(container_id)
        if record.alive(known.pid, known.started, known.boot_id, self._boot):
            return Survivor(container_id, known.pid, None)
        return Survivor(container_id, 0, read_exit(self.paths, container_id))

    def close(self) -> None:
        self._launcher.close()
        self._rotator.close()
        self._watcher.close()

    # ----------------------------------------------------------------------------------- inside

    def _command(self, verb: str, container_id: str, *options: str) -> process.Completed:
        program = self._record(container_id).program or self._program
        argv = [program, "--root", self.paths.state, verb, *options, container_id]
        timeout = self.settings.command_timeout
        try:
            return self._launcher.call(lambda: process.run(argv, timeout=timeout, check=False))
        except process.ProcessError as error:
            raise internal(str(error)) from error

    def _arguments(self, container_id: str) -> list[str]:
        """The command in the bundle; [] when it can't be read."""
        try:
            with open(f"{self.paths.bundle(container_id)}/config.json", encoding="utf-8") as file:
                return [str(word) for word in json.load(file)["process"]["args"]]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def _record(self, container_id: str) -> record.Record:
        found = record.load(self.paths, container_id)
        if found is None:
            raise self._not_running(container_id)
        return found

    def _running(self, container_id: str) -> record.Record:
        found = self._record(container_id)
        if not record.alive(found.pid, found.started, found.boot_id, self._boot):
            raise self._not_running(container_id)
        return found

    def _not_running(self, container_id: str) -> EngineError:
        return not_found(f"Container {container_id} is not running")


def _check_sources(launch: Launch) -> None:
    for mount in launch.mounts:
        if mount.source and not os.path.lexists(mount.source):
            raise invalid(
                'invalid mount config for type "bind": bind source path does not exist: '
                + mount.source
            )


def _monitor_plan(container: Container) -> conmon.Plan:
    limits = log_limits(container)
    return conmon.Plan(
        container_id=container.id,
        name=container.name or container.id,
        tty=container.config.tty,
        stdin=container.config.open_stdin,
        stdin_once=container.config.stdin_once,
        log=container.host_config.log_driver != "none",
        # With one file conmon itself begins it anew; with more the agent rotates.
        log_size_max=limits.size if limits and limits.files == 1 else 0,
    )


def log_limits(container: Container) -> logfiles.Limits | None:
    """LogConfig's max-size and max-file; None: no limit.  The local driver has limits of its own."""
    host_config = container.host_config
    local = host_config.log_driver == "local"
    size = host_config.log_options.get("max-size", "20m" if local else "")
    files = host_config.log_options.get("max-file", "5" if local else "1")
    return logfiles.Limits(parse_size(size), int(files)) if size else None


def parse_size(text: str) -> int:
    """Docker's sizes: "10m", "1g", "512k", "100" (bytes).  INVALID else."""
    unit = text[-1:].lower()
    factor = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}.get(unit, 1)
    digits = text[:-1] if factor > 1 or unit == "b" else text
    if not (digits.isascii() and digits.isdigit()):
        raise invalid(f"invalid size: '{text}'")
    return int(digits) * factor


_PROBE_LOCK = threading.Lock()


_RUNTIMES = ("crun", "runc")


def installed() -> dict[str, str]:
    """The OCI runtimes on this host, name -> path; the one that is taken by itself first."""
    paths = {name: shutil.which(name, path=process.ENVIRONMENT["PATH"]) for name in _RUNTIMES}
    return {name: path for name, path in paths.items() if path}


def choose(wanted: str, found: Mapping[str, str]) -> str:
    """The default's name: crun, else runc.  INTERNAL when there is none that works."""
    names = _RUNTIMES if wanted == "auto" else (wanted,)
    for name in names:
        if name in found:
            with contextlib.suppress(process.ProcessError):
                process.run([found[name], "--version"], timeout=10)
                return name
    raise internal(f"no OCI runtime works here (tried {', '.join(names)}): install crun or runc")


def open_runtime(settings: RuntimeSettings) -> OciRuntime:
    """The runtime adapter on this host; makes its folders and starts its watcher thread."""
    found = installed()
    name = choose(settings.runtime, found)
    return OciRuntime(settings, name, found[name], found)
