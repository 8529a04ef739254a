"""The lab by hand; see `python -m tests.lab --help`."""

import argparse
import os
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor

from tests.lab import lab as labs
from tests.lab import virtualbox
from tests.lab.cloudimage import CloudImages
from tests.lab.errors import LabError
from tests.lab.host import Host
from tests.lab.hostroot import FLAVOURS, VARIANTS, Flavour, HostRoots, Variant
from tests.lab.images import ImageBuilder
from tests.lab.libvirtd import layer as libvirtd_layer
from tests.lab.registry import Registry, program
from tests.lab.settings import Settings, from_environment
from tests.lab.vm import Vm
from tests.lab.vmimage import VmImages

_EPILOG = f"""hosts: NAME[:VARIANT[:FLAVOUR]],... with variants {", ".join(VARIANTS)}
and flavours {", ".join(FLAVOURS)}; for example --hosts a:systemd,b:plain:bare"""


def _parse_hosts(text: str) -> list[tuple[str, Variant, Flavour]]:
    wanted = []
    for word in filter(None, text.split(",")):
        name, variant, flavour, *rest = [*word.split(":"), "", ""][: max(3, word.count(":") + 1)]
        variant, flavour = variant or "systemd", flavour or "full"
        if rest or variant not in VARIANTS or flavour not in FLAVOURS:
            raise LabError(f"bad host {word!r}\n{_EPILOG}")
        wanted.append((name, variant, flavour))
    return wanted


def _describe(host: Host) -> str:
    state = "on" if host.running else "off"
    kind = "virtual machine" if isinstance(host, Vm) else f"{host.variant}/{host.flavour}"
    return f"host {host.name:12} {host.ip:13} {kind} {state}"


def _show(lab: labs.Lab) -> None:
    registry = Registry(lab.directory / "registry", lab.subnet)
    print(f"lab  {lab.name} 10.77.{lab.subnet.index}.0/24 in {lab.directory}")
    for host in [*lab.hosts(), *lab.vms()]:
        print(_describe(host))
    if registry.running:
        print(f"registry  {registry.url}  (mirror of docker.io: library/*)")
        login = f"{registry.username}/{registry.password}"
        print(f"registry  https://{registry.tls}  user {login}, CA {registry.ca}")
    print(f"ssh key   {lab.key}  (users root, debian)")


def _up(settings: Settings, name: str, hosts: str, vms: list[str], *, with_registry: bool) -> None:
    wanted = _parse_hosts(hosts)
    begin = time.monotonic()
    lab = labs.open_lab(settings, name)
    with ThreadPoolExecutor(8) as pool:
        jobs: list[Future[Host]] = [pool.submit(lab.host, *one) for one in wanted]
        jobs += [pool.submit(lab.vm, vm) for vm in vms]
        registry = pool.submit(lab.registry) if with_registry else None
        for job in jobs:
            job.result()
        if registry is not None:
            registry.result()
    _show(lab)
    print(f"up after {time.monotonic() - begin:.1f} s")


def _cache(settings: Settings) -> None:
    lab = labs.Lab(settings, labs.LabRecord("none", 0, None))
    jobs = [lab.docker_cli, lab.engine, lambda: program(lab.debian), ImageBuilder(lab.debian).store]
    jobs += [VmImages(lab.debian).image, VmImages(lab.debian).emulator]
    jobs += [CloudImages(lab.debian).image, lambda: libvirtd_layer(lab)]
    jobs += [lambda: virtualbox.tree(lab.debian.cache)]
    settings.cache.mkdir(parents=True, exist_ok=True)
    roots = HostRoots(lab.debian)
    with ThreadPoolExecutor(6) as pool:
        done = [pool.submit(job) for job in jobs]
        done += [pool.submit(roots.layers, v, "full") for v in ("systemd", "plain")]  # type: ignore[arg-type]
        for one in done:
            one.result()


def _list(settings: Settings) -> None:
    for record in labs.known_labs(settings):
        _show(labs.existing_lab(settings, record.name))


def _value(lab: labs.Lab, what: str, host: str) -> str:
    """One value for a script."""
    if what == "ip":
        return lab.find(host).ip
    registry = Registry(lab.directory / "registry", lab.subnet)
    return {"key": str(lab.key), "registry": registry.url, "ca": str(registry.ca)}[what]


def _replace_by(argv: list[str]) -> None:
    sys.stdout.flush()
    os.execvp(argv[0], argv)


def _on_host(settings: Settings, arguments: argparse.Namespace) -> None:
    host = labs.existing_lab(settings, arguments.name).find(arguments.host)
    verb = arguments.verb
    if verb == "ssh":
        _replace_by([*host.ssh_argv(arguments.user), *arguments.command])
    elif verb == "exec":
        _replace_by(host.inside_argv(arguments.command or ["/bin/bash", "-l"]))
    elif verb == "stop":
        host.stop()
    elif verb == "start":
        host.start()
    elif verb == "console":
        print(host.console(), end="")
    else:
        host.destroy()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab", description="Real SSH hosts and a registry", epilog=_EPILOG
    )
    parser.add_argument("--name", default="lab", help="which lab (several can be up); default: lab")
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="start it, or what is missing of it")
    up.add_argument("--hosts", default="a:systemd,b:plain")
    up.add_argument("--vms", default="", help="names of virtual machines (cgroup v2), v1,v2,...")
    up.add_argument("--no-registry", action="store_true")
    verbs.add_parser("list", help="all labs, their hosts and registries")
    verbs.add_parser("down", help="remove every trace of it")
    verbs.add_parser("cache", help="build what is not in the cache yet")
    verbs.add_parser("prune", help="remove labs whose owner processes died")
    show = verbs.add_parser("show", help="print one value, for scripts")
    show.add_argument("what", choices=("ip", "key", "registry", "ca"))
    show.add_argument("host", nargs="?", default="")
    for verb, text in (
        ("ssh", "log in, or run a command"),
        ("exec", "run a command inside without SSH"),
        ("stop", "cut a host's power"),
        ("start", "switch a host on"),
        ("console", "what a host printed"),
        ("destroy", "remove a host"),
    ):
        one = verbs.add_parser(verb, help=text)
        one.add_argument("host")
        if verb == "ssh":
            one.add_argument("-l", "--user", default="root")
        if verb in ("ssh", "exec"):
            one.add_argument("command", nargs=argparse.REMAINDER)
    return parser


def main() -> int:
    """Do one command; the exit status."""
    arguments = _parser().parse_args()
    settings = from_environment(os.environ)
    try:
        if arguments.verb == "up":
            registry = not arguments.no_registry
            vms = [name for name in arguments.vms.split(",") if name]
            _up(settings, arguments.name, arguments.hosts, vms, with_registry=registry)
        elif arguments.verb == "list":
            _list(settings)
        elif arguments.verb == "down":
            labs.remove(settings, arguments.name)
        elif arguments.verb == "cache":
            _cache(settings)
        elif arguments.verb == "show":
            lab = labs.existing_lab(settings, arguments.name)
            print(_value(lab, arguments.what, arguments.host))
        elif arguments.verb == "prune":
            for name in labs.remove_stale(settings):
                print(f"removed {name}, whose process died")
        else:
            _on_host(settings, arguments)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
