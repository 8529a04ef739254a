"""gob against the bytes of its public specification and of the real encoding/gob (vectors.json)."""

import contextlib
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.plugins import gob

VECTORS = {
    name: bytes.fromhex(text)
    for name, text in json.loads((Path(__file__).parent / "vectors.json").read_text()).items()
}
POINT = gob.Struct("Point", (("X", gob.INT), ("Y", gob.INT)))
# The example at the end of the package's documentation.
POINT_BYTES = bytes.fromhex(
    "1f ff 81 03 01 01 05 50 6f 69 6e 74 01 ff 82 00 01 02 01 01 58 01 04 00 01 01 59 01 04 00 00 00"
    "07 ff 82 01 2c 01 42 00"
)
DECODED: dict[str, list[object]] = {
    "bools": [False, True],
    "ints": [0, 3, -1, 63, 64, -129, 1 << 40, -1 << 63, (1 << 63) - 1],
    "uints": [0, 7, 127, 128, 256, (1 << 64) - 1],
    "floats": [0.0, 17.0, -1.5, 1e300],
    "complex": [1 - 2j],
    "strings": ["", "hello", "grün"],
    "bytes": [b"", b"\x00\xff"],
    "point": [{"X": 22, "Y": 33}, {}, {"Y": 5}],
    "empty struct": [{}],
    "slices": [["x", ""], [], [[1], []]],
    "array": [[True, False]],
    "map": [{"one": 1}, {}],
    "opaque": [b"stamp"],
    "nothing": [{"Array": [0, 0, 0], "Nested": {}}],
    "everything": [
        {
            "Bool": True,
            "Int": -7,
            "Uint": 9,
            "Float": 2.5,
            "Complex": 1j,
            "Bytes": b"ab",
            "String": "text",
            "Array": [0, 1, 0],
            "Nested": {"Name": "in", "Deep": [{"X": 1, "Y": 2}, {}]},
            "Map": {"k": 0},
            "Any": gob.Concrete("p.Inner", {"Name": "any"}),
            "Next": {
                "String": "next",
                "Array": [0, 0, 0],
                "Nested": {},
                "Any": gob.Concrete("[]string", ["deep"]),
            },
        }
    ],
    "anything": [
        [
            None,
            gob.Concrete("int", 1),
            gob.Concrete("string", "s"),
            gob.Concrete("bool", value=True),
            gob.Concrete("float64", 2.5),
            gob.Concrete("[]string", ["a"]),
            gob.Concrete("p.Point", {"X": 1}),
            gob.Concrete(
                "[]interface {}",
                [gob.Concrete("p.Inner", {"Name": "x", "Deep": [{"X": 3, "Y": 4}]})],
            ),
        ]
    ],
}


class Portions:
    """A source that gives at most `size` bytes at a time."""

    def __init__(self, data: bytes, size: int = 1 << 20) -> None:
        self._data, self._size = data, size

    def read(self, most: int) -> bytes:
        count = min(most, self._size)
        portion, self._data = self._data[:count], self._data[count:]
        return portion


def decoded(data: bytes, size: int = 1 << 20, limits: gob.Limits | None = None) -> list[object]:
    decoder = gob.Decoder(Portions(data, size), limits or gob.Limits())
    out: list[object] = []
    while True:
        try:
            out.append(decoder.next())
        except gob.EndOfStreamError:
            return out


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
@pytest.mark.parametrize("name", sorted(DECODED))
def test_what_go_writes(name: str, size: int) -> None:
    assert decoded(VECTORS[name], size) == DECODED[name]


@pytest.mark.parametrize(
    ("kind", "value", "data"),
    [
        (gob.INT, 3, "03 04 00 06"),
        (gob.UINT, 0, "03 06 00 00"),
        (gob.UINT, 7, "03 06 00 07"),
        (gob.UINT, 256, "05 06 00 fe 01 00"),
        (gob.INT, -129, "05 04 00 fe 01 01"),
        (gob.FLOAT, 17.0, "05 08 00 fe 31 40"),
    ],
)
def test_numbers_of_the_specification(kind: gob.Type, value: object, data: str) -> None:
    assert gob.Encoder().encode(kind, value) == bytes.fromhex(data)
    assert decoded(bytes.fromhex(data)) == [value]


def test_the_example_of_the_specification() -> None:
    encoder = gob.Encoder()
    assert encoder.encode(POINT, {"X": 22, "Y": 33}) == POINT_BYTES
    assert encoder.encode(POINT, {"X": 22, "Y": 33}) == POINT_BYTES[-8:], "a type is sent once"
    assert decoded(POINT_BYTES, 1) == [{"X": 22, "Y": 33}]


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("bools", gob.BOOL),
        ("ints", gob.INT),
        ("uints", gob.UINT),
        ("floats", gob.FLOAT),
        ("complex", gob.COMPLEX),
        ("strings", gob.STRING),
        ("bytes", gob.BYTES),
    ],
)
def test_basic_values_are_written_as_go_writes_them(name: str, kinds: gob.Type) -> None:
    encoder = gob.Encoder()
    assert b"".join(encoder.encode(kinds, value) for value in DECODED[name]) == VECTORS[name]


