"""`MetricState`: what a metric needs from some samples to be exact over all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rumus.tensor import Tensor, concat, stack
from rumus.tensor.expression.decided import fixed
from rumus.tensor.memory.uninterrupted import displacing
from rumus.train.base.exact_difference import alike
from rumus.train.base.late_counts import LatePart
from rumus.train.base.other_names import METRIC

Values: TypeAlias = Tensor | NDArray[Any]
Part: TypeAlias = Values | LatePart
CONFUSION_MATRIX: Final = "confusion_matrix"  # the metric whose first part is kept as well


class _Noted(threading.local):
    """The numbers that metrics became on this thread, in the innermost block; None outside."""

    numbers: list[tuple[float, str]] | None = None


_noted = _Noted()


@contextmanager
def noting_numbers() -> Iterator[list[tuple[float, str]]]:
    """Collect the numbers that metrics become within the block, with the metrics' names."""
    yield from displacing(_noted, "numbers", [])


def _no_number(state: MetricState, other: object = None) -> Any:
    raise TypeError(f"write float(metric): {state} is no number, but what metrics add up")


@METRIC.of_instances
@fixed
@dataclass(frozen=True, slots=True, eq=False)
class MetricState:
    """A metric over some samples. Adding states gives the state of all their samples.

    So a validation in batches gets the F1 of the whole set, which is not the batches' mean.

    name: of the metric.
    parts: counts, which are added, or with `joins` per-sample values, which are concatenated. They
        may be device tensors, or of a training step and not counted yet; they are read when states
        are added or the metric is computed.
    finish: from the parts, as arrays, to the metric.
    joins: whether parts are concatenated rather than added.

    >>> import numpy as np
    >>> from rumus.train.metrics import MetricState
    >>> half = MetricState("share", (np.array(1.0), np.array(2.0)), lambda hits, n: hits / n)
    >>> float(half + MetricState("share", (np.array(4.0), np.array(4.0)), half.finish))
    0.8333333333333334
    """

    name: str
    parts: tuple[Part, ...]
    finish: Callable[..., Any]
    joins: bool = False

    def __add__(self, other: MetricState) -> MetricState:
        given: Any = other
        return add_up([self, given if isinstance(given, MetricState) else _no_number(self)])

    def __radd__(self, other: object) -> MetricState:
        """As `sum` adds states, which begins with 0."""
        return self if type(other) is int and not other else _no_number(self)

    def __eq__(self, other: object) -> bool:
        is_number = isinstance(other, (int, float, np.number, np.ndarray, Tensor))
        return _no_number(self) if is_number else self is other

    __hash__ = object.__hash__
    __lt__ = __le__ = __gt__ = __ge__ = __bool__ = _no_number
    __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _no_number

    def __float__(self) -> float:
        found = float(self.finish(*add_up([self]).parts))
        if (numbers := _noted.numbers) is not None:
            numbers.append((found, self.name))
        return found

    def __format__(self, spec: str) -> str:
        return format(float(self), spec) if spec else repr(self)

    def __round__(self, digits: int | None = None) -> float:
        return round(float(self), digits)

    def __repr__(self) -> str:
        return f"MetricState({self.name!r}, {list(self.kind[1])})"

    @property
    def matrix(self) -> NDArray[np.int64]:
        """The counts of a `confusion_matrix`, (target, prediction); TypeError for another metric.

        >>> import numpy as np
        >>> from rumus.train.metrics import confusion_matrix
        >>> scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
        >>> confusion_matrix(scores, np.array([0, 1, 1])).matrix.tolist()
        [[1, 0], [1, 1]]
        """
        if self.name != CONFUSION_MATRIX:
            raise TypeError(f"only a confusion matrix has a matrix; this is {self.name!r}")
        return np.asarray(add_up([self]).parts[0]).astype(np.int64)

    @property
    def kind(self) -> tuple[str, tuple[tuple[int, ...], ...]]:
        """The key that states of one metric share: its name, and the shapes of the parts."""
        return self.name, tuple(p.shape[1:] if self.joins else p.shape for p in self.parts)


def add_up(states: Sequence[MetricState]) -> MetricState:
    """Return the state of all samples, with parts on the host; each part is read in one transfer.

    ValueError for states of different metrics.
    """
    first = states[0]
    for state in states[1:]:
        if state.kind != first.kind:
            raise ValueError(f"{first} and {state} are not parts of the same metric")
    columns = zip(*(state.parts for state in states), strict=True)
    return replace(first, parts=tuple([_joined(column, first.joins) for column in columns]))


def _joined(parts: Sequence[Part], joins: bool) -> NDArray[Any]:
    """One part of all states: added in float64, or concatenated."""
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if len(tensors) == len(parts):  # of a device: one transfer
        found = (concat(tensors) if joins else stack(tensors)).numpy()
        return found if joins else found.astype(np.float64).sum(0)
    arrays = [p.numpy() if isinstance(p, (Tensor, LatePart)) else p for p in parts]
    if joins:
        arrays = [each for each in arrays if each.size] or arrays[:1]  # [] is of float64
        arrays = [*alike(arrays)]
    return np.concatenate(arrays) if joins else np.sum(arrays, axis=0)
