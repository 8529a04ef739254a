"""The one door to nftables: libnftables in this process (0.1 ms), else the `nft` program (3 ms)."""

from __future__ import annotations

import ctypes
import threading
from typing import Protocol

from agent.host import process

_LIBRARY = "libnftables.so.1"


class NftError(Exception):
    """A transaction was refused: nothing of it was done.  The text is libnftables'."""


class Nft(Protocol):
    """Runs rule text.  Each call is one transaction: all of it or nothing."""

    def run(self, text: str) -> str:
        """Return what `list` commands printed.  Raises NftError.  Any thread may call."""
        ...

    def close(self) -> None: ...


class LibraryNft:
    """One libnftables context, reused: a fresh one a command costs 17.9 ms instead of 0.24.

    The context belongs to the network namespace of the thread that makes it.  OSError when the
    library is not there.
    """

    def __init__(self, library: str = _LIBRARY) -> None:
        self._lib = ctypes.CDLL(library)
        self._lib.nft_ctx_new.restype = ctypes.c_void_p
        self._lib.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
        self._lib.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        for name in (
            "free",
            "buffer_output",
            "buffer_error",
            "get_output_buffer",
            "get_error_buffer",
        ):
            getattr(self._lib, f"nft_ctx_{name}").argtypes = [ctypes.c_void_p]
        self._lib.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._lock = threading.Lock()
        self._context: int | None = self._lib.nft_ctx_new(0)
        if not self._context:
            raise OSError("nft_ctx_new failed")
        self._lib.nft_ctx_buffer_output(self._context)
        self._lib.nft_ctx_buffer_error(self._context)

    def run(self, text: str) -> str:
        with self._lock:
            if self._context is None:
                raise NftError("closed")
            failed = self._lib.nft_run_cmd_from_buffer(self._context, text.encode())
            output: bytes = self._lib.nft_ctx_get_output_buffer(self._context) or b""
            errors: bytes = self._lib.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            raise NftError(errors.decode("utf-8", "backslashreplace").strip() or "nft failed")
        return output.decode("utf-8", "backslashreplace")

    def close(self) -> None:
        with self._lock:
            if self._context is not None:
                self._lib.nft_ctx_free(self._context)
                self._context = None


class ProgramNft:
    """`nft -f -`, for hosts without the library."""

    def run(self, text: str) -> str:
        try:
            done = process.run(["nft", "-f", "-"], stdin=text.encode(), timeout=30)
        except (process.ProcessError, OSError) as error:
            raise NftError(str(error)) from error
        return done.stdout.decode("utf-8", "backslashreplace")

    def close(self) -> None:
        """Nothing is kept open."""


def open_nft() -> Nft:
    """The library where it can be loaded, else the program."""
    try:
        return LibraryNft()
    except OSError:
        return ProgramNft()
