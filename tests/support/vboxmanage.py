"""A VBoxManage in memory, with host-only networks: answers as 7.2 gives them, Debian's warning first.

It knows what the driver uses and nothing else, and refuses what VirtualBox refuses. The files that
VirtualBox would write are written.
"""

import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from drivers.api import Completed

WARNING = """WARNING: The character device /dev/vboxdrv does not exist.
\t Please install the virtualbox-dkms package and the appropriate
\t headers, most likely linux-headers-amd64.

\t You will not be able to start VMs until this problem is fixed.
"""
PROGRESS = "0%...10%...20%...30%...40%...50%...60%...70%...80%...90%...100%\n"


class RefusedError(Exception):
    """VBoxManage's error text."""


@dataclass
class Machine:
    """A registered virtual machine."""

    name: str
    folder: Path
    state: str = "poweroff"
    values: dict[str, str] = field(default_factory=dict)
    forwards: dict[str, str] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)
    snapshots: list[tuple[str, str, str, str]] = field(
        default_factory=list
    )  # name, id, mark, state


class FakeVBoxManage:
    """drivers.api.Runner. `no_hostonly`: as without the kernel module."""

    def __init__(self, *, no_hostonly: bool = False) -> None:
        self.machines: dict[str, Machine] = {}
        self.disks: dict[str, list[str]] = {}  # path -> [id, MiB]; in VirtualBox's list
        self.discs: dict[str, str] = {}
        self.adapters: dict[str, tuple[str, str]] = {}
        self.servers: dict[str, dict[str, str]] = {}  # network -> uuid -> fixed address
        self.calls: list[list[str]] = []
        self._no_hostonly = no_hostonly

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        assert argv[0] == "VBoxManage"
        assert not stdin
        assert timeout > 0
        self.calls.append(list(argv[1:]))
        verb = "version" if argv[1] == "--version" else argv[1]
        try:
            return Completed(0, WARNING + getattr(self, f"_{verb}")(*argv[2:]))
        except RefusedError as err:
            rows = "".join(f"VBoxManage: error: {line}\n" for line in str(err).splitlines())
            return Completed(1, WARNING, rows)

    def _machine(self, ident: str) -> Machine:
        if ident not in self.machines:
            raise RefusedError(
                f"Could not find a registered machine with UUID {{{ident}}}\nDetails: code "
                "VBOX_E_OBJECT_NOT_FOUND (0x80bb0001), component VirtualBoxWrap"
            )
        return self.machines[ident]

    def _off(self, ident: str) -> Machine:
        machine = self._machine(ident)
        if machine.state not in {"poweroff", "saved"}:
            raise RefusedError(f"The machine '{machine.name}' is already locked for a session")
        return machine

    def _version(self) -> str:
        return "7.2.22_Debianr175245\n"

    def _list(self, what: str) -> str:
        if what == "vms":
            return "".join(f'"{m.name}" {{{ident}}}\n' for ident, m in self.machines.items())
        if what == "hdds":
            rows = [(i[0], path) for path, i in self.disks.items()]
        elif what == "dvds":
            rows = [(ident, path) for path, ident in self.discs.items()]
        elif what == "hostonlyifs":
            return "".join(
                f"Name:            {n}\nDHCP:            Disabled\nIPAddress:       {ip}\n"
                f"NetworkMask:     {mask}\nVBoxNetworkName: HostInterfaceNetworking-{n}\n\n"
                for n, (ip, mask) in self.adapters.items()
            )
        elif what == "dhcpservers":
            return "".join(self._server(name) for name in self.servers)
        else:
            assert what == "hostinfo"
            return "Processor supports HW virtualization: yes\n"
        return "".join(
            f"UUID:           {ident}\nState:          created\nLocation:       {path}\n\n"
            for ident, path in rows
        )

    def _server(self, name: str) -> str:
        fixed = "".join(
            f"Individual Config:    VM NIC: {ident} slot 1, MAC 08:00:27:f0:6e:50\n"
            f"    Fixed Address:    {address}\n"
            for ident, address in self.servers[name].items()
        )
        return f"NetworkName:    {name}\nDhcpd IP:       192.168.56.2\n{fixed}"

    def _createvm(self, *argv: str) -> str:
        told = _options(argv)
        folder = Path(told["basefolder"]) / told["name"]
        if (folder / "settings.vbox").exists() or told["uuid"] in self.machines:
            raise RefusedError(f"Machine settings file '{folder}/settings.vbox' already exists")
        folder.mkdir(parents=True)
        (folder / "settings.vbox").write_text("<xml>")
        self.machines[told["uuid"]] = Machine(told["name"], folder)
        return f"Virtual machine '{told['name']}' is created and registered.\n"

    def _modifyvm(self, ident: str, *argv: str) -> str:
        machine = self._off(ident)
        rest = list(argv)
        while rest:
            name = rest.pop(0).removeprefix("--")
            if name == "natpf1":
                self._forward(machine, rest)
            elif name in {"uart1", "uartmode1"}:
                machine.values[name] = f"{rest.pop(0)},{rest.pop(0)}"
            else:
                machine.values[name] = rest.pop(0)
        return ""

    def _forward(self, machine: Machine, rest: list[str]) -> None:
        rule = rest.pop(0)
        if rule == "delete":
            if machine.forwards.pop(rest.pop(0), None) is None:
                raise RefusedError(
                    "Code NS_ERROR_INVALID_ARG (0x80070057) - Invalid argument value"
                )
            return
        if rule.split(",")[0] in machine.forwards:
            raise RefusedError("A NAT rule of this name already exists")
        machine.forwards[rule.split(",")[0]] = rule

    def _showvminfo(self, ident: str, form: str) -> str:
        assert form == "--machinereadable"
        machine = self._machine(ident)
        rows = {"name": machine.name, "UUID": ident, "VMState": machine.state, **machine.values}
        if "host-only-adapter2" in machine.values and machine.values["nic2"] == "hostonly":
            rows["hostonlyadapter2"] = machine.values["host-only-adapter2"]
        if machine.state in {"running", "paused"}:
            rows["SessionName"] = "headless"
        rows |= {f"Forwarding({i})": rule for i, rule in enumerate(machine.forwards.values())}
        for number, (label, mark, where, _) in enumerate(machine.snapshots):
            tail = "-1" * number
            rows |= {f"SnapshotName{tail}": label, f"SnapshotUUID{tail}": mark}
            rows |= {f"SnapshotDescription{tail}": where}
        return "".join(f'"{k}"="{v}"\n' if "-" in k else f'{k}="{v}"\n' for k, v in rows.items())

    def _setextradata(self, ident: str, key: str, value: str) -> str:
        self._machine(ident).extra[key] = value
        return ""

    def _getextradata(self, ident: str, key: str) -> str:
        found = self._machine(ident).extra.get(key)
        return f"Value: {found}\n" if found else "No value set!\n"

    def _storagectl(self, ident: str, *argv: str) -> str:
        machine, told = self._off(ident), _options(argv)
        if machine.values.get("storagecontrollername0") == told["name"]:
            raise RefusedError(f"Storage controller named '{told['name']}' already exists")
        machine.values["storagecontrollername0"] = told["name"]
        return ""

    def _storageattach(self, ident: str, *argv: str) -> str:
        machine, told = self._off(ident), _options(argv)
        path = told["medium"]
        if not Path(path).exists():
            raise RefusedError(f"Could not find file for the medium '{path}' (VERR_FILE_NOT_FOUND)")
        machine.values[f"{told['storagectl']}-{told['port']}-{told['device']}"] = path
        if told["type"] == "hdd":
            self._opened(path)
        else:
            self.discs.setdefault(path, str(uuid.uuid4()))
        return ""

    def _opened(self, path: str) -> list[str]:
        if not Path(path).exists():
            raise RefusedError(f"Could not find file for the medium '{path}' (VERR_FILE_NOT_FOUND)")
        size = Path(path).stat().st_size >> 20
        return self.disks.setdefault(path, [str(uuid.uuid4()), str(size)])

    def _convertfromraw(self, source: str, target: str, *_: str) -> str:
        if Path(target).exists():
            raise RefusedError(f'Cannot create the disk image "{target}": VERR_ALREADY_EXISTS')
        shutil.copyfile(source, target)
        return f'Converting from raw image file="{source}" to file="{target}"...\n'

    def _clonemedium(self, kind: str, source: str, target: str, *_: str) -> str:
        assert kind == "disk"
        self._opened(source)
        self._convertfromraw(source, target)
        self._opened(target)
        return PROGRESS

    def _showmediuminfo(self, kind: str, path: str) -> str:
        assert kind == "disk"
        return f"UUID:           x\nCapacity:       {self._opened(path)[1]} MBytes\n"

    def _modifymedium(self, kind: str, path: str, *argv: str) -> str:
        assert kind == "disk"
        size = int(_options(argv)["resizebyte"]) >> 20
        disk = self._opened(path)
        if size < int(disk[1]):
            raise RefusedError("Shrinking is not yet supported\nDetails: code VBOX_E_NOT_SUPPORTED")
        disk[1] = str(size)
        return PROGRESS

    def _closemedium(self, kind: str, which: str) -> str:
        if kind == "disk":
            found = [p for p, (ident, _) in self.disks.items() if which in {p, ident}]
        else:
            found = [path for path, ident in self.discs.items() if which in {path, ident}]
        for path in found:
            (self.disks if kind == "disk" else self.discs).pop(path)
            return ""
        raise RefusedError(f"Could not find file for the medium '{which}' (VERR_FILE_NOT_FOUND)")

    def _sharedfolder(self, verb: str, ident: str, *argv: str) -> str:
        assert verb == "add"
        told = _options(argv)
        self._off(ident).values["SharedFolderNameMachineMapping1"] = told["name"]
        return ""

    def _hostonlyif(self, verb: str, *argv: str) -> str:
        if self._no_hostonly:
            raise RefusedError(
                "Failed to create the host-only adapter\nVBoxNetAdpCtl: Error while adding new "
                "interface: failed to open /dev/vboxnetctl: No such file or directory"
            )
        if verb == "create":
            name = f"vboxnet{len(self.adapters)}"
            self.adapters[name] = ("192.168.99.1", "255.255.255.0")
            return f"{PROGRESS}Interface '{name}' was successfully created\n"
        if verb == "remove":
            del self.adapters[argv[0]]
            return PROGRESS
        told = _options(argv[1:])
        if not told["ip"].startswith("192.168.5"):
            raise RefusedError("Code E_ACCESSDENIED (0x80070005) - Access denied")
        self.adapters[argv[0]] = (told["ip"], told["netmask"])
        return ""

    def _dhcpserver(self, verb: str, *argv: str) -> str:
        told = _options(argv)
        known = self.servers.get(told["network"])
        if verb == "add":
            if known is not None:
                raise RefusedError("DHCP server already exists")
            self.servers[told["network"]] = {}
            return ""
        if known is None:
            raise RefusedError("DHCP server does not exist")
        if "remove-config" in told:
            known.pop(told["vm"], None)
        else:
            known[told["vm"]] = told["fixed-address"]
        return ""

    def _startvm(self, ident: str, *_: str) -> str:
        machine = self._machine(ident)
        if machine.state not in {"poweroff", "saved"}:
            raise RefusedError(f"The machine '{machine.name}' is already locked by a session")
        machine.state = "running"
        return f'VM "{ident}" has been successfully started.\n'

    def _controlvm(self, ident: str, verb: str) -> str:
        machine = self._machine(ident)
        if machine.state not in {"running", "paused"}:
            raise RefusedError(f"Machine '{ident}' is not currently running.")
        after = {"poweroff": "poweroff", "savestate": "saved", "resume": "running"}
        machine.state = after.get(verb, "poweroff")
        return ""

    def _discardstate(self, ident: str) -> str:
        self._machine(ident).state = "poweroff"
        return ""

    def _snapshot(self, ident: str, verb: str, label: str, *argv: str) -> str:
        machine = self._machine(ident)
        if verb == "take":
            mark = _options(argv)["description"]
            machine.snapshots.append((label, str(uuid.uuid4()), mark, machine.state))
            return PROGRESS
        found = next((one for one in machine.snapshots if one[1] == label), None)
        if found is None:
            raise RefusedError(f"Could not find a snapshot named '{label}'")
        if verb == "delete":
            machine.snapshots.remove(found)
        else:
            assert verb == "restore"
            self._off(ident).state = "saved" if found[3] == "running" else "poweroff"
        return PROGRESS

    def _unregistervm(self, ident: str, *argv: str) -> str:
        machine = self._machine(ident)
        if machine.state not in {"poweroff", "saved"}:
            raise RefusedError(f"Cannot unregister the machine '{machine.name}' while it is locked")
        del self.machines[ident]
        if argv:
            for path in list(self.disks):
                if path in machine.values.values():
                    Path(path).unlink(missing_ok=True)
                    del self.disks[path]
            shutil.rmtree(machine.folder)
        return PROGRESS


def _options(argv: Sequence[str]) -> dict[str, str]:
    """`--name value` and `--name=value`; flags have ""."""
    told: dict[str, str] = {}
    rest = list(argv)
    while rest:
        name, equals, value = rest.pop(0).removeprefix("--").partition("=")
        if not equals and rest and not rest[0].startswith("--"):
            value = rest.pop(0)
        told[name] = value
    return told
