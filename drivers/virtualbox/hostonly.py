"""The host-only network: an adapter of this computer, a DHCP server, one fixed address a machine.

It is there where VirtualBox's kernel module is; where it can't be had, NAT with its port forwards
does. The adapter and its server belong to the computer, and stay when a machine goes.
"""

from __future__ import annotations

import contextlib
from typing import Final

from drivers.api import DriverContext
from drivers.errors import ConflictError, DriverError, GoneError, InvalidError
from drivers.virtualbox import plan, texts
from drivers.virtualbox.program import VBoxManage

CARD: Final = "2"
NETWORK: Final = "HostInterfaceNetworking-"  # VirtualBox's name of an adapter's network begins so


def attach(ctx: DriverContext, box: VBoxManage) -> str:
    """Give the machine, which is off, its second card; its address, "" when DHCP is not ours.

    Raises DriverError with the reason when there is no host-only network to be had.
    """
    cidr = ctx.text("hostonly-cidr")
    adapter = _adapter(box, cidr)
    address = ""
    if not ctx.flag("hostonly-no-dhcp"):
        _serve(box, adapter, cidr)
        address = _fixed(ctx, box, adapter, cidr)
    box.modify(
        f"--nic{CARD}", "hostonly",
        f"--nictype{CARD}", ctx.text("hostonly-nictype"),
        f"--nicpromisc{CARD}", ctx.text("hostonly-nicpromisc"),
        f"--host-only-adapter{CARD}", adapter.name,
        f"--cableconnected{CARD}", "on",
    )  # fmt: skip
    return address


def known(ctx: DriverContext, box: VBoxManage) -> str:
    """The address that the machine was given before; "" when it has none."""
    return _reserved(ctx, box)[1]


def detach(ctx: DriverContext, box: VBoxManage) -> None:
    """Let the machine's address go again, while the machine is still registered."""
    network, _ = _reserved(ctx, box)
    if network:
        with contextlib.suppress(GoneError, InvalidError):  # no such server or entry any more
            box.again("dhcpserver", "modify", f"--network={network}", f"--vm={ctx.uuid}",
                      f"--nic={CARD}", "--remove-config")  # fmt: skip


def _reserved(ctx: DriverContext, box: VBoxManage) -> tuple[str, str]:
    """(network, address) of this machine; ("", "") when there is none."""
    return texts.fixed_addresses(box.again("list", "dhcpservers")).get(ctx.uuid, ("", ""))


def _adapter(box: VBoxManage, cidr: str) -> texts.HostOnly:
    have = texts.host_only(box.again("list", "hostonlyifs"))
    found = plan.adapter(have, cidr)
    if found:
        return found
    name = texts.created_interface(box.run("hostonlyif", "create"))
    if not name:
        raise DriverError("VirtualBox made a host-only adapter without telling its name")
    address, _, _ = cidr.partition("/")
    _, netmask, _, _ = plan.pool(cidr)
    try:
        box.again("hostonlyif", "ipconfig", name, f"--ip={address}", f"--netmask={netmask}")
    except DriverError:
        box.again("hostonlyif", "remove", name)  # ours, made a moment ago, and of no use
        raise
    return texts.HostOnly(name, address, netmask, f"{NETWORK}{name}", dhcp=False)


def _serve(box: VBoxManage, adapter: texts.HostOnly, cidr: str) -> None:
    """A DHCP server for the adapter, unless it has one."""
    servers = texts.records(box.again("list", "dhcpservers"), "NetworkName")
    if any(row["NetworkName"] == adapter.network for row in servers):
        return
    server, netmask, first, last = plan.pool(cidr)
    try:
        box.again(
            "dhcpserver", "add", f"--network={adapter.network}", f"--server-ip={server}",
            f"--netmask={netmask}", f"--lower-ip={first}", f"--upper-ip={last}", "--enable",
        )  # fmt: skip
    except ConflictError:
        return


def _fixed(ctx: DriverContext, box: VBoxManage, adapter: texts.HostOnly, cidr: str) -> str:
    """An address that is the machine's for good: known before it boots, the same at every boot."""
    taken = texts.fixed_addresses(box.again("list", "dhcpservers"))
    if taken.get(ctx.uuid, ("", ""))[0] == adapter.network:
        return taken[ctx.uuid][1]
    address = plan.fixed_address(cidr, ctx.uuid, [one for _, one in taken.values()])
    box.again("dhcpserver", "modify", f"--network={adapter.network}", f"--vm={ctx.uuid}",
              f"--nic={CARD}", f"--fixed-address={address}")  # fmt: skip
    return address
