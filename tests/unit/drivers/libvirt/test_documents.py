"""libvirt's documents, written and read back."""

import ipaddress
import xml.etree.ElementTree as ET

import pytest

from drivers.errors import DriverError
from drivers.libvirt import documents, plan
from drivers.libvirt.documents import Disk, Guest, Tag

MACHINE = "0f8fad5b-d9cb-469f-a165-70867728950e"
GUEST = Guest(
    uuid=MACHINE,
    name='we<b>&"1"',
    kvm=False,
    arch="x86_64",
    cpus=2,
    memory=768,
    uefi=False,
    disks=(Disk("/p/disk.qcow2", "qcow2", 0), Disk("/p/seed.iso", "raw", 1, read_only=True)),
    mac="52:54:00:01:02:03",
    network="machine",
    bridge="",
    console="/p/console.log",
)
TAG = Tag(MACHINE, "machine", "machine-base-1.img", "machine")


def domain(**changes: object) -> ET.Element:
    values = {name: getattr(GUEST, name) for name in GUEST.__dataclass_fields__} | changes
    return ET.fromstring(documents.domain(Guest(**values), TAG))


def one(top: ET.Element, path: str) -> ET.Element:
    found = top.find(path)
    assert found is not None, path
    return found


def test_names_cannot_change_the_document() -> None:
    top = domain()
    assert top.findtext("name") == 'we<b>&"1"'
    assert len(list(top)) == len(list(domain(name="web")))


def test_emulated_and_accelerated_guests() -> None:
    slow, fast = domain(), domain(kvm=True)
    assert slow.get("type") == "qemu"
    assert one(slow, "features/tcg/tb-cache").text == "256"
    assert one(slow, "cpu").get("mode") == "maximum"
    assert fast.get("type") == "kvm"
    assert fast.find("features/tcg") is None
    assert one(fast, "cpu").get("mode") == "host-passthrough"


def test_firmware_and_machine_by_architecture() -> None:
    bios, uefi, arm = domain(), domain(uefi=True), domain(arch="aarch64")
    assert one(bios, "os").get("firmware") is None
    assert one(bios, "os/type").get("machine") == "q35"
    assert one(uefi, "os").get("firmware") == "efi"
    assert one(uefi, "os/firmware/feature").get("enabled") == "no"
    assert one(arm, "os/type").get("machine") == "virt"
    assert one(arm, "os").get("firmware") == "efi"


def test_disks_are_virtio_in_their_order_and_the_first_boots() -> None:
    disk, seed = domain().findall("devices/disk")
    assert one(disk, "target").attrib == {"dev": "vda", "bus": "virtio"}
    assert one(disk, "boot").get("order") == "1"
    assert disk.find("readonly") is None
    assert one(seed, "target").get("dev") == "vdb"
    assert seed.find("readonly") is not None
    assert seed.find("boot") is None


def test_a_network_or_a_bridge() -> None:
    card = one(domain(), "devices/interface")
    assert (card.get("type"), one(card, "source").attrib) == ("network", {"network": "machine"})
    card = one(domain(bridge="br0"), "devices/interface")
    assert (card.get("type"), one(card, "source").attrib) == ("bridge", {"bridge": "br0"})
    assert one(card, "mac").get("address") == GUEST.mac


@pytest.mark.parametrize("kind", ["virtiofs", "9p"])
def test_shared_folders(kind: str) -> None:
    share = plan.share("/srv:/mnt")
    top = domain(shares=(share,), share_type=kind)
    folder = one(top, "devices/filesystem")
    assert one(folder, "source").get("dir") == "/srv"
    assert one(folder, "target").get("dir") == share.tag
    # virtiofsd sees the guest's memory
    assert (top.find("memoryBacking") is not None) is (kind == "virtiofs")
    assert (folder.find("driver") is not None) is (kind == "virtiofs")


def test_the_tag_is_read_back_and_others_have_none() -> None:
    assert documents.tag_of(documents.domain(GUEST, TAG)) == TAG
    assert documents.tag_of("<domain><name>x</name></domain>") is None
    foreign = '<domain><metadata><x:y xmlns:x="urn:other" uuid="1"/></metadata></domain>'
    assert documents.tag_of(foreign) is None


