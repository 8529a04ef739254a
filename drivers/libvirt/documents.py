"""libvirt's XML documents, written from values and read back. Pure; formatdomain.html and its sisters."""

from __future__ import annotations

import dataclasses
import ipaddress
import string
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from typing import Final

from drivers.errors import DriverError
from drivers.libvirt.plan import Share

NAMESPACE: Final = "https://machine.invalid/libvirt/1"
_TAG: Final = f"{{{NAMESPACE}}}machine"
ET.register_namespace("machine", NAMESPACE)
_MACHINES: Final = {"x86_64": "q35", "aarch64": "virt"}


@dataclasses.dataclass(frozen=True, slots=True)
class Disk:
    """A volume as the guest's disk number `index`: 0 is vda."""

    path: str
    format: str
    index: int
    read_only: bool = False

    @property
    def device(self) -> str:
        return f"vd{string.ascii_lowercase[self.index]}"


@dataclasses.dataclass(frozen=True, slots=True)
class Guest:
    """Everything that a domain's document says."""

    uuid: str
    name: str
    kvm: bool
    arch: str
    cpus: int
    memory: int  # MiB
    uefi: bool
    disks: tuple[Disk, ...]
    mac: str
    network: str  # or bridge
    bridge: str
    console: str  # path of the log of the serial line
    shares: tuple[Share, ...] = ()
    share_type: str = "virtiofs"


@dataclasses.dataclass(frozen=True, slots=True)
class Tag:
    """What a domain of ours says of itself: whose it is, and what it uses that others may use too."""

    uuid: str
    pool: str
    base: str
    network: str  # "" with a bridge


def domain(guest: Guest, tag: Tag) -> str:
    top = ET.Element("domain", type="kvm" if guest.kvm else "qemu")
    _text(top, "name", guest.name)
    _text(top, "uuid", guest.uuid)
    ET.SubElement(
        ET.SubElement(top, "metadata"), _TAG,
        {"uuid": tag.uuid, "pool": tag.pool, "base": tag.base, "network": tag.network},
    )  # fmt: skip
    _text(top, "memory", str(guest.memory), unit="MiB")
    _text(top, "vcpu", str(guest.cpus))
    if guest.shares and guest.share_type == "virtiofs":
        backing = ET.SubElement(top, "memoryBacking")
        ET.SubElement(backing, "source", type="memfd")
        ET.SubElement(backing, "access", mode="shared")
    _hardware(top, guest)
    _text(top, "on_poweroff", "destroy")
    _text(top, "on_reboot", "restart")
    _text(top, "on_crash", "destroy")
    devices = ET.SubElement(top, "devices")
    for disk in guest.disks:
        _disk(devices, disk)
    _card(devices, guest)
    for one in guest.shares:
        _folder(devices, one, guest.share_type)
    serial = ET.SubElement(devices, "serial", type="pty")
    ET.SubElement(serial, "log", file=guest.console, append="on")
    channel = ET.SubElement(devices, "channel", type="unix")
    ET.SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    rng = ET.SubElement(devices, "rng", model="virtio")
    _text(rng, "backend", "/dev/urandom", model="random")
    ET.SubElement(devices, "memballoon", model="virtio")
    return ET.tostring(top, encoding="unicode")


def resized(document: str, cpus: int, memory: int) -> str:
    """A domain's document with other numbers; 0 leaves as it is."""
    top = _parsed(document)
    if cpus:
        for old in top.findall("vcpus"):
            top.remove(old)
        node = _needed(top, "vcpu")
        node.text = str(cpus)
        node.attrib.pop("current", None)
    if memory:
        for old in top.findall("currentMemory"):
            top.remove(old)
        node = _needed(top, "memory")
        node.text, node.attrib["unit"] = str(memory), "MiB"
    return ET.tostring(top, encoding="unicode")


