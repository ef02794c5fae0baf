"""Names from other libraries: one line of advice for users who type them out of habit.

Each package has its own table; `OtherNames` turns its rows into errors.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from types import FrameType
from typing import Any, NoReturn, ParamSpec, TypeVar

from rumus.tensor.expression.arguments import (
    check_arguments,
    checked_arguments,
    constructor_names,
    place_arguments,
)
from rumus.tensor.expression.decided import check_of_class, is_decided, taken_by_constructor
from rumus.tensor.expression.places import check_places, was_not_called

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)


class OtherNames:
    """Names that users of PyTorch and Keras try, each with what to write instead.

    of: the thing's name in messages. rows: name to advice. needed: arguments that a function cannot
    do without, each with what to pass.

    >>> OtherNames("Tensor", {"view": "x.reshape(...)"}).refuse("view")
    Traceback (most recent call last):
    AttributeError: Tensor has no attribute 'view'; here it is x.reshape(...)
    """

    def __init__(
        self, of: str, rows: Mapping[str, str], needed: Mapping[str, str] | None = None
    ) -> None:
        self.of, self.rows, self.needed = of, dict(rows), dict(needed or {})

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
        What its class declares is an attribute, though the table has its name for other classes.
        """
        if name in vars(owner) or hasattr(type(owner), name) or _declares(type(owner), name):
            return
        is_advised = name in self.rows and type(owner).__module__.startswith("rumus.")
        setter = sys._getframe(2)  # behind the owner's __setattr__
        if not is_advised and (name.startswith("_") or is_of_method(setter, owner)):
            return
        self.refuse(name, owner)

    def of_instances(self, cls: C) -> C:
        """Class decorator: names of the table get the advice, and unread attributes cannot be set.

        Its attributes are decided with it, but for those that it names in `_rereads`.
        A class that is not of rumus may derive from it and have any attributes. Attributes that are
        there are read as fast as without: `__getattr__` would make each slower.

        >>> @OtherNames("a box", {"size": "box.length"}).of_instances
        ... class Box: ...
        >>> Box().size
        Traceback (most recent call last):
        AttributeError: 'Box' object has no attribute 'size'; here it is box.length
        """
        members: Any = cls  # for type checkers there is none of these
        for name in self.rows:
            if not hasattr(cls, name) and not _declares(cls, name):
                setattr(members, name, _Refused(self, name))

        def assign(owner: object, name: str, value: object) -> None:
            kind: Any = type(owner)
            if kind.__module__.startswith("rumus."):
                if name not in vars(owner):
                    self.check_assignment(owner, name)
                    check_of_class(owner, name, value)
                elif is_decided(name):
                    value = taken_by_constructor(owner, name, value)
            elif kind.__setattr__ is assign:
                # Nothing is checked, so the next time nothing is called. Not when the class is
                # made: a frozen dataclass, say, gets a method of its own after that.
                type.__setattr__(kind, "__setattr__", object.__setattr__)
            object.__setattr__(owner, name, value)

        def listed(owner: object) -> list[str]:
            return [name for name in object.__dir__(owner) if hasattr(owner, name)]

        members.__dir__ = listed
        if "__slots__" not in vars(cls):
            members.__setattr__ = assign
        return place_arguments(cls)

    def of_finished(self, cls: C) -> C:
        """Class decorator: reading and setting names of the table gets the advice.

        Others are set as fast as without, unlike in `of_instances`.

        >>> @OtherNames("a run", {"should_stop": "run.stop()"}).of_finished
        ... class Run: ...
        >>> Run().should_stop = True
        Traceback (most recent call last):
        AttributeError: 'Run' object has no attribute 'should_stop'; here it is run.stop()
        """
        for name in self.rows:
            setattr(cls, name, _NeverSet(self, name))
        return cls

    def check_keywords(self, given: Iterable[str]) -> None:
        """Raise TypeError if one of the given keywords is in the table."""
        for name in given:
            if name in self.rows:
                told = f"{self.of} takes no {name!r}; here it is {self.rows[name]}"
                raise TypeError(told) from None

    def check_constructor(
        self, cls: type, args: tuple[object, ...], given: Mapping[str, object]
    ) -> None:
        """`check_keywords` and `check_arguments`, unless the constructor is a user's."""
        if own := constructor_names(cls):
            self.check_keywords(name for name in given if name not in own)
        check_arguments(cls, args, given)

    def check_missing(self, left: Iterable[str]) -> None:
        """Raise TypeError if one of the arguments that were left out is needed."""
        for name in left:
            if name in self.needed:
                raise TypeError(f"{self.of} needs {name!r}: {self.needed[name]}") from None

    def of_fields(self, cls: C) -> C:
        """Class decorator, of a dataclass: `before_call` of its constructor."""
        members: Any = cls
        members.__init__ = self.before_call(members.__init__)
        return cls

    def before_call(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return `function`, which says of the table's keywords what to write; for one with checks
        of its own.
        """

        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            if kwargs:
                self.check_keywords(kwargs)
            try:
                return function(*args, **kwargs)
            except TypeError as error:
                if was_not_called(error):
                    is_class = function.__name__ == "__init__"
                    of = type(args[0]).__name__ if is_class else function.__name__
                    check_places(of, function, args, kwargs)
                raise

        return checked

    def as_keywords(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return `function`, whose errors use the keywords of the table; see `checked_arguments`.

        >>> @OtherNames("sum", {"dim": "axis"}).as_keywords
        ... def total(values, axis=0):
        ...     return sum(values)
        >>> total([1, 2], dim=0)
        Traceback (most recent call last):
        TypeError: sum takes no 'dim'; here it is axis
        """
        return checked_arguments(function, self.check_keywords, self.check_missing)


def is_of_method(frame: FrameType, owner: object) -> bool:
    """Whether a frame runs a method of an object, rather than a function that was given it."""
    code = frame.f_code
    if not code.co_argcount or frame.f_locals.get(code.co_varnames[0]) is not owner:
        return False
    within = code.co_qualname.rpartition(".")[0]
    is_in_class = within != "" and not within.endswith("<locals>")
    # What a dataclass generates is in no class; what was added to one later has its name there.
    of_class = getattr(getattr(type(owner), code.co_name, None), "__code__", None)
    return is_in_class or code.co_name.startswith("__") or of_class is code


def _declares(cls: type, name: str) -> bool:
    """Whether a class, or one that it derives from, declares an attribute of its instances."""
    return any(name in vars(each).get("__annotations__", {}) for each in cls.__mro__)


class _Refused:
    """An attribute that is not there: reading it raises the advice."""

    def __init__(self, names: OtherNames, name: str) -> None:
        self.names, self.name = names, name

    def __get__(self, owner: object, cls: type) -> NoReturn:
        self.names.refuse(self.name, owner)


class _NeverSet(_Refused):
    """One that cannot be set, either."""

    def __set__(self, owner: object, value: object) -> NoReturn:
        self.names.refuse(self.name, owner)
