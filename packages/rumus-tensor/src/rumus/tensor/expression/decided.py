"""Attributes of an object that users assign: refused, if nothing would read them.

An object either reads such an attribute whenever it needs it, and then the new value must be one
that the constructor takes, or it has made something of it, and then an assignment would be ignored.
What it keeps itself, such as the number of steps, users read only.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import FrozenInstanceError
from types import FunctionType
from typing import Any, Final, NoReturn, TypeVar

from rumus.tensor.expression.arguments import constructor_names
from rumus.tensor.expression.of_class import of_class

C = TypeVar("C", bound=type)

_SEVERAL = inspect.Parameter.VAR_POSITIONAL
_METHODS: Final = (FunctionType, classmethod, staticmethod)


def decided(owner: object, name: str, also: frozenset[str] = frozenset()) -> AttributeError:
    """Return the error for an assignment that would be ignored.

    also: attributes that are decided with the object, besides the arguments of its constructor.

    >>> str(decided(open, "size")), str(decided([], "iterable"))
    ('builtin_function_or_method.size is what the object keeps itself: it cannot be set', \
'list.iterable is decided when it is made: make another list')
    """
    kind: Any = type(owner)
    if name in also or name in _arguments(kind):
        told = f"is decided when it is made: make another {kind.__name__}"
    else:
        told = "is what the object keeps itself: it cannot be set"
    return AttributeError(f"{kind.__name__}.{name} {told}", name=name, obj=owner)


def is_decided(name: str) -> bool:
    """Whether a user, and not rumus itself, assigns a public attribute.

    Only from a `__setattr__`, of an object of rumus that has the attribute.
    """
    if name.startswith("_"):
        return False
    module: str = sys._getframe(2).f_globals.get("__name__", "")  # behind the owner's __setattr__
    return not module.startswith("rumus.")


def check_of_class(owner: object, name: str, value: object) -> None:
    """Raise AttributeError for what a class decides, or computes, and a user assigns.

    A method may be replaced by a function, and a class declares the defaults of what may be set.
    Only from a `__setattr__`, like `is_decided`.
    """
    cls = type(owner)
    if name.startswith("_") or not hasattr(cls, name):
        return
    module: str = sys._getframe(2).f_globals.get("__name__", "")
    if module.startswith("rumus.") or name in _reread(cls) or _has_default(cls, name):
        return
    if isinstance(inspect.getattr_static(cls, name), _METHODS):
        if callable(value):
            return
        raise AttributeError(f"{cls.__name__}.{name} is a method, not {value!r}", obj=owner)
    raise decided(owner, name)


def fixed(cls: C) -> C:
    """Class decorator, of a frozen dataclass: an assignment says what to do instead.

    >>> from dataclasses import dataclass
    >>> @fixed
    ... @dataclass(frozen=True)
    ... class Size:
    ...     height: int
    >>> Size(2).height = 3
    Traceback (most recent call last):
    dataclasses.FrozenInstanceError: Size.height is decided when it is made: make another Size
    """

    def refuse(owner: object, name: str, value: object) -> NoReturn:
        getattr(owner, name)  # raises AttributeError, perhaps with advice, if there is none
        raise FrozenInstanceError(str(decided(owner, name)))

    members: Any = cls  # a type checker knows that the class is frozen
    members.__setattr__ = refuse
    return cls


def taken_by_constructor(owner: Any, name: str, value: object) -> object:
    """Return a new value as the constructor would keep it; its errors for one that it refuses.

    AttributeError unless the class names the attribute in `_rereads`: what its objects read
    whenever they need it. Another object like `owner` is made, at no cost and without effects.
    """
    kind: Any = type(owner)
    if name not in _reread(kind):
        raise decided(owner, name)
    if name not in _arguments(kind):
        return value
    held = vars(owner)
    others: list[Any] = []
    given: dict[str, Any] = {}
    for known, parameter in _arguments(kind).items():
        now: Any = value if known == name else held.get(known, parameter.default)
        if now is parameter.empty:
            raise decided(owner, name)
        if parameter.kind is _SEVERAL:
            others = list(now)
        else:
            given[known] = now
    made: object = vars(kind(*others, **given))[name]
    return made


def _has_default(cls: type, name: str) -> bool:
    """Whether a class declares an attribute of its instances, and its value to begin with."""
    kinds = [vars(each).get("__annotations__", {}).get(name) for each in cls.__mro__]
    return any(kind is not None and not str(kind).startswith("ClassVar") for kind in kinds)


def _reread(cls: type) -> frozenset[str]:
    """What a class, or one that it derives from, names in `_rereads`."""
    return frozenset[str]().union(*(vars(each).get("_rereads", ()) for each in cls.__mro__))


@of_class
def _arguments(cls: type) -> dict[str, inspect.Parameter]:
    """The arguments of a constructor by name, with those of its `**options`."""
    try:
        found = dict(inspect.signature(cls).parameters)
    except ValueError:  # of a class in C
        return {}
    options = constructor_names(cls) - found.keys()
    found |= {name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in options}
    return {name: p for name, p in found.items() if p.kind is not p.VAR_KEYWORD}
