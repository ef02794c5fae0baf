"""Whether an argument fits its declaration, for messages that name what is wrong.

Only declarations made of numbers, sequences of numbers, None, tensors, backends and generators are
looked at: `int`, `float | None`, `Sequence[int]`, `Tensor`. Everything else fits anything.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, Final

import numpy as np

from rumus.tensor.expression.printable import abridged

_CLASSES: Final = {
    "Backend": "a Backend",
    "Generator": "a Generator",
    "GradientStore": "what loss.backward() returned",
    "Tensor": "a tensor",
}
_NUMBER: Final = re.compile(r"int|float")
_NUMBERS: Final = re.compile(r"(?:(?:\w+\.)*Sequence|tuple|list)\[(.*)\]")
_NAME: Final = re.compile(r"\w+")
_SHORT: Final = 40  # characters of a value in a message


def wanted(declared: str, known: Mapping[str, Any], value: object) -> str | None:
    """Return what `declared` asks for if `value` is something else, None if it fits.

    known: the globals of the function, in which a name may stand for a class or for a declaration.

    >>> wanted("int | None", {}, 2.5), wanted("int | None", {}, None)
    ('a whole number', None)
    >>> wanted("int | Sequence[int]", {}, "3"), wanted("Sequence[float]", {}, [1, "a"])
    ('whole numbers', 'numbers')
    >>> wanted("Something", {}, "3") is None
    True
    """
    parts = _parts(declared, known)
    if parts is None or any(_fits(part, known, value) for part in parts):
        return None
    return _told([part for part in parts if part != "None"])


def shown(value: object) -> str:
    """Return a value as it appears in a message: itself if that is short, else its type.

    >>> shown("3"), shown(np.ones(100))
    ("'3'", 'ndarray')
    """
    is_plain = value is None or isinstance(value, (str, bytes, int, float, complex, tuple))
    text = abridged(value) if is_plain else ""
    return text if is_plain and len(text) <= _SHORT else type(value).__name__


def _parts(declared: str, known: Mapping[str, Any]) -> list[str] | None:
    """The alternatives of a union; None if one of them is none of those that are looked at."""
    found: list[str] = []
    for part in _alternatives(declared):
        meaning = known.get(part) if _NAME.fullmatch(part) else None
        is_class = part in _CLASSES and isinstance(meaning, type)
        if is_class or part == "None" or _NUMBER.fullmatch(part):
            found.append(part)
        elif inside := _NUMBERS.fullmatch(part):
            if not all(
                _NUMBER.fullmatch(each) or each == "None"
                for one in inside[1].replace(", ...", "").split(", ")
                for each in _alternatives(one)
            ):
                return None
            found.append(part)
        elif meaning is not None and (also := _parts(_as_text(meaning), known)) is not None:
            found += also
        else:
            return None
    return found


def _alternatives(declared: str) -> list[str]:
    """Split a union at its outermost level."""
    found, depth = [""], 0
    for letter in declared:
        depth += {"[": 1, "]": -1}.get(letter, 0)
        if letter == "|" and not depth:
            found.append("")
        else:
            found[-1] += letter
    return [part.strip() for part in found]


def _as_text(meaning: object) -> str:
    """A declaration that a name stands for; "?" if that is another name for itself."""
    text = str(meaning).replace("collections.abc.", "")
    return "?" if _NAME.fullmatch(text) else text


def _fits(part: str, known: Mapping[str, Any], value: object) -> bool:
    if part == "None":
        return value is None
    if part == "int":
        return _is_whole(value)
    if part == "float":
        return _is_number(value)
    if inside := _NUMBERS.fullmatch(part):
        if part.startswith("tuple"):  # of a few numbers, each with a name and a check of its own
            return isinstance(value, Iterable) and not isinstance(value, (str, bytes, dict))
        return _are_numbers(value, whole="float" not in inside[1], or_none="None" in inside[1])
    return _is_instance(value, known[part])


def _is_whole(value: object) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return False
    try:
        operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


def _is_number(value: object) -> bool:
    if isinstance(value, np.ndarray) and not value.ndim:
        value = value.item()
    return isinstance(value, Real) and not isinstance(value, (bool, np.bool_))


def _are_numbers(value: object, *, whole: bool, or_none: bool) -> bool:
    if isinstance(value, (str, bytes, dict)) or not isinstance(value, Iterable):
        return False
    if not isinstance(value, (list, tuple, np.ndarray, range)):
        return True  # not to be used up
    is_one = _is_whole if whole else _is_number
    return all((or_none and each is None) or is_one(each) for each in value)


def _is_instance(value: object, cls: type) -> bool:
    if not getattr(cls, "_is_protocol", False):
        return isinstance(value, cls)
    return all(hasattr(value, name) for name in vars(cls) if not name.startswith("_"))


def _told(parts: list[str]) -> str:
    names = [part for part in parts if part in _CLASSES]
    numbers = [part for part in parts if part not in _CLASSES]
    told = [_CLASSES[name] for name in names]
    if numbers:
        kind = "whole number" if any("int" in part for part in numbers) else "number"
        is_one = all(_NUMBER.fullmatch(part) for part in numbers)
        told.append(f"a {kind}" if is_one else f"{kind}s")
    return " or ".join(told)