def network(name: str, uuid: str, bridge: str, subnet: ipaddress.IPv4Network) -> str:
    """A NAT network with DHCP; its first address is the hypervisor's."""
    first, *_ = hosts = list(subnet.hosts())
    top = ET.Element("network")
    _text(top, "name", name)
    _text(top, "uuid", uuid)
    ET.SubElement(top, "forward", mode="nat")
    ET.SubElement(top, "bridge", name=bridge, stp="on", delay="0")
    ip = ET.SubElement(top, "ip", address=str(first), prefix=str(subnet.prefixlen))
    dhcp = ET.SubElement(ip, "dhcp")
    ET.SubElement(dhcp, "range", start=str(hosts[1]), end=str(hosts[-1]))
    return ET.tostring(top, encoding="unicode")


def pool(name: str, uuid: str, folder: str) -> str:
    top = ET.Element("pool", type="dir")
    _text(top, "name", name)
    _text(top, "uuid", uuid)
    target = ET.SubElement(top, "target")
    _text(target, "path", folder)
    _text(ET.SubElement(target, "permissions"), "mode", "0711")
    return ET.tostring(top, encoding="unicode")


def storage(name: str, size: int, kind: str, backing: tuple[str, str] = ("", "")) -> str:
    """A volume of `size` bytes, nothing of it allocated; `backing` is (path, format)."""
    top = ET.Element("volume", type="file")
    _text(top, "name", name)
    _text(top, "capacity", str(size), unit="bytes")
    _text(top, "allocation", "0", unit="bytes")
    target = ET.SubElement(top, "target")
    ET.SubElement(target, "format", type=kind)
    # the seed holds the machine's private keys
    _text(ET.SubElement(target, "permissions"), "mode", "0600")
    if kind == "qcow2":
        _text(target, "compat", "1.1")
    if backing[0]:
        store = ET.SubElement(top, "backingStore")
        _text(store, "path", backing[0])
        ET.SubElement(store, "format", type=backing[1])
    return ET.tostring(top, encoding="unicode")


def snapshot(label: str) -> str:
    top = ET.Element("domainsnapshot")
    _text(top, "name", label)
    return ET.tostring(top, encoding="unicode")


def oldest_first(snapshots: Iterable[str]) -> list[str]:
    """Names of the snapshots in these documents. Times have seconds only, so of the same second a
    parent is older than its child."""
    parents: dict[str, str] = {}
    times: dict[str, int] = {}
    for document in snapshots:
        name = text_of(document, "name")
        parents[name] = text_of(document, "parent/name")
        times[name] = int(text_of(document, "creationTime") or 0)

    def depth(name: str) -> int:
        count = 0
        while (name := parents.get(name, "")) and count < len(parents):
            count += 1
        return count

    return sorted(times, key=lambda name: (times[name], depth(name), name))


def tag_of(document: str) -> Tag | None:
    """Ours, in a domain's document; None in anyone else's.

    Its uuid is the domain's own: in a copy of a domain, or one that somebody has written a tag into,
    it is another's, which `gc` must not take for what the tag says.
    """
    top = _parsed(document)
    node = top.find(f"metadata/{_TAG}")
    if node is None or node.get("uuid") != top.findtext("uuid"):
        return None
    return Tag(*(node.get(field.name, "") for field in dataclasses.fields(Tag)))


def text_of(document: str, path: str) -> str:
    """The text at `path`, "" when there is none."""
    return _parsed(document).findtext(path) or ""


def attribute_of(document: str, path: str, name: str) -> str:
    node = _parsed(document).find(path)
    return node.get(name, "") if node is not None else ""


def uses_network(document: str, name: str) -> bool:
    """Whether a domain's document has a card on that network."""
    sources = _parsed(document).iterfind("devices/interface/source")
    return any(source.get("network") == name for source in sources)


def subnets_of(documents: Iterable[str]) -> list[ipaddress.IPv4Network]:
    """What the networks of these documents use."""
    found = []
    for document in documents:
        for ip in _parsed(document).iterfind("ip"):
            length = ip.get("prefix") or ip.get("netmask") or "24"
            if ip.get("family", "ipv4") == "ipv4" and ip.get("address"):
                found.append(ipaddress.IPv4Network(f"{ip.get('address')}/{length}", strict=False))
    return found


