"""Tiny static programs, written byte by byte: `hello-world` for two machines without a compiler."""

import struct

_BASE = 0x400000
_HEADERS = 64 + 56
_MACHINES = {"amd64": 62, "arm64": 183}


def _code(machine: str, address: int, length: int) -> bytes:
    """write(1, address, length); exit(0)."""
    if machine == "amd64":
        return (
            b"\xb8\x01\x00\x00\x00\xbf\x01\x00\x00\x00"  # mov eax, 1; mov edi, 1
             b"\xbe" + struct.pack("<I", address)  # mov esi, address
            + b"\xba" + struct.pack("<I", length)  # mov edx, length
            + b"\x0f\x05\xb8\x3c\x00\x00\x00\x31\xff\x0f\x05"  # syscall; mov eax, 60; xor edi, edi; syscall
        )  # fmt: skip

    def movz(register: int, value: int, shift: int = 0) -> int:
        return 0xD2800000 | (shift // 16) << 21 | value << 5 | register

    words = [
        movz(0, 1),
        movz(1, address & 0xFFFF),
        0xF2A00000 | (address >> 16) << 5 | 1,  # movk x1, high half, lsl 16
        movz(2, length),
        movz(8, 64),  # write
        0xD4000001,  # svc 0
        movz(0, 0),
        movz(8, 93),  # exit
        0xD4000001,
    ]
    return struct.pack(f"<{len(words)}I", *words)


def hello(machine: str, text: str) -> bytes:
    """An ELF executable for "amd64" or "arm64" that prints `text` and ends with status 0."""
    message = text.encode()
    size = len(_code(machine, _BASE, 0))
    code = _code(machine, _BASE + _HEADERS + size, len(message))
    entry = _BASE + _HEADERS
    total = _HEADERS + size + len(message)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    numbers = (2, _MACHINES[machine], 1, entry, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    header = ident + struct.pack("<HHIQQQIHHHHHH", *numbers)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, total, total, 0x1000)
    return header + segment + code + message
