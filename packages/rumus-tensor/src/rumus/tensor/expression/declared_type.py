"""Whether an argument fits its declaration, for messages that name what is wrong.

Only declarations made of these are looked at: numbers and sequences, texts, paths, switches,
functions, mappings, None and classes of rumus, as in `int | None`, `str | Path` or
`Tensor`. Everything else fits anything.
"""

from __future__ import annotations

import ast
import operator
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from numbers import Real
from typing import Any, Final, TypeGuard, TypeVar

import numpy as np

from rumus.tensor.expression.printable import abridged

_CLASSES: Final = {
    "Backend": "a Backend",
    "Generator": "a Generator",
    "GradientStore": "what loss.backward() returned",
    "Parameter": "a Parameter",
    "Tensor": "a tensor",
}
_NUMBER: Final = re.compile(r"int|float")
_NUMBERS: Final = re.compile(r"(?:(?:\w+\.)*Sequence|tuple|list)\[(.*)\]")
_SEVERAL: Final = re.compile(r"(?:(?:\w+\.)*(?:Sequence|Iterable)|list)\[.*\]")
_OPTIONAL: Final = re.compile(r"(?:(?:T|Tensor) \| float|TensorLike) \| None")
_TEXTS: Final = re.compile(r"(?:(?:\w+\.)*(?:Sequence|Iterable)|list)\[str\]|tuple\[str, \.\.\.\]")
_LITERAL: Final = re.compile(r"(?:typing\.)?Literal\[(.*)\]")
_PATH: Final = re.compile(r"(?:\w+\.)*(?:Path|PathLike(?:\[str\])?)")
_OTHERS: Final = (  # each with what it is, and what it is called
    (_PATH, (str, os.PathLike), "text or a Path"),
    (re.compile(r"str"), (str,), "text"),
    (re.compile(r"bool"), (bool, np.bool_), "True or False"),
    (re.compile(r"(?:\w+\.)*Mapping\[.*\]|dict\[.*\]"), (Mapping,), "a dict"),
)
_SOME: Final = "Iterable"  # of what is not looked at
_FUNCTION: Final = re.compile(r"(?:\w+\.)*Callable\[.*\]")
_SIMPLE: Final = (re.compile("None"), _NUMBER, _TEXTS, _LITERAL, _FUNCTION)
_NAME: Final = re.compile(r"\w+")
_OF: Final = re.compile(r"(\w+)\[.*\]")  # a generic class
_SHORT: Final = 40  # characters of a value in a message


def wanted(
    declared: str,
    known: Mapping[str, Any],
    value: object,
    *,
    is_all: bool = True,
    is_early: bool = False,
) -> str | None:
    """Return what `declared` asks for if `value` is something else, None if it fits.

    known: the globals of the function, in which a name may stand for a class or for a declaration.
    is_all: False to look at numbers, paths, tensors, backends and generators only.
    is_early: True before a call, whose own message of what is no list may say more.

    >>> wanted("int | None", {}, 2.5), wanted("int | None", {}, None)
    ('a whole number', None)
    >>> wanted("int | Sequence[int]", {}, "3"), wanted("Sequence[float]", {}, [1, "a"])
    ('whole numbers', 'numbers')
    >>> wanted("Something", {}, "3") is None
    True
    """
    parts = _parts(declared, known)
    # Of a sequence, which has a length, after a call that has failed.
    is_used_up = is_all and not is_early and isinstance(value, Iterator)
    if parts is None or any(
        _fits(part, known, value) and not (is_used_up and _is_of_numbers(part)) for part in parts
    ):
        return None
    if is_early and _SOME in parts:
        return None
    if not is_all and not _are_basic(parts):
        return None
    if any(map(_FUNCTION.fullmatch, parts)) and any(map(_NUMBER.fullmatch, parts)):
        return None  # a hyperparameter, whose own check says of what it may be a function
    is_choice = "None" in parts and any(map(_LITERAL.fullmatch, parts))
    return _told([part for part in parts if part != "None"]) + " or None" * is_choice


def fits(declared: str, known: Mapping[str, Any], value: object) -> bool:
    """Whether a value certainly fits a declaration: False also if that is not looked at.

    >>> fits("bool", {}, True), fits("bool", {}, 1), fits("Something", {}, 1)
    (True, False, False)
    """
    parts = _parts(declared, known)
    return parts is not None and any(_fits(part, known, value) for part in parts)


def takes_numbers_only(declared: str, known: Mapping[str, Any]) -> bool:
    """Whether a declaration is of numbers, or None, and nothing else: not of truth values.

    >>> takes_numbers_only("int | None", {}), takes_numbers_only("float | bool", {})
    (True, False)

    So are tensors that may be left out: weights and limits, of which True would be one of 1.

    >>> takes_numbers_only("TensorLike | None", {}), takes_numbers_only("TensorLike", {})
    (True, False)
    """
    if is_optional_tensor(declared):
        return True
    parts = _parts(declared, known) or []
    numbers = [part for part in parts if _NUMBER.fullmatch(part) or _is_of_numbers(part)]
    others = (part for part in parts if part not in numbers)
    return bool(numbers) and all(part == "None" or _LITERAL.fullmatch(part) for part in others)


