"""Go's gob encoding, in both directions (its public specification: pkg.go.dev/encoding/gob).

Values are Python's: bool, int, float, complex, bytes, str, list, dict (a struct by field name, or a
map), None (a nil interface) and `Concrete` (what an interface holds). A struct's fields that have
their type's zero value are not on the wire, so a decoded struct lacks them.
"""

from drivers.plugins.gob.decoding import Decoder, Source
from drivers.plugins.gob.encoding import Encoder
from drivers.plugins.gob.model import (
    BOOL,
    BYTES,
    COMPLEX,
    FLOAT,
    INT,
    INTERFACE,
    STRING,
    UINT,
    Array,
    Basic,
    Concrete,
    EndOfStreamError,
    GobError,
    Limits,
    Map,
    Slice,
    Struct,
    Type,
)

__all__ = [
    "BOOL",
    "BYTES",
    "COMPLEX",
    "FLOAT",
    "INT",
    "INTERFACE",
    "STRING",
    "UINT",
    "Array",
    "Basic",
    "Concrete",
    "Decoder",
    "Encoder",
    "EndOfStreamError",
    "GobError",
    "Limits",
    "Map",
    "Slice",
    "Source",
    "Struct",
    "Type",
]