# -- round trips

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
BASIC: dict[gob.Basic, st.SearchStrategy[object]] = {
    gob.BOOL: st.booleans(),
    gob.INT: st.integers(-(1 << 63), (1 << 63) - 1),
    gob.UINT: st.integers(0, (1 << 64) - 1),
    gob.FLOAT: st.floats(allow_nan=False),
    gob.BYTES: st.binary(max_size=300),
    gob.STRING: TEXT,
}


def typed(kind: gob.Type) -> st.SearchStrategy[tuple[gob.Type, object]]:
    return st.tuples(st.just(kind), values(kind))


def values(kind: gob.Type) -> st.SearchStrategy[object]:
    if isinstance(kind, gob.Basic):
        return held() if kind == gob.INTERFACE else BASIC[kind]
    if isinstance(kind, gob.Slice):
        return st.lists(values(kind.element), max_size=4)
    if isinstance(kind, gob.Array):
        return st.lists(values(kind.element), min_size=kind.length, max_size=kind.length)
    if isinstance(kind, gob.Map):
        return st.dictionaries(values(kind.key), values(kind.element), max_size=3)
    return st.fixed_dictionaries({}, optional={name: values(inner) for name, inner in kind.fields})


def held() -> st.SearchStrategy[object]:
    """What an interface may hold: nothing, or some text or list under a registered name."""
    inside = typed(gob.STRING) | typed(gob.Slice(gob.STRING)) | typed(POINT)
    made = st.builds(
        lambda pair, name: gob.Concrete(name, pair[1], pair[0]), inside, st.just("p.T")
    )
    return st.none() | made


KEYS = st.sampled_from([gob.INT, gob.STRING, gob.BOOL])
KINDS: st.SearchStrategy[gob.Type] = st.recursive(
    st.sampled_from([*BASIC, gob.INTERFACE]),
    lambda inner: st.one_of(
        st.builds(gob.Slice, inner),
        st.builds(gob.Array, inner, st.integers(0, 3)),
        st.builds(gob.Map, KEYS, inner),
        st.builds(
            lambda kinds: gob.Struct("T", tuple((f"F{i}", k) for i, k in enumerate(kinds))),
            st.lists(inner, max_size=3),
        ),
    ),
    max_leaves=5,
)


def seen(kind: gob.Type, value: object) -> object:
    """A value as it comes back: without a struct's zero fields, and without types."""
    if isinstance(value, gob.Concrete):
        assert value.type is not None
        return gob.Concrete(value.name, seen(value.type, value.value))
    if isinstance(kind, gob.Struct) and isinstance(value, dict):
        return {
            name: seen(inner, value[name])
            for name, inner in kind.fields
            if name in value and not is_zero(inner, value[name])
        }
    if isinstance(kind, gob.Map) and isinstance(value, dict):
        return {key: seen(kind.element, one) for key, one in value.items()}
    if isinstance(kind, gob.Slice | gob.Array) and isinstance(value, list):
        return [seen(kind.element, one) for one in value]
    return value


def is_zero(kind: gob.Type, value: object) -> bool:
    if isinstance(kind, gob.Struct | gob.Map | gob.Array):
        return False
    return value is None if kind == gob.INTERFACE else not value


@settings(max_examples=150, deadline=None)
@given(st.lists(KINDS.flatmap(typed), min_size=1, max_size=3), st.integers(1, 50))
def test_round_trips(pairs: list[tuple[gob.Type, object]], size: int) -> None:
    encoder = gob.Encoder()
    stream = b"".join(encoder.encode(kind, value) for kind, value in pairs)
    assert decoded(stream, size) == [seen(kind, value) for kind, value in pairs]


def test_nan_and_texts_that_are_no_text_come_back() -> None:
    (number,) = decoded(gob.Encoder().encode(gob.FLOAT, math.nan))
    assert isinstance(number, float)
    assert math.isnan(number)
    raw = b"\x05\x0c\x00\x02\xff\xfe"
    (text,) = decoded(raw)
    assert gob.Encoder().encode(gob.STRING, text) == raw


# -- what is no gob


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(VECTORS)), st.data())
def test_broken_streams_end_in_a_gob_error_or_a_value(name: str, data: st.DataObject) -> None:
    stream = bytearray(VECTORS[name])
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(stream)))
    with contextlib.suppress(gob.GobError):
        decoded(bytes(stream[:cut]))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_noise_ends_in_a_gob_error_or_a_value(noise: bytes) -> None:
    with contextlib.suppress(gob.GobError):
        decoded(noise)


def test_every_cut_is_noticed() -> None:
    whole = VECTORS["everything"]
    for cut in range(1, len(whole)):
        with pytest.raises(gob.GobError):
            decoded(whole[:cut])


