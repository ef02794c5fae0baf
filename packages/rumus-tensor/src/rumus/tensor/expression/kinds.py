"""`is_a`: whether an object is of an abstract class, asked in each step."""

from __future__ import annotations


def is_a(thing: object, base: type) -> bool:
    """Return isinstance(thing, base), which for an abstract class is Python code each time.

    thing: of a class that derives from `base` or not.
    base: the class; none that others are registered with.
    """
    return base in type(thing).__mro__
