"""Inflating layers: `agent.host.decompress`, by the name that this package knows it by."""

from agent.host.decompress import (
    PIECE,
    Codec,
    DecompressError,
    Inflater,
    Read,
    gunzip,
    gzip_codec,
    load_zstd,
    sniff,
    unzstd,
)

__all__ = [
    "PIECE",
    "Codec",
    "DecompressError",
    "Inflater",
    "Read",
    "gunzip",
    "gzip_codec",
    "load_zstd",
    "sniff",
    "unzstd",
]