def is_optional_tensor(declared: str) -> bool:
    """Whether a declaration is of a tensor, or of a number in its place, that may be left out.

    >>> is_optional_tensor("Tensor | float | None"), is_optional_tensor("Tensor | None")
    (True, False)
    """
    return _OPTIONAL.fullmatch(declared) is not None


def fault_of_path(value: object) -> str | None:
    r"""Return what a path must not be or have, but this is or has; None if it may be a path.

    An empty one would be the current folder, as a variable that is not set often is.

    >>> fault_of_path("a\0"), fault_of_path("a\ud800")
    ("have a NUL character: 'a\\x00'", "have '\\ud800', which no name of a file has: 'a\\ud800'")
    >>> fault_of_path(""), fault_of_path(".")
    ("be empty: the current folder is '.'", None)
    """
    if not isinstance(value, (str, os.PathLike)):
        return None
    text = str(value)
    if not text:
        return "be empty: the current folder is '.'"
    if "\0" in text:
        return f"have a NUL character: {shown(text)}"
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        return f"have {text[error.start]!r}, which no name of a file has: {shown(text)}"
    return None


def check_path(name: str, value: object) -> None:
    """Raise ValueError for a path that none can be.

    >>> check_path("checkpoints", "")
    Traceback (most recent call last):
    ...
    ValueError: checkpoints must not be empty: the current folder is '.'
    """
    if fault := fault_of_path(value):
        raise ValueError(f"{name} must not {fault}")


def fault_of_declared(declared: str, known: Mapping[str, Any], value: object) -> str | None:
    r"""Return the `fault_of_path` of a value where a path is asked for.

    >>> fault_of_declared("str | Path", {}, "a\0"), fault_of_declared("str", {}, "a\0")
    ("have a NUL character: 'a\\x00'", None)
    """
    fault = fault_of_path(value)
    parts = _parts(declared, known) or _alternatives(
        declared
    )  # of others too, as in `Store | Path`
    is_path = fault and any(map(_PATH.fullmatch, parts))
    return fault if is_path else None


def _are_basic(parts: list[str]) -> bool:
    """Whether these are alternatives that no function checks itself."""
    if any(map(_PATH.fullmatch, parts)):
        return all(part in ("str", "None") or _PATH.fullmatch(part) for part in parts)
    return all(
        part in _CLASSES
        or part == "None"
        or _NUMBER.fullmatch(part)
        or _LITERAL.fullmatch(part)
        or _is_of_numbers(part)
        or (part == "bool" and "float" in parts)  # of an element
        for part in parts
    )


def _is_of_numbers(part: str) -> bool:
    return bool(_NUMBERS.fullmatch(part)) and not _TEXTS.fullmatch(part)


