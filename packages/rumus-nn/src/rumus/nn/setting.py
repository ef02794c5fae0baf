"""Settings of layers: attributes that may be assigned after construction, and their checks.

A layer lists them in `_settings`, each with a check of its value, which runs for the assignment in
`__init__` as for any other; its type is compared with the constructor's declaration first. What
else a constructor takes is decided with the parameters that it makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import CodeType
from typing import Any, TypeAlias

from rumus.tensor.expression.arguments import constructor_names
from rumus.tensor.expression.of_class import of_class
from rumus.tensor.expression.real_number import finite_number, positive_number, real_number

# From the layer, the attribute's name and a value, to what is kept.
Check: TypeAlias = Callable[[Any, str, Any], Any]
Settings: TypeAlias = Mapping[str, Check]


def full_name(layer: object, name: str) -> str:
    """Return the name of a setting in messages.

    >>> full_name([], "p")
    'list: p'
    """
    return f"{type(layer).__name__}: {name}"


def decided(layer: object, name: str) -> AttributeError:
    """Return the error for an assignment to what only the constructor decides."""
    kind = type(layer).__name__
    return AttributeError(
        f"{kind}.{name} is decided when the layer is made: make another {kind}",
        name=name,
        obj=layer,
    )


@of_class
def own_names(cls: type) -> frozenset[str]:
    """Return what a layer's code may set or read of it; any other attribute is the user's.

    >>> from rumus.nn import Linear
    >>> "weight" in own_names(Linear), "label" in own_names(Linear)
    (True, False)
    """
    ours = [each for each in cls.__mro__ if each.__module__.startswith("rumus.")]
    members = [member for each in ours[:-1] for member in vars(each).values()]  # not of Module
    codes = (code for member in members for code in _codes(member))
    declared = (vars(each).get("__annotations__", ()) for each in ours)
    return constructor_names(cls).union(*(code.co_names for code in codes), *declared)


def unwrapped(function: Any) -> Any:
    """Return what `functools.wraps` has wrapped, at last.

    Unlike inspect.unwrap it does not ask for Python's settings, which would end a capture.
    """
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function


def _codes(member: Any) -> Iterator[CodeType]:
    """The code of a method or property, and of the functions in it."""
    parts = (member, *(getattr(member, of, None) for of in ("fget", "fset", "__func__")))
    functions = [unwrapped(part) for part in parts]
    found = [each.__code__ for each in functions if hasattr(each, "__code__")]
    while found:
        code = found.pop()
        yield code
        found += [each for each in code.co_consts if isinstance(each, CodeType)]


def finite(layer: object, name: str, value: Any) -> float:
    """Return a finite number. TypeError for none, ValueError for NaN and infinity."""
    return finite_number(full_name(layer, name), value)


def positive(layer: object, name: str, value: Any) -> float:
    """Return a positive finite number. TypeError for none, ValueError for others."""
    return positive_number(full_name(layer, name), value)


def probability(layer: object, name: str, value: Any) -> float:
    """Return a number of [0, 1]. TypeError for none, ValueError for others."""
    number = real_number(full_name(layer, name), value)
    if not 0 <= number <= 1:
        raise ValueError(f"{full_name(layer, name)} must be in [0, 1], not {number}")
    return number


def as_declared(layer: object, name: str, value: Any) -> Any:
    """Return the value: it has the type that the constructor declares, and that is enough."""
    return value
