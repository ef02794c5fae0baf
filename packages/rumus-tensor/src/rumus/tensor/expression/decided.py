"""Attributes that an object has from its constructor's arguments, assigned by users afterwards.

An object either reads such an attribute whenever it needs it, and then the new value must be one
that the constructor takes, or it has made something of it, and then an assignment would be ignored.
"""

from __future__ import annotations

import inspect
import sys
from functools import cache
from typing import Any

from rumus.tensor.expression.arguments import constructor_names

_SEVERAL = inspect.Parameter.VAR_POSITIONAL


def decided(owner: object, name: str) -> AttributeError:
    """Return the error for an assignment that would be ignored.

    >>> str(decided([], "size"))
    'list.size is decided when it is made: make another list'
    """
    kind = type(owner).__name__
    return AttributeError(
        f"{kind}.{name} is decided when it is made: make another {kind}", name=name, obj=owner
    )


def is_decided(owner: object, name: str, also: frozenset[str] = frozenset()) -> bool:
    """Whether an attribute is an argument of the constructor, or in `also`, and a user assigns it.

    Only from a `__setattr__`, of an object of rumus that has the attribute: rumus itself may.
    """
    kind: Any = type(owner)
    if name not in also and name not in _arguments(kind):
        return False
    module: str = sys._getframe(2).f_globals.get("__name__", "")  # behind the owner's __setattr__
    return not module.startswith("rumus.")


def taken_by_constructor(owner: Any, name: str, value: object) -> object:
    """Return a new value as the constructor would keep it; its errors for one that it refuses.

    AttributeError unless the class names the attribute in `_rereads`: what its objects read
    whenever they need it. Another object like `owner` is made, at no cost and without effects.
    """
    kind: Any = type(owner)
    if name not in getattr(kind, "_rereads", ()):
        raise decided(owner, name)
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


@cache  # of our own classes only
def _arguments(cls: type) -> dict[str, inspect.Parameter]:
    """The arguments of a constructor by name, with those of its `**options`."""
    found = dict(inspect.signature(cls).parameters)
    options = constructor_names(cls) - found.keys()
    found |= {name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in options}
    return {name: p for name, p in found.items() if p.kind is not p.VAR_KEYWORD}
