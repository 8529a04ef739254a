"""The tar headers of layers: `agent.host.tarheader`, by the name that this package knows it by."""

from agent.host.tarheader import (
    BLOCK,
    BLOCK_DEVICE,
    CHAR,
    DIRECTORY,
    FIFO,
    HARD,
    REGULAR,
    SYMLINK,
    Entry,
    Headers,
    Runs,
    TarError,
    padded,
)

__all__ = [
    "BLOCK",
    "BLOCK_DEVICE",
    "CHAR",
    "DIRECTORY",
    "FIFO",
    "HARD",
    "REGULAR",
    "SYMLINK",
    "Entry",
    "Headers",
    "Runs",
    "TarError",
    "padded",
]
