"""Arguments that are True or False: a text such as "no" counts as True in Python, silently."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import Any, Final, ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")

_DECLARED: Final = ("bool", bool)  # as text where annotations are not evaluated


def switches_of(function: Callable[..., Any]) -> frozenset[str]:
    """Return the names of the parameters that are declared as bool."""
    declared = getattr(function, "__annotations__", {})
    return frozenset(
        name for name, kind in declared.items() if name != "return" and kind in _DECLARED
    )


@cache
def switches_of_class(cls: type) -> frozenset[str]:
    """Return those of a class and of its bases, to which keywords may be passed on."""
    bases = (base for base in cls.__mro__ if base.__module__.startswith("rumus."))
    return frozenset[str]().union(*(switches_of(vars(b).get("__init__", object)) for b in bases))


def check_class_switches(cls: type, given: Mapping[str, object]) -> None:
    """Raise TypeError for a keyword of a class that is declared as bool and is neither."""
    check_switches(cls.__name__, switches_of_class(cls), given)


def check_switches(of: str, names: frozenset[str], given: Mapping[str, object]) -> None:
    """Raise TypeError for a keyword among `names` that is neither True nor False.

    >>> check_switches("Linear", frozenset({"bias"}), {"bias": "no"})
    Traceback (most recent call last):
    TypeError: Linear: bias must be True or False, not 'no'
    """
    for name, value in given.items():
        if name in names and not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{of}: {name} must be True or False, not {value!r}")


def with_switches(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function`, whose arguments that are declared as bool must be True or False."""
    names, of = switches_of(function), function.__qualname__.removesuffix(".__init__")
    code = getattr(function, "__wrapped__", function).__code__
    placed = code.co_varnames[: code.co_argcount]
    first = min((at for at, name in enumerate(placed) if name in names), default=len(placed))

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if kwargs:
            check_switches(of, names, kwargs)
        if len(args) > first:
            check_switches(of, names, dict(zip(placed, args, strict=False)))
        return function(*args, **kwargs)

    return checked
