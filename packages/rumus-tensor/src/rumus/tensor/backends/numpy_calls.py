"""The arguments of a host operation, without references to arrays.

A recorded step must not keep its arrays alive: their memory could then not be reused or
overwritten. So a call holds places instead, and gets its arrays back later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.expression.dtype import DType
from rumus.tensor.expression.kernel import Kernel
from rumus.tensor.memory.backend import Epilogue

# Arrays that the step allocates, that hold its batch, that the host makes again in each
# replay, and that existed before.
Origin: TypeAlias = Literal["own", "input", "fed", "outside"]
_WRITTEN: Final = {"elementwise": 4, "copy": 2, "fill": 2, "random_words": 3, "reduce": 4}


@dataclass(frozen=True, slots=True)
class Place:
    """The location and layout of an array.

    number: among those of one origin. offset: in bytes from its beginning, for arrays outside the
        step.
    """

    origin: Origin
    number: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: DType
    is_writeable: bool

    def has_layout_of(self, other: Place) -> bool:
        """Whether both are arrays of one shape, dtype and layout, at any address."""
        mine, theirs = (self.shape, self.strides), (other.shape, other.strides)
        return mine == theirs and self.dtype == other.dtype


@dataclass(slots=True)
class Call:
    """One operation. result: the place of the returned array, if any."""

    operation: Callable[..., Any]
    args: tuple[Any, ...]
    named: Mapping[str, Any]
    is_live: bool
    result: Place | None = None

    @property
    def label(self) -> str:
        """The operation's name for messages."""
        kernels = [value.name for value in self.args if isinstance(value, Kernel)]
        return kernels[0] if kernels else self.operation.__name__

    def written(self) -> list[Place]:
        """Return the arrays known to be written, for the public operations."""
        at = _WRITTEN.get(self.operation.__name__)
        found = [] if at is None or len(self.args) <= at else [self.args[at]]
        return [place for each in found for place in places(each)]

    def difference(self, other: Call, *, is_exact: bool) -> str | None:
        """Return how another call differs, None if it does not; places count if `is_exact`."""
        if self.operation is not other.operation or not _is_alike(
            _kinds(self.args), _kinds(other.args)
        ):
            return (
                f"it took a different path than before: {self.label!r} ran then, "
                f"{other.label!r} now"
            )
        pairs = (self.args, self.named), (other.args, other.named)
        if (self.is_live and other.is_live) or _is_alike(*pairs):
            if is_exact and places(pairs[0]) != places(pairs[1]):
                return f"{self.label!r} reads or writes different arrays than before"
            return None
        numbers = _first_difference(*pairs)
        return f"an argument of {self.label!r} differs from before{numbers}"


def _kinds(args: tuple[Any, ...]) -> list[Any]:
    """The parts that define a step's course: kernels, and the shapes of arrays."""
    return [value for value in args if isinstance(value, (Kernel, Place))]


def _first_difference(a: Any, b: Any) -> str:
    numbers = [_numbers(value) for value in (a, b)]
    for old, new in zip(*numbers, strict=False):
        if repr(old) != repr(new):
            return f", {old} and {new}"
    return ""


def _numbers(value: Any) -> list[float]:
    if isinstance(value, (list, tuple)):
        return [number for part in value for number in _numbers(part)]
    if isinstance(value, Mapping):
        return _numbers(tuple(value.values()))
    if isinstance(value, Epilogue):
        return _numbers(value.scalars)
    return [value] if isinstance(value, (int, float)) else []


def described(value: Any, place_of: Callable[[NDArray[Any]], Place]) -> Any:
    """Return an argument with places instead of arrays."""
    if isinstance(value, np.ndarray):
        return place_of(value)
    return _mapped(value, lambda part: described(part, place_of))


def resolved(value: Any, array_of: Callable[[Place], NDArray[Any]]) -> Any:
    """Return an argument with arrays instead of places."""
    if isinstance(value, Place):
        return array_of(value)
    return _mapped(value, lambda part: resolved(part, array_of))


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return tuple([change(part) for part in value])
    if isinstance(value, dict):
        return {name: change(part) for name, part in value.items()}
    if isinstance(value, Epilogue):
        return replace(
            value, arrays=change(value.arrays), scalars=tuple(value.scalars), out=change(value.out)
        )
    return value


def places(value: Any) -> list[Place]:
    """Return all places in an argument."""
    if isinstance(value, Place):
        return [value]
    if isinstance(value, Epilogue):
        value = value.arrays, value.out
    if isinstance(value, Mapping):
        value = tuple(value.values())
    return [p for part in value for p in places(part)] if isinstance(value, tuple) else []


def _is_alike(a: Any, b: Any) -> bool:
    """Whether two arguments are the same, arrays in their layout."""
    if isinstance(a, Place) and isinstance(b, Place):
        return a.has_layout_of(b)
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        pairs = zip(a, b, strict=False)
        return len(a) == len(b) and all(_is_alike(x, y) for x, y in pairs)
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(_is_alike(a[n], b[n]) for n in a)
    if isinstance(a, Epilogue):
        parts = [(e.kernel, e.arrays, e.scalars, e.out) for e in (a, b)]
        return _is_alike(*parts)
    if isinstance(a, (float, np.generic)):  # 0.0 == -0.0, and NaN is not even itself
        return repr(a) == repr(b)
    return bool(a == b)