def nested(depth: int) -> bytes:
    """A value of a type that contains itself, `depth` deep: `type T []T`."""
    define = bytes.fromhex("0d ff81 02 01 02 ff82 00 01 ff82 00 00")
    value = b"\xff\x82\x00" + b"\x01" * depth + b"\x00"
    return define + bytes([len(value)]) + value


def test_depth_is_bounded() -> None:
    assert decoded(nested(20))
    with pytest.raises(gob.GobError, match="nested deeper than 32"):
        decoded(nested(100))


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        ("fc 7fffffff", "a message of 2147483647 bytes"),
        ("f8 ffffffffffffffff 00", "a message of"),
        ("00", "a message of 0 bytes"),
        ("80 00", "a number of 128 bytes"),
        ("03 04 00 80", "a number of 128 bytes"),
        ("02 04 01", "without its mark"),
        ("04 04 00 06 06", "more in the message"),
        ("03 ff 84 00", "type 66 is not defined"),
        ("03 20 00 00", "type 16 is not defined"),
        ("03 02 00 02", "a bool of 2"),
        ("06 0c 00 fc 0fffff", "ends behind its message"),
        ("08 0a 00 fb 00 ffff ffff", "behind its message"),
        # a slice of 2**31 strings in no bytes
        ("0c ff81 02 01 02 ff82 00 01 0c 00 00 08 ff82 00 fc 7fffffff", "elements in 0 bytes"),
        # an array of two with one element
        ("0e ff81 01 01 02 ff82 00 01 04 01 04 00 00 05 ff82 00 01 02", "an array of 2 with 1"),
        # a struct without fields, with one
        ("0a ff81 03 01 02 ff82 00 00 00 05 ff82 01 02 00", "has no field 0"),
        # a map with interfaces for keys
        ("0e ff81 04 01 02 ff82 00 01 10 01 04 00 00 06 ff82 00 01 00 00", "keys of maps"),
        # type 65 twice
        ("0c ff81 02 01 02 ff82 00 01 0c 00 00" * 2, "type 65 can't be defined"),
        ("0d ff81 02 01 02 ff82 00 01 0c 00 00 00", "more in the message than a type"),
        # the id of a basic type
        ("0a 03 02 01 02 04 00 01 0c 00 00", "type 2 can't be defined"),
        # a description of nothing
        ("03 ff81 00", "one of array, slice, struct and map"),
        # an interface with a name of a megabyte
        ("06 10 00 fd 0fffff", "a type's name of"),
    ],
)
def test_hostile_streams(stream: str, says: str) -> None:
    with pytest.raises(gob.GobError, match=says):
        decoded(bytes.fromhex(stream))


def test_types_and_messages_are_bounded() -> None:
    limits = gob.Limits(message=64, types=2)
    encoder = gob.Encoder()
    two = [gob.Slice(gob.INT), gob.Slice(gob.BOOL)]
    stream = b"".join(encoder.encode(kind, []) for kind in two)
    assert decoded(stream, limits=limits) == [[], []]
    with pytest.raises(gob.GobError, match="more than 2 types"):
        decoded(stream + encoder.encode(gob.Slice(gob.FLOAT), []), limits=limits)
    with pytest.raises(gob.GobError, match="a message of 103 bytes"):
        decoded(gob.Encoder().encode(gob.BYTES, b"x" * 100), limits=limits)


def test_a_value_in_many_messages_is_bounded() -> None:
    define = bytes.fromhex("0c ff81 02 01 02 ff82 00 01 10 00 00")  # type T []interface{}
    name = b"\x06string"
    first = bytes.fromhex("ff82 00 05") + name  # five of them
    onward = bytes.fromhex("0c 00 00 14") + b"x" * 20 + name
    stream = define + b"".join(bytes([len(one)]) + one for one in (first, *[onward] * 5))
    with pytest.raises(gob.GobError, match="a value of more than 100 bytes"):
        decoded(stream, limits=gob.Limits(message=64, value=100))
    with pytest.raises(gob.GobError, match="more in the message"):
        decoded(stream, limits=gob.Limits(message=64, value=1000))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (gob.INT, "3"),
        (gob.INT, True),
        (gob.INT, 1 << 63),
        (gob.UINT, -1),
        (gob.UINT, 1 << 64),
        (gob.STRING, b"x"),
        (gob.BYTES, "x"),
        (gob.Slice(gob.INT), "abc"),
        (gob.Array(gob.INT, 2), [1]),
        (gob.Map(gob.STRING, gob.INT), [1]),
        (POINT, {"Z": 1}),
        (POINT, [1, 2]),
        (gob.INTERFACE, 3),
        (gob.INTERFACE, gob.Concrete("int", 3)),
    ],
)
def test_wrong_values_are_not_written(kind: gob.Type, value: object) -> None:
    with pytest.raises(gob.GobError):
        gob.Encoder().encode(kind, value)
