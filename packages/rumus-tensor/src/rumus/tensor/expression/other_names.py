"""What names of other libraries are called here: one line for whoever writes one by habit.

Each package has a table of its own; `OtherNames` makes errors of its rows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn, ParamSpec, TypeVar

from rumus.tensor.expression.arguments import checked_arguments

P = ParamSpec("P")
R = TypeVar("R")


class OtherNames:
    """The names that users of PyTorch and Keras try on something, each with what to write instead.

    of: how messages call the thing. rows: name to advice.

    >>> OtherNames("Tensor", {"view": "x.reshape(...)"}).refuse("view")
    Traceback (most recent call last):
    AttributeError: Tensor has no attribute 'view'; here it is x.reshape(...)
    """

    def __init__(self, of: str, rows: Mapping[str, str]) -> None:
        self.of, self.rows = of, dict(rows)

    def refuse(self, name: str, owner: object = None) -> NoReturn:
        """Raise AttributeError for an attribute that is not there, with the advice if there is.

        owner: what was asked for it, if messages should call that by its class.
        """
        advice = self.rows.get(name)
        of = self.of if owner is None else repr(type(owner).__name__) + " object"
        told = "" if advice is None else f"; here it is {advice}"
        raise AttributeError(f"{of} has no attribute {name!r}{told}", name=name, obj=owner)

    def check_assignment(self, owner: object, name: str) -> None:
        """Raise AttributeError if `name` is no attribute of `owner`: it would be set and ignored.

        Methods of `owner` may make attributes, and so may all code where the name begins with _.
        """
        if name in vars(owner) or hasattr(type(owner), name):
            return
        if name not in self.rows:
            frame = sys._getframe(2)  # behind the owner's __setattr__
            first = frame.f_code.co_varnames[:1]
            if name.startswith("_") or (first and frame.f_locals.get(first[0]) is owner):
                return
        self.refuse(name)

    def check_keywords(self, given: Iterable[str]) -> None:
        """Raise TypeError if one of the keywords that were given is in the table."""
        for name in given:
            if name in self.rows:
                told = f"{self.of} takes no {name!r}; here it is {self.rows[name]}"
                raise TypeError(told) from None

    def as_keywords(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return `function`, whose errors know the keywords of the table: see `checked_arguments`.

        >>> @OtherNames("sum", {"dim": "axis"}).as_keywords
        ... def total(values, axis=0):
        ...     return sum(values)
        >>> total([1, 2], dim=0)
        Traceback (most recent call last):
        TypeError: sum takes no 'dim'; here it is axis
        """
        return checked_arguments(function, self.check_keywords)
