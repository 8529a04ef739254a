"""The system calls that an unpack worker may make: a seccomp filter, assembled here.

What files, memory and threads of its own take; no programs, processes, sockets, mounts, namespaces,
identities, modules, keys or io_uring.  All else fails with EPERM, and a call by another architecture's
numbers ends the process.  clone3 hides its flags from a filter: ENOSYS, and libc takes clone.
Only the standard library: loaded before the worker looks at a layer.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

_LOAD, _JUMP_EQUAL, _JUMP_ABOVE, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_CLONE_THREAD = 0x00010000
_X32 = 0x40000000
_CLONE3 = 435  # the same everywhere
_SECCOMP = {"x86_64": 317, "aarch64": 277}  # the call that installs it
_SET_MODE_FILTER = 1
_SPEC_ALLOW = 4  # else kernels before 5.16 slow the process down by a mitigation it has no use for

# openat2, faccessat2, fchmodat2
_COMMON = (437, 439, 452)
# machine -> (AUDIT_ARCH_*, clone, numbers); arch/x86/entry/syscalls/syscall_64.tbl and
# include/uapi/asm-generic/unistd.h
_MACHINES: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "x86_64": (
        0xC000003E,
        56,
        (
            *(0, 1, 2, 3, 4, 5, 6, 7, 8),  # read write open close stat fstat lstat poll lseek
            *(9, 10, 11, 12, 25, 28),  # mmap mprotect munmap brk mremap madvise
            *(13, 14, 15, 131, 200, 234),  # signals of its own: rt_sig* sigaltstack tkill tgkill
            *(17, 18, 19, 20, 21),  # pread64 pwrite64 readv writev access
            *(24, 39, 186, 204, 219),  # sched_yield getpid gettid sched_getaffinity restart_syscall
            *(32, 33, 72, 292),  # dup dup2 fcntl dup3
            *(60, 231),  # exit exit_group
            *(77, 285, 82, 83, 84, 87),  # ftruncate fallocate rename mkdir rmdir unlink
            *(91, 93, 95),  # fchmod fchown umask
            *(190, 193, 196, 199),  # f{set,get,list,remove}xattr
            *(202, 218, 273, 324, 334),  # futex set_tid_address set_robust_list membarrier rseq
            *(217, 228, 230, 318, 332),  # getdents64 clock_gettime clock_nanosleep getrandom statx
            *(257, 258, 259, 260, 262, 263),  # openat mkdirat mknodat fchownat newfstatat unlinkat
            *(264, 265, 266, 267, 268, 269),  # rename link symlink readlink fchmod faccess -at
            *(271, 280, 316),  # ppoll utimensat renameat2
        ),
    ),
    "aarch64": (
        0xC00000B7,
        220,
        (
            *(7, 10, 13, 16),  # f{set,get,list,remove}xattr
            *(23, 24, 25),  # dup dup3 fcntl
            *(33, 34, 35, 36, 37, 38),  # mknod mkdir unlink symlink link rename -at
            *(46, 47, 48),  # ftruncate fallocate faccessat
            *(52, 53, 54, 55, 56, 57),  # fchmod fchmodat fchownat fchown openat close
            *(61, 62, 63, 64, 65, 66, 67, 68),  # getdents64 lseek read write readv writev p*64
            *(73, 78, 79, 80, 88),  # ppoll readlinkat newfstatat fstat utimensat
            *(93, 94, 96, 98, 99),  # exit exit_group set_tid_address futex set_robust_list
            *(113, 115, 123, 124, 128),  # clock_* sched_getaffinity sched_yield restart_syscall
            *(130, 131, 132, 134, 135, 139),  # tkill tgkill sigaltstack rt_sig*
            *(166, 172, 178),  # umask getpid gettid
            *(214, 215, 216, 222, 226, 233),  # brk munmap mremap mmap mprotect madvise
            *(276, 278, 283, 291, 293),  # renameat2 getrandom membarrier statx rseq
        ),
    ),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def program(machine: str) -> bytes:
    """The filter for a machine (uname's word) as classic BPF; b"" where none is known."""
    if machine not in _MACHINES:
        return b""
    arch, clone, numbers = _MACHINES[machine]
    allowed = sorted({*numbers, *_COMMON})
    lines = [
        (_LOAD, 0, 0, _ARCH),
        (_JUMP_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_ABOVE, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
        (_JUMP_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_JUMP_EQUAL, 0, 3, clone),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),  # its lower half, on a little-endian machine
        (_JUMP_SET, len(allowed) + 2, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]
    # From each line over the rest of them and the refusal to the last line.
    lines += [(_JUMP_EQUAL, len(allowed) - place, 0, one) for place, one in enumerate(allowed)]
    lines += [(_RETURN, 0, 0, _ERRNO | errno.EPERM), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def install(libc: ctypes.CDLL) -> None:
    """For this thread and those it starts; needs no_new_privs.  Raises OSError.

    Machines without a table (there are no others that containers are common on) go without.
    """
    machine = os.uname().machine
    raw = program(machine)
    if not raw:
        return
    held = ctypes.create_string_buffer(raw, len(raw))
    wanted = _Program(len(raw) // 8, ctypes.addressof(held))
    call, mode, flags = map(ctypes.c_long, (_SECCOMP[machine], _SET_MODE_FILTER, _SPEC_ALLOW))
    if libc.syscall(call, mode, flags, ctypes.byref(wanted)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")