def shown(value: object) -> str:
    """Return a value as it appears in a message: itself if that is short, else its type.

    >>> shown("3"), shown(np.ones(100)), shown(dict)
    ("'3'", 'ndarray', 'the class dict')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    is_plain = value is None or isinstance(value, (str, bytes, int, float, complex, tuple))
    text = abridged(value) if is_plain else ""
    return text if is_plain and len(text) <= _SHORT else _kind_of(value)


def _kind_of(value: object) -> str:
    """The name of a value's type, with its package if it is that of another one's tensor, say."""
    name, package = type(value).__name__, type(value).__module__.partition(".")[0]
    told = f"{package}.{name}" if name in _CLASSES and package != "rumus" else name
    return f"{told} without axes" if _is_single(value) else told


def _parts(declared: str, known: Mapping[str, Any]) -> list[str] | None:
    """The alternatives of a union; None if one of them is none of those that are looked at."""
    found: list[str] = []
    for part in _alternatives(declared):
        meaning = known.get(part) if _NAME.fullmatch(part) else None
        if of := _OF.fullmatch(part):
            meaning = known.get(of[1])
        if isinstance(meaning, TypeVar):
            if not meaning.__constraints__:
                return None
            found += [each.__name__ for each in meaning.__constraints__ if _is_class(each)]
        elif _is_class(meaning) or _other(part) or any(one.fullmatch(part) for one in _SIMPLE):
            found.append(part)
        elif inside := _NUMBERS.fullmatch(part):
            are_numbers = all(
                _NUMBER.fullmatch(each) or each == "None"
                for one in inside[1].replace(", ...", "").split(", ")
                for each in _alternatives(one)
            )
            if not are_numbers and not _SEVERAL.fullmatch(part):
                return None
            found.append(part if are_numbers else _SOME)
        elif _SEVERAL.fullmatch(part):
            found.append(_SOME)
        elif meaning is not None and (also := _parts(_as_text(meaning), known)) is not None:
            found += also
        else:
            return None
    return found


def _other(part: str) -> tuple[tuple[type, ...], str] | None:
    """The classes of what is neither number nor function, and what to call it."""
    found = ((classes, what) for kind, classes, what in _OTHERS if kind.fullmatch(part))
    return next(found, None)


def _is_class(meaning: object) -> bool:
    """Whether a name stands for a class of rumus, of which values may be instances."""
    is_ours = isinstance(meaning, type) and meaning.__module__.startswith("rumus.")
    return is_ours and not hasattr(meaning, "__total__")  # of the keywords of a function


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
    if part == _SOME:  # an array, an old sequence and a proxy can be iterated over, too
        is_list = hasattr(type(value), "__iter__") or hasattr(type(value), "__getitem__")
        return is_list and not _is_single(value)
    if part == "int":
        return _is_whole(value)
    if part == "float":
        return _is_number(value)
    if _TEXTS.fullmatch(part):
        return _are_texts(value)
    if inside := _NUMBERS.fullmatch(part):
        is_of_few = part.startswith("tuple") and "..." not in part
        if is_of_few:  # each with a name and a check of its own
            return _is_listing(value)
        return _are_numbers(value, whole="float" not in inside[1], or_none="None" in inside[1])
    if other := _other(part):
        return isinstance(value, other[0])
    if _FUNCTION.fullmatch(part):
        return callable(value) and not makes_functions(value)
    if literal := _LITERAL.fullmatch(part):  # which of them it is, the function itself checks
        kinds = {type(each) for each in _written(literal[1])}
        return type(value) in kinds or (str in kinds and isinstance(value, str))
    of = _OF.fullmatch(part)
    return _is_instance(value, known[of[1] if of else part])


def _written(literals: str) -> tuple[object, ...]:
    found: tuple[object, ...] = ast.literal_eval(f"({literals},)")
    return found


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
    if not _is_listing(value):
        return False
    if not isinstance(value, (list, tuple, np.ndarray, range)):
        return True  # not to be used up
    is_one = _is_whole if whole else _is_number
    return all((or_none and each is None) or is_one(each) for each in value)


def _is_listing(value: object) -> bool:
    """Whether a value has elements, in an order; those of a table are no numbers."""
    is_listing = is_ordered(value) and not isinstance(value, (str, bytes, dict))
    return is_listing and getattr(value, "ndim", 1) == 1


def is_ordered(value: Any) -> TypeGuard[Iterable[Any]]:
    """Whether Python can iterate over a value in an order that has been given.

    It cannot iterate over an array without axes, and a set has an order of its own.

    >>> is_ordered([]), is_ordered(np.array(1.0)), is_ordered({3, 2}), is_ordered(1.0)
    (True, False, False, False)
    """
    is_set = isinstance(value, (set, frozenset))
    return isinstance(value, Iterable) and not is_set and not _is_single(value)


def _is_single(value: object) -> bool:
    """Whether a value is an array without axes."""
    return isinstance(getattr(value, "ndim", None), int) and value.ndim == 0  # type: ignore[attr-defined]


def _are_texts(value: object) -> bool:
    if isinstance(value, (str, bytes, type)) or not isinstance(value, Iterable):
        return False
    if _is_single(value):
        return False
    is_held = isinstance(value, (list, tuple, set, frozenset, Mapping, np.ndarray))
    return not is_held or all(isinstance(each, str) for each in value)


def makes_functions(value: object) -> bool:
    """Whether a class is given in place of one of its instances, which can be called."""
    return isinstance(value, type) and any("__call__" in vars(each) for each in value.__mro__)


def _is_instance(value: object, cls: type) -> bool:
    if not getattr(cls, "_is_protocol", False):
        return isinstance(value, cls)
    has_all = all(hasattr(value, name) for name in vars(cls) if not name.startswith("_"))
    return has_all and not isinstance(value, type)


def _told(parts: list[str]) -> str:
    told: list[str] = []
    numbers: list[str] = []
    for part in parts:
        other = _other(part)
        if _NUMBER.fullmatch(part) or _is_of_numbers(part):
            numbers.append(part)
        elif literal := _LITERAL.fullmatch(part):
            told += map(repr, _written(literal[1]))
        elif _TEXTS.fullmatch(part):
            told.append("a list of texts")
        elif part == _SOME:
            told.append("a list")
        elif other or _FUNCTION.fullmatch(part):
            told.append(other[1] if other else "a function")
        else:
            of = _OF.fullmatch(part)
            name = of[1] if of else part
            told.append(_CLASSES.get(name, f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"))
    for more, less in (("text or a Path", "text"), ("a tensor", "an Expr")):
        if more in told and less in told:
            told.remove(less)
    if numbers:
        told = [each for each in told if each != "True or False"]  # which are numbers, then
        kind = "whole number" if any("int" in part for part in numbers) else "number"
        is_one = all(_NUMBER.fullmatch(part) for part in numbers)
        told.append(f"a {kind}" if is_one else f"{kind}s")
    return " or ".join(dict.fromkeys(told))
