"""Names from other libraries: one line of advice for users who type them out of habit.

Each package has its own table; `OtherNames` turns its rows into errors.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn, ParamSpec, TypeVar

from rumus.tensor.expression.arguments import checked_arguments

P = ParamSpec("P")
R = TypeVar("R")


class OtherNames:
    """Names that users of PyTorch and Keras try, each with what to write instead.

    of: the thing's name in messages. rows: name to advice.

    >>> OtherNames("Tensor", {"view": "x.reshape(...)"}).refuse("view")
    Traceback (most recent call last):
    AttributeError: Tensor has no attribute 'view'; here it is x.reshape(...)
    """

    def __init__(self, of: str, rows: Mapping[str, str]) -> None:
        self.of, self.rows = of, dict(rows)

    def refuse(self, name: str, owner: object = None) -> NoReturn:
        """Raise AttributeError for a missing attribute, with advice if there is any.

        owner: the object, if messages should name its class.
        """
        advice = self.rows.get(name)
        of = self.of if owner is None else repr(type(owner).__name__) + " object"
        told = "" if advice is None else f"; here it is {advice}"
        raise AttributeError(f"{of} has no attribute {name!r}{told}", name=name, obj=owner)

    def check_assignment(self, owner: object, name: str) -> None:
        """Raise AttributeError if `owner` has no attribute `name`: it would be set and ignored.

        Methods of `owner` may create attributes, and any code may create names that begin with _.
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
        """Raise TypeError if one of the given keywords is in the table."""
        for name in given:
            if name in self.rows:
                told = f"{self.of} takes no {name!r}; here it is {self.rows[name]}"
                raise TypeError(told) from None

    def as_keywords(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return `function`, whose errors use the keywords of the table; see `checked_arguments`.

        >>> @OtherNames("sum", {"dim": "axis"}).as_keywords
        ... def total(values, axis=0):
        ...     return sum(values)
        >>> total([1, 2], dim=0)
        Traceback (most recent call last):
        TypeError: sum takes no 'dim'; here it is axis
        """
        return checked_arguments(function, self.check_keywords)
