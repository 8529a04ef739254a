"""A guest in 512 bytes: says hello on its serial line, and switches itself off at the power button.

For tests of hypervisors that need a guest which reacts, at once, and nothing else. x86 real mode;
the ports are those of QEMU's q35 as SeaBIOS sets it up (ACPI 4.8.3: PM1 status at 0x600, enable at
0x602, control at 0x604).
"""

from typing import Final

HELLO: Final = b"hello from the boot sector\r\n"
_CODE: Final = bytes.fromhex(
    "31c0 8ed8"  # xor ax,ax; mov ds,ax
    "be 0000"  # mov si,text (filled in below)
    "ba f803"  # mov dx,0x3f8
    "ac"  # next: lodsb
    "84c0"  # test al,al
    "7403"  # jz button
    "ee"  # out dx,al
    "ebf8"  # jmp next
    "ba 0206"  # button: mov dx,0x602
    "b8 0001"  # mov ax,0x100 (the power button is enabled)
    "ef"  # out dx,ax
    "ba 0006"  # mov dx,0x600
    "ed"  # poll: in ax,dx
    "f6c401"  # test ah,1
    "74fa"  # jz poll
    "ba 0406"  # mov dx,0x604
    "b8 0020"  # mov ax,0x2000 (soft off)
    "ef"  # out dx,ax
    "ebfe"  # jmp $
)
_AT: Final = 0x7C00
_TEXT_OPERAND: Final = 5


def boot_sector() -> bytes:
    """The sector, to be padded to whatever size a disk needs."""
    text_at = (_AT + len(_CODE)).to_bytes(2, "little")
    code = _CODE[:_TEXT_OPERAND] + text_at + _CODE[_TEXT_OPERAND + 2 :]
    return (code + HELLO + b"\0").ljust(510, b"\0") + b"\x55\xaa"


def tiny_disk(size: int = 1 << 20) -> bytes:
    """A raw disk image that boots it."""
    return boot_sector().ljust(size, b"\0")
