"""A `frozen` class behaves as the standard frozen dataclass of the same fields."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from agent.values import frozen


def declared(decorate):
    @decorate
    class Point:
        """A place."""

        x: int
        name: str = "origin"
        tags: tuple[str, ...] = ()
        extra: Mapping[str, str] = field(default_factory=dict)
        secret: str = field(default="s3cret", repr=False, compare=False)

        def __post_init__(self):
            if self.x < 0:
                raise ValueError("negative")

        @property
        def doubled(self):
            return self.x * 2

    return Point


STANDARD = declared(dataclass(frozen=True))
VALUE = declared(frozen)
SLOTTED = declared(frozen(slots=True))
KINDS = pytest.mark.parametrize("kind", [VALUE, SLOTTED])
ARGUMENTS = [
    ((1,), {}),
    ((1, "a"), {}),
    ((), {"x": 2, "tags": ("t",)}),
    ((3, "b", (), {"k": "v"}, "other"), {}),
]


@KINDS
@pytest.mark.parametrize(("args", "named"), ARGUMENTS)
def test_the_same_fields_and_text(kind, args, named):
    expected, found = STANDARD(*args, **named), kind(*args, **named)
    assert dataclasses.asdict(found) == dataclasses.asdict(expected)
    assert repr(found) == repr(expected)
    assert "s3cret" not in repr(found)
    assert found.doubled == expected.doubled
    assert [one.name for one in dataclasses.fields(kind)] == [
        one.name for one in dataclasses.fields(STANDARD)
    ]


@KINDS
def test_equality_hash_and_replacement(kind):
    one, same = kind(1, tags=("a",), extra=()), kind(1, tags=("a",), extra=(), secret="x")
    assert one == same
    assert hash(one) == hash(same)
    assert one != kind(2)
    assert one != STANDARD(1, tags=("a",), extra=())
    changed = dataclasses.replace(one, x=5)
    assert (changed.x, changed.tags, one.x) == (5, ("a",), 1)
    assert kind(1).extra is not kind(1).extra
    with pytest.raises(TypeError, match="unhashable"):
        hash(kind(1))


@KINDS
def test_nothing_changes(kind):
    one = kind(1)
    for change in (
        lambda: setattr(one, "x", 2),
        lambda: setattr(one, "unknown", 2),
        lambda: delattr(one, "x"),
    ):
        with pytest.raises(dataclasses.FrozenInstanceError):
            change()
    assert one.x == 1


@KINDS
def test_wrong_arguments_are_refused(kind):
    for args, named in (((), {}), ((1,), {"nothing": 1}), ((1,), {"x": 2}), (range(9), {})):
        with pytest.raises(TypeError):
            kind(*args, **named)
    with pytest.raises(ValueError, match="negative"):
        kind(-1)


def test_slots_have_no_dict():
    assert not hasattr(SLOTTED(1), "__dict__")


def test_own_methods_and_empty_values_and_parents():
    @frozen
    class Nothing:
        pass

    @frozen
    class Loud:
        name: str

        def __repr__(self):
            return "LOUD"

        def __eq__(self, other):
            return True

        def __hash__(self):
            return 7

    @frozen
    class Louder(Loud):
        more: int = 1

    assert Nothing() == Nothing()
    assert hash(Nothing()) == hash(Nothing())
    assert (repr(Loud("a")), hash(Loud("a"))) == ("LOUD", 7)
    assert Loud("a") == Loud("b")
    assert dataclasses.asdict(Louder("a")) == {"name": "a", "more": 1}


def test_matching_by_position():
    match VALUE(4, "z"):
        case VALUE(x, name):
            assert (x, name) == (4, "z")


def test_fields_by_name_only() -> None:
    @frozen(slots=True)
    class Named:
        first: int
        second: int = dataclasses.field(kw_only=True)

    assert Named(1, second=2) == dataclasses.replace(Named(0, second=2), first=1)
    made: Callable[..., object] = Named
    with pytest.raises(TypeError, match="positional"):
        made(1, 2)