def host_of(capabilities: str) -> tuple[str, bool]:
    """(architecture of the hypervisor's host, whether libvirt offers KVM for it)."""
    top = _parsed(capabilities)
    arch = top.findtext("host/cpu/arch") or "x86_64"
    guest = next((g for g in top.iterfind("guest") if _arch(g) == arch), None)
    return arch, guest is not None and guest.find("arch/domain[@type='kvm']") is not None


def _parsed(document: str) -> ET.Element:
    """What libvirtd said. Its documents define no entities; one that does is not read."""
    if "<!DOCTYPE" in document:
        raise DriverError("libvirt's document defines entities: it is not read")
    try:
        return ET.fromstring(document)  # noqa: S314  entities are refused above
    except ET.ParseError as err:
        raise DriverError(f"libvirt's document can't be read: {err}") from err


def _arch(guest: ET.Element) -> str:
    node = guest.find("arch")
    return node.get("name", "") if node is not None else ""


def _hardware(top: ET.Element, guest: Guest) -> None:
    system = ET.SubElement(top, "os")
    if guest.uefi or guest.arch == "aarch64":
        system.set("firmware", "efi")
    _text(system, "type", "hvm", arch=guest.arch, machine=_MACHINES.get(guest.arch, "q35"))
    if guest.uefi:  # Debian's shim is signed, a user's image perhaps not
        loader = ET.SubElement(system, "firmware")
        ET.SubElement(loader, "feature", enabled="no", name="secure-boot")
    features = ET.SubElement(top, "features")
    ET.SubElement(features, "acpi")
    if guest.arch == "x86_64":
        ET.SubElement(features, "apic")
    if not guest.kvm:  # translated code: QEMU would take a quarter of this computer's memory
        tcg = ET.SubElement(features, "tcg")
        _text(tcg, "tb-cache", "256", unit="MiB")
    ET.SubElement(top, "cpu", mode="host-passthrough" if guest.kvm else "maximum")
    ET.SubElement(top, "clock", offset="utc")


def _disk(devices: ET.Element, disk: Disk) -> None:
    node = ET.SubElement(devices, "disk", type="file", device="disk")
    driver = ET.SubElement(node, "driver", name="qemu", type=disk.format)
    if not disk.read_only:
        driver.set("discard", "unmap")
    ET.SubElement(node, "source", file=disk.path)
    ET.SubElement(node, "target", dev=disk.device, bus="virtio")
    if disk.index == 0:
        ET.SubElement(node, "boot", order="1")
    if disk.read_only:
        ET.SubElement(node, "readonly")


def _card(devices: ET.Element, guest: Guest) -> None:
    kind = "bridge" if guest.bridge else "network"
    node = ET.SubElement(devices, "interface", type=kind)
    ET.SubElement(node, "mac", address=guest.mac)
    ET.SubElement(node, "source", {kind: guest.bridge or guest.network})
    ET.SubElement(node, "model", type="virtio")
    ET.SubElement(node, "rom", enabled="no")  # no PXE: it would only cost seconds


def _folder(devices: ET.Element, one: Share, kind: str) -> None:
    node = ET.SubElement(devices, "filesystem", type="mount")
    if kind == "virtiofs":
        ET.SubElement(node, "driver", type="virtiofs")
    else:
        node.set("accessmode", "mapped")
    ET.SubElement(node, "source", dir=one.folder)
    ET.SubElement(node, "target", dir=one.tag)
    if one.read_only:
        ET.SubElement(node, "readonly")


def _text(parent: ET.Element, name: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, name, attributes).text = text


def _needed(top: ET.Element, path: str) -> ET.Element:
    node = top.find(path)
    if node is None:
        raise DriverError(f"libvirt's document of the domain has no {path}")
    return node
