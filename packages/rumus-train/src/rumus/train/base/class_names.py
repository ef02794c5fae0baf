"""The classes of a data set: their names in the order of their numbers, given or found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rumus.train.base.nearest_name import nearest_name
from rumus.train.base.printable import printable


def checked_classes(classes: Sequence[str]) -> list[str]:
    """Return the classes that were given. TypeError for what is no text, ValueError for doubles."""
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise TypeError(f"classes must be a list of texts, not {printable(repr(classes))}")
    found = list(classes)
    if not found:
        raise ValueError("classes is empty; leave it out to find them in the data")
    if len(set(found)) < len(found):
        twice = next(name for i, name in enumerate(found) if name in found[:i])
        raise ValueError(f"classes has {printable(repr(twice))} twice")
    return found


def unknown_class(where: str, name: str, classes: Iterable[str]) -> ValueError:
    """Return the error for a class that is not among those that were given."""
    near = nearest_name(name, classes)
    hint = f"did you mean {printable(repr(near))}?" if near else "add it there"
    return ValueError(f"{where}: {printable(repr(name))} is not in classes; {hint}")
