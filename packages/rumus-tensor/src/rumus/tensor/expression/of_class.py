"""`of_class`: what was found out about a class, kept no longer than the class.

A notebook defines a class again with each run of its cell. `functools.cache` would keep all of
them, with what their methods close over, such as a data set.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar
from weakref import WeakKeyDictionary

V = TypeVar("V")


def of_class(find: Callable[[type], V]) -> Callable[[type], V]:
    """Return a function that calls `find` once for each class.

    find: its result must not refer to the class.

    >>> @of_class
    ... def length(cls: type) -> int:
    ...     return len(cls.__name__)
    >>> length(int), length(int)
    (3, 3)
    """
    known: WeakKeyDictionary[type, V] = WeakKeyDictionary()

    @wraps(find)
    def found(cls: type) -> V:
        try:
            return known[cls]
        except KeyError:
            return known.setdefault(cls, find(cls))

    return found
