"""Does KVM work here? Not whether /dev/kvm exists: in nested or restricted places it opens, and then hangs.

A child runs one instruction (hlt) on a virtual CPU; the runner's deadline ends it if the kernel
never comes back from there.
"""

from __future__ import annotations

import sys
from typing import Final

from drivers.api import Runner
from drivers.errors import DriverError

SECONDS: Final = 5.0
DEVICE: Final = "/dev/kvm"
_HALTED: Final = "halted"
# Documentation/virt/kvm/api.rst: a page of memory that holds F4, real mode from address 0, and run.
PROBE: Final = """
import ctypes, fcntl, mmap, os, struct, sys
device = os.open(sys.argv[1], os.O_RDWR)
vm = fcntl.ioctl(device, 0xAE01, 0)
memory = mmap.mmap(-1, 8192)
memory[0] = 0xF4
at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
fcntl.ioctl(vm, 0x4020AE46, struct.pack("<IIQQQ", 0, 0, 0, 8192, at))
cpu = fcntl.ioctl(vm, 0xAE41, 0)
state = mmap.mmap(cpu, fcntl.ioctl(device, 0xAE04, 0))
special = bytearray(312)
fcntl.ioctl(cpu, 0x8138AE83, special)
special[0:8], special[12:14] = bytes(8), bytes(2)
fcntl.ioctl(cpu, 0x4138AE84, bytes(special))
fcntl.ioctl(cpu, 0x4090AE82, struct.pack("<18Q", *[0] * 17, 2))
fcntl.ioctl(cpu, 0xAE80, 0)
print("halted" if struct.unpack_from("<I", state, 8)[0] == 5 else "no halt")
"""


def why_not(runner: Runner, arch: str, device: str = DEVICE) -> str:
    """ "" when a virtual CPU of this computer runs, else the reason why not, for a note.

    For x86_64 only is an instruction run; elsewhere libvirt's word is taken.
    """
    if arch != "x86_64":
        return ""
    try:
        done = runner.run([sys.executable, "-I", "-c", PROBE, device], timeout=SECONDS)
    except DriverError:  # its text would show the whole probe
        return f"{device} gave no answer within {SECONDS:.0f} s"
    if done.status != 0:
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"the probe ended with status {done.status}"
    return "" if done.stdout.strip() == _HALTED else "the virtual CPU did not stop as it should"
