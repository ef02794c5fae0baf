"""The classes of a data set: their names in numeric order, given or found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.expression.nearest_name import nearest_name
from rumus.train.base.datasets import datasets_of
from rumus.train.base.printable import printable


def checked_classes(classes: Sequence[str]) -> list[str]:
    """Return the given classes. TypeError for anything but strings, ValueError for duplicates."""
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise TypeError(f"classes must be a list of texts, not {printable(repr(classes))}")
    found = list(classes)
    if not found:
        raise ValueError("classes is empty; leave it out to find them in the data")
    if len(set(found)) < len(found):
        twice = next(name for i, name in enumerate(found) if name in found[:i])
        raise ValueError(f"classes has {printable(repr(twice))} twice")
    return found


def class_numbers(names: Sequence[str], classes: list[str]) -> NDArray[np.int64]:
    """Return the numbers of classes by name; if there are no classes yet, these become the classes.

    >>> found: list[str] = []
    >>> class_numbers(["rose", "iris", "rose"], found).tolist(), found
    ([1, 0, 1], ['iris', 'rose'])
    """
    if not classes:
        classes += sorted(set(names))
    numbers = {name: number for number, name in enumerate(classes)}
    return np.array([numbers[name] for name in names], np.int64)


def unknown_class(where: str, name: str, classes: Iterable[str]) -> ValueError:
    """Return the error for a class that was not given."""
    near = nearest_name(name, classes)
    hint = f"did you mean {printable(repr(near))}?" if near else "add it there"
    return ValueError(f"{where}: {printable(repr(name))} is not in classes; {hint}")


def require_same_classes(training: object, validation: object) -> None:
    """Refuse two loaders whose datasets number their classes differently.

    ValueError with the first difference. Loaders that do not say their classes are let through.
    """
    ours, theirs = classes_of(training), classes_of(validation)
    if not ours or not theirs or ours == theirs:
        return
    pairs = zip(ours, theirs, strict=False)
    place = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))
    raise ValueError(
        f"the classes of training and validation differ from number {place} on: "
        f"{printable(ours[place : place + 3])} and {printable(theirs[place : place + 3])}; give "
        "both datasets the same classes=, as classes=train.classes"
    )


def classes_of(loader: object) -> list[str]:
    """Return the classes of a loader's dataset, or of the one that it is a subset of, if any."""
    named = (getattr(dataset, "classes", None) for dataset in datasets_of(loader))
    return next((classes for classes in named if isinstance(classes, list)), [])
