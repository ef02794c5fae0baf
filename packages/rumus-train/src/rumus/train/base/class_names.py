"""The classes of a data set: their names in numeric order, given or found."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.expression.nearest_name import nearest_name
from rumus.tensor.expression.user_warning import warn_user
from rumus.train.base.datasets import datasets_of
from rumus.train.base.printable import printable

_NUMBER: Final = re.compile(r"[+-]?\d{1,300}(\.\d*)?")
_NUMBERED: Final = re.compile(r"(\D*)(\d{1,300})(\D*)")


def ordered_names(parameter: str, names: Iterable[str]) -> list[str]:
    """Return names whose order counts.

    Raises TypeError for a set, whose order differs from run to run, and for a mapping, whose values
    would be ignored.
    """
    if isinstance(names, (set, frozenset, Mapping)):
        key = ", key=names.get" if isinstance(names, Mapping) else ""
        raise TypeError(
            f"{parameter} must be a list, since its order counts, not a {type(names).__name__}: "
            f"sort it, as sorted(names{key})"
        )
    return list(names)


def checked_classes(classes: Iterable[str], parameter: str = "classes") -> list[str]:
    """Return the given classes. TypeError for anything but strings, ValueError for duplicates."""
    found = [] if isinstance(classes, str) else ordered_names(parameter, classes)
    if isinstance(classes, str) or not all(isinstance(name, str) for name in found):
        raise TypeError(f"{parameter} must be a list of texts, not {printable(repr(classes))}")
    if not found:
        raise ValueError(f"{parameter} is empty; leave it out to find them in the data")
    check_each_once(parameter, found)
    return found


def check_each_once(parameter: str, names: Iterable[str]) -> None:
    """Raise ValueError for a name that is given twice."""
    if twice := next((name for name, count in Counter(names).items() if count > 1), None):
        raise ValueError(f"{parameter} has {printable(repr(twice))} twice")


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


def warn_of_text_order(shown: str, what: str, classes: Sequence[str], instead: str) -> None:
    """Warn if found classes are numbered alike, and their order as texts is another one.

    As all numbers are, and class_1 beside class_10. And if two of them are alike but for case,
    spaces or the encoding of accents.

    what: a class is here. instead: what puts numbers in their order, of type {number}.
    """
    warn_of_twins(shown, "classes", classes, "classes=[...]")
    if all(map(_NUMBER.fullmatch, classes)):
        ordered = sorted(classes, key=Decimal)
        number = "int" if all(name.isdecimal() for name in classes) else "float"
        instead = f"{instead.format(number=number)} sorts them as numbers"
    else:
        found = [match for name in classes if (match := _NUMBERED.fullmatch(name))]
        if len(found) < len(classes) or len({match.group(1, 3) for match in found}) > 1:
            return
        ordered = [match[0] for match in sorted(found, key=lambda match: int(match[2]))]
        instead = "classes=[...] puts them in the order of their numbers"
    if (place := next((n for n, a in enumerate(classes) if a != ordered[n]), None)) is not None:
        warn_user(
            f"{shown}: classes are sorted as text, so class {place} is the {what} "
            f"{printable(classes[place])}; {instead}"
        )


def warn_of_twins(shown: str, what: str, names: Iterable[str], given: str) -> None:
    """Warn if two found names are `twins`.

    what: the names are. given: the argument that gives them.
    """
    if (both := twins(names)) is not None:
        warn_user(
            f"{shown}: {both} are two {what}: write them alike if they are one, or give {given} if "
            "they are two"
        )


def twins(names: Iterable[str]) -> str | None:
    """Return two names that are alike but for case, spaces or the encoding of accents, or None.

    Or that are one number. Single letters may well be two classes.

    >>> twins(["red", "blue", "Red "]), twins(["a", "A"])
    ("'red' and 'Red '", None)
    """
    seen: dict[str, str] = {}
    for name in names:
        key = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        if _NUMBER.fullmatch(key):
            key = str(float(key))
        if (twin := seen.setdefault(key, name)) is not name and len(name) + len(twin) > 2:
            return _both(twin, name)
    return None


def _both(one: str, other: str) -> str:
    """Two names as they are told apart."""
    nfc = [unicodedata.normalize("NFC", each) for each in (one, other)]
    told = map(ascii if nfc[0] == nfc[1] else repr, (one, other))
    return printable(" and ".join(told))


def unknown_class(where: str, name: str, classes: Iterable[str]) -> ValueError:
    """Return the error for a class that was not given."""
    near = nearest_name(name, classes)
    hint = f"did you mean {printable(repr(near))}?" if near else "add it there"
    return ValueError(f"{where}: {printable(repr(name))} is not in classes; {hint}")


def unknown_category(where: str, name: str, categories: Iterable[str]) -> ValueError:
    """Return the error for a category that the data learned from, or the program, did not have.

    >>> unknown_category("new.csv:2: column 'color'", "geen", ["green", "red"]).args[0]
    "new.csv:2: column 'color': 'geen' is not one of its categories; did you mean 'green'?"
    """
    near = nearest_name(name, categories)
    told = f"they are {printable(list(categories))}"
    hint = f"did you mean {printable(repr(near))}?" if near else told
    return ValueError(f"{where}: {printable(repr(name))} is not one of its categories; {hint}")


def class_difference(ours: Sequence[str], theirs: Sequence[str], name: str) -> str | None:
    """Describe the first difference of two lists of classes; None if one is empty or none differs.

    name: of the data that has the second.
    """
    if not ours or not theirs or ours == theirs:
        return None
    pairs = zip(ours, theirs, strict=False)
    place = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))
    return (
        f"the classes of training and {name} differ from number {place} on: "
        f"{printable(ours[place : place + 3])} and {printable(theirs[place : place + 3])}; give "
        "both datasets the same classes=, as classes=train.classes"
    )


def classes_of(loader: object) -> list[str]:
    """Return the classes of a loader's dataset, or of the one that it is a subset of, if any."""
    named = (_classes_in(dataset) for dataset in datasets_of(loader))
    return next((classes for classes in named if classes is not None), [])


def _classes_in(dataset: object) -> list[str] | None:
    """The classes that a dataset has itself, or its one column of labels at Hugging Face."""
    classes = getattr(dataset, "classes", None)
    if isinstance(classes, list):
        return classes
    features = getattr(dataset, "features", None)
    columns = features.values() if isinstance(features, Mapping) else ()
    labels = [column.names for column in columns if type(column).__name__ == "ClassLabel"]
    return list(labels[0]) if len(labels) == 1 else None
