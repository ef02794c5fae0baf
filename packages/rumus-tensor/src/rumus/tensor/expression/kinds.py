"""`is_a`: whether an object is of an abstract class, asked in each step."""

from __future__ import annotations

from functools import lru_cache
from typing import Any


@lru_cache(maxsize=256)
def _derives(kind: type, base: type) -> bool:
    return issubclass(kind, base)


def is_a(thing: Any, base: type) -> bool:
    """Return isinstance(thing, base); for an abstract class that is Python code each time.

    thing: of a class that derives from `base` or not, however often it is asked.
    base: the class.
    """
    kind: type = type(thing)
    return _derives(kind, base)
