"""Calling a function with a dict batch: by the names of its parameters.

`lambda image, label: ...` gets these two of a batch that may have more. A function with one
parameter that is not a field, such as `def loss(batch)`, gets the whole dict.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import CellType, CodeType, FunctionType
from typing import Any

import numpy as np

from rumus.tensor import Tensor
from rumus.tensor.expression.nearest_name import nearest_name

Names = tuple[str, ...]


def as_dict(batch: Sequence[Any]) -> Mapping[str, Any] | None:
    """Return the batch if it is a dict."""
    if len(batch) != 1 or isinstance(batch[0], (np.ndarray, Tensor)):  # asked sooner than an ABC
        return None
    return batch[0] if isinstance(batch[0], Mapping) else None


def values_of(batch: Sequence[Any]) -> Sequence[Any]:
    """Return the fields of a batch, whether it is a tuple or a dict."""
    named = as_dict(batch)
    return batch if named is None else list(named.values())


def call(function: Callable[..., Any], batch: Sequence[Any]) -> Any:
    """Call a function with a batch. ValueError for a parameter that the batch lacks.

    >>> call(lambda y, x: (x, y), [{"x": 1, "y": 2, "z": 3}]), call(len, [{"x": 1}])
    ((1, 2), 1)
    """
    named = as_dict(batch)
    if named is None:
        try:
            return function(*batch)
        except TypeError as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is None:
                fields = f"the {len(batch)} fields of a batch, one by one"
                error.add_note(f"{_label(function)} is called with {fields}")
            raise
    wanted = wanted_names(function, tuple(named))
    if wanted is None:
        try:
            return function(named)
        except (AttributeError, KeyError, TypeError) as error:
            error.add_note(
                f"{_label(function)} was called with the whole dict of a batch, which has "
                f"{', '.join(map(repr, named))}: a field is passed to a parameter of its name"
            )
            raise
    return function(**{name: named[name] for name in wanted})


def wanted_names(function: Callable[..., Any], names: Names) -> Names | None:
    """Return the fields that a function takes from a batch; None for the whole dict.

    ValueError for a parameter that the batch lacks.
    """
    if isinstance(function, FunctionType) and not (
        function.__defaults__ or function.__kwdefaults__
    ):
        return _of_code(function.__code__, names)
    return _wanted(getattr(function, "forward", function), names)


@lru_cache(maxsize=256)
def _of_code(code: CodeType, names: Names) -> Names | None:
    """A lambda is a new object each time its line runs; its code is not."""
    return _wanted(FunctionType(code, {}, closure=_cells(code)), names)


def _cells(code: CodeType) -> tuple[CellType, ...] | None:
    return tuple([CellType() for _ in code.co_freevars]) or None


def _wanted(function: Callable[..., Any], names: Names) -> Names | None:
    try:
        parameters = [*inspect.signature(function).parameters.values()]
    except (TypeError, ValueError):  # unknown for a built-in function
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return names
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if len(parameters) == 1 and parameters[0].name not in names:
        return None
    for parameter in parameters:
        missing = parameter.name not in names and parameter.default is parameter.empty
        if missing or parameter.kind is parameter.POSITIONAL_ONLY:
            _refuse(function, parameter.name, names)
    return tuple(p.name for p in named if p.name in names)


def _label(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", type(function).__name__))


def _refuse(function: Callable[..., Any], wanted: str, names: Names) -> None:
    label = _label(function)
    near = nearest_name(wanted, names)
    hint = f"; did you mean {near!r}" if near else ""
    raise ValueError(
        f"{label} wants {wanted!r}, and a batch has {', '.join(map(repr, names))}: a dict batch "
        f"is passed by the function's parameter names{hint}"
    )
