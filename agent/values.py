"""`frozen`: a frozen dataclass that costs little until it is used.

The standard decorator compiles up to seven methods for a class, 0.3 to 0.7 ms each time the agent
starts, and with 170 such classes that was half of the start.  Here equality, hash, repr and
refusing changes are plain functions over the field names, and the one method that has to be
compiled, `__init__`, is taken from the standard decorator when the first instance is made.
Everything else of `dataclasses` works on these classes: `field`, `fields`, `replace`, `asdict`,
`__post_init__`.
Not served: `order`, `InitVar`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform, overload

T = TypeVar("T")
_KEY = "__value_key__"


@overload
def frozen(cls: type[T], /) -> type[T]: ...


@overload
def frozen(*, slots: bool) -> Callable[[type[T]], type[T]]: ...


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def frozen(cls: type[T] | None = None, /, *, slots: bool = False) -> object:
    """In place of `@dataclass(frozen=True)` or `@dataclass(frozen=True, slots=True)`."""
    return (lambda one: _made(one, slots=slots)) if cls is None else _made(cls, slots=False)


def _made(cls: type[T], *, slots: bool) -> type[T]:
    if cls.__doc__ is None:
        cls.__doc__ = cls.__name__  # else the standard decorator works out a signature
    own = cls.__dict__
    made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots)(cls)
    compared = tuple(one.name for one in dataclasses.fields(made) if one.compare)
    setattr(made, _KEY, compared)
    for name, method in _METHODS.items():
        if name not in own or (name == "__hash__" and own[name] is None):
            setattr(made, name, method)
    made.__init__ = _first_init(made)
    result: type[T] = made
    return result


def _first_init(cls: Any) -> Callable[..., None]:
    """An `__init__` that puts the real one in its own place."""

    def init(self: object, *args: object, **named: object) -> None:
        cls.__init__ = _compiled(cls)
        cls.__init__(self, *args, **named)

    return init


def _compiled(cls: Any) -> Callable[..., None]:
    """The `__init__` that the standard decorator writes for the same fields."""
    body: dict[str, Any] = {"__annotations__": {}, "__doc__": "", "__module__": cls.__module__}
    for one in dataclasses.fields(cls):
        body["__annotations__"][one.name] = object
        kept: Any = {"default": one.default, "default_factory": one.default_factory}
        given = {name: value for name, value in kept.items() if value is not dataclasses.MISSING}
        body[one.name] = dataclasses.field(init=one.init, kw_only=bool(one.kw_only), **given)
    if hasattr(cls, "__post_init__"):
        body["__post_init__"] = None  # the real one is found on the instance
    standard = dataclasses.dataclass(frozen=True, repr=False, eq=False, match_args=False)
    made: Any = standard(type(cls.__qualname__, (), body))
    init: Callable[..., None] = made.__init__
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


def _key(self: Any) -> tuple[object, ...]:
    return tuple([getattr(self, name) for name in self.__value_key__])


def _equal(self: object, other: object) -> object:
    if other.__class__ is not self.__class__:
        return NotImplemented
    same: bool = _key(self) == _key(other)
    return same


def _hash(self: object) -> int:
    return hash(_key(self))


def _text(self: Any) -> str:
    shown = [one.name for one in dataclasses.fields(self) if one.repr]
    inner = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
    return f"{type(self).__qualname__}({inner})"


def _refuse_set(_self: object, name: str, _value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(_self: object, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


_METHODS = {
    "__eq__": _equal,
    "__hash__": _hash,
    "__repr__": _text,
    "__setattr__": _refuse_set,
    "__delattr__": _refuse_delete,
}