def test_case_160_a_tag_in_another_domain_is_not_ours() -> None:
    document = documents.domain(GUEST, TAG)
    other = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
    copied = document.replace(f"<uuid>{GUEST.uuid}</uuid>", f"<uuid>{other}</uuid>")
    assert copied != document
    assert documents.tag_of(copied) is None


def test_who_uses_a_network() -> None:
    document = documents.domain(GUEST, TAG)
    assert documents.uses_network(document, "machine")
    assert not documents.uses_network(document, "default")


def test_resize_changes_numbers_and_nothing_else() -> None:
    before = (
        "<domain><name>x</name><memory unit='KiB'>786432</memory><currentMemory unit='KiB'>786432"
        "</currentMemory><vcpu placement='static' current='1'>2</vcpu></domain>"
    )
    top = ET.fromstring(documents.resized(before, 4, 1024))
    assert (top.findtext("vcpu"), top.findtext("memory")) == ("4", "1024")
    assert one(top, "memory").get("unit") == "MiB"
    assert top.find("currentMemory") is None
    assert one(top, "vcpu").get("current") is None
    same = ET.fromstring(documents.resized(before, 0, 0))
    assert (same.findtext("vcpu"), same.findtext("currentMemory")) == ("2", "786432")
    with pytest.raises(DriverError, match="no vcpu"):
        documents.resized("<domain/>", 1, 0)


def test_a_network_has_its_subnet_and_is_read_back() -> None:
    subnet = ipaddress.IPv4Network("192.168.150.0/24")
    document = documents.network("machine", plan.NETWORK_UUID, "virbr-machine", subnet)
    assert documents.subnets_of([document]) == [subnet]
    dhcp = one(ET.fromstring(document), "ip/dhcp/range")
    assert dhcp.attrib == {"start": "192.168.150.2", "end": "192.168.150.254"}
    masks = "<network><ip address='10.1.2.3' netmask='255.255.0.0'/><ip family='ipv6' address='fd00::1'/></network>"
    assert documents.subnets_of([masks]) == [ipaddress.IPv4Network("10.1.0.0/16")]


def test_volumes_are_private_and_may_be_differences() -> None:
    top = ET.fromstring(documents.storage("d.qcow2", 1 << 30, "qcow2", ("/p/base", "raw")))
    assert top.findtext("capacity") == str(1 << 30)
    assert top.findtext("target/permissions/mode") == "0600"
    assert top.findtext("backingStore/path") == "/p/base"
    assert one(top, "backingStore/format").get("type") == "raw"
    assert ET.fromstring(documents.storage("s", 1, "raw")).find("backingStore") is None


def test_snapshots_of_one_second_are_ordered_by_their_parents() -> None:
    def shot(name: str, time: int, parent: str) -> str:
        above = f"<parent><name>{parent}</name></parent>" if parent else ""
        return f"<domainsnapshot><name>{name}</name><creationTime>{time}</creationTime>{above}</domainsnapshot>"

    rows = [shot("c", 7, "b"), shot("b", 7, "z"), shot("z", 7, ""), shot("a", 9, "z")]
    assert documents.oldest_first(rows) == ["z", "b", "c", "a"]
    assert documents.oldest_first([shot("x", 1, "y"), shot("y", 1, "x")]) == ["x", "y"]


CAPABILITIES = """<capabilities><host><cpu><arch>x86_64</arch></cpu></host>
<guest><arch name='i686'><domain type='qemu'/><domain type='kvm'/></arch></guest>
<guest><arch name='x86_64'><domain type='qemu'/>{}</arch></guest></capabilities>"""


@pytest.mark.parametrize(("more", "offered"), [("", False), ("<domain type='kvm'/>", True)])
def test_what_the_host_offers(more: str, offered: bool) -> None:
    assert documents.host_of(CAPABILITIES.format(more)) == ("x86_64", offered)


def test_documents_with_entities_are_not_read() -> None:
    bomb = '<!DOCTYPE d [<!ENTITY a "aaaa">]><domain><name>&a;</name></domain>'
    with pytest.raises(DriverError, match="entities"):
        documents.text_of(bomb, "name")
    with pytest.raises(DriverError, match="can't be read"):
        documents.text_of("<domain>", "name")
