"""Counts of predicted classes: computed where the scores are, on the host or on a device.

On a device nothing is read back. Bad batches cannot raise at once, so they are counted too, and
`raise_problems` raises when the counts are read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rumus.tensor import Tensor, float64, int32, tensor
from rumus.tensor.backends import numpy_class_counts
from rumus.tensor.expression.masked import unmasked
from rumus.tensor.operations.class_counts import class_confusion, class_hits, class_totals
from rumus.train.base.exact_difference import is_exact
from rumus.train.base.late_counts import late_parts
from rumus.train.base.metric_state import Part
from rumus.train.base.row_labels import check_row_order

Given: TypeAlias = Tensor | ArrayLike

_MOST: Final = 10_000  # classes of which all pairs are counted: 0.8 GB


def is_remote(given: Given) -> bool:
    """Whether something is on a device, or of a training step: what reads it cannot be captured."""
    return isinstance(given, Tensor) and (given.requires_grad or given.backend.runs_ahead)


def on_host(given: Given) -> NDArray[Any]:
    """Return it as an array."""
    return given.numpy() if isinstance(given, Tensor) else unmasked(given)


def shape_of(given: Given) -> tuple[int, ...]:
    """Return its shape, wherever it is."""
    return given.shape if isinstance(given, Tensor) else np.shape(given)


def dtype_of(given: Given) -> np.dtype[Any]:
    """Return its dtype, wherever it is."""
    return given.dtype if isinstance(given, Tensor) else np.asarray(given).dtype


def beside(given: Given, other: Tensor) -> Tensor:
    """Return it as a tensor where another one is."""
    if isinstance(given, Tensor):
        return given.detach().to(other.backend)
    dtype = float64 if other.dtype == float64 and dtype_of(given) == float64 else None
    return tensor(given, dtype=dtype, backend=other.backend)


@dataclass(frozen=True, slots=True)
class Hits:
    """Counts samples: hits, misses, NaN scores, invalid classes.

    A hit has its class among the `top` best scores.
    """

    top: int

    def __call__(self, scores: NDArray[Any], targets: NDArray[Any]) -> tuple[NDArray[Any]]:
        """Return the four counts."""
        counts = np.empty(4)
        numpy_class_counts.class_hits(scores, targets, self.top, counts)
        return (counts,)

    def shapes(self, classes: int) -> list[tuple[int, ...]]:
        """Return the shape of the counts."""
        return [(4,)]


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts how often class j had the best score in class i, and what `Hits(1)` does."""

    def __call__(self, scores: NDArray[Any], targets: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Return the matrix and the four counts."""
        matrix, counts = np.empty((scores.shape[1],) * 2), np.empty(4)
        numpy_class_counts.class_confusion(scores, targets, matrix, counts)
        return matrix, counts

    def shapes(self, classes: int) -> list[tuple[int, ...]]:
        """Return the shapes of both."""
        return [(classes, classes), (4,)]


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts by class the best scores, the targets and the hits, and what `Hits(1)` does."""

    def __call__(self, scores: NDArray[Any], targets: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Return the three, one after another, and the four counts."""
        totals, counts = np.empty(3 * scores.shape[1]), np.empty(4)
        numpy_class_counts.class_totals(scores, targets, totals, counts)
        return totals, counts

    def shapes(self, classes: int) -> list[tuple[int, ...]]:
        """Return the shapes of both."""
        return [(3 * classes,), (4,)]


def counted_hits(scores: Given, targets: Given, top: int) -> Part:
    """Return the counts of `Hits`. On the host, NaN scores and invalid classes raise here."""
    check_shapes(scores, targets)
    if is_remote(scores):
        there = _remote(scores, targets)
        late = late_parts(Hits(top), *there)
        return class_hits(*there, top) if late is None else late[0]
    rows = on_host(scores)
    (counts,) = Hits(top)(rows, on_host(targets))
    raise_problems(counts, rows.shape[1])
    return counts


def confusion_counts(scores: Given, targets: Given) -> tuple[Part, Part]:
    """Return the counts of `Confusion`, with the errors of `counted_hits`.

    ValueError for more classes than have a matrix.
    """
    return _counted(Confusion(), class_confusion, scores, targets)


def total_counts(scores: Given, targets: Given) -> tuple[Part, Part]:
    """Return the counts of `Totals`, with the errors of `confusion_counts`."""
    return _counted(Totals(), class_totals, scores, targets)


def _counted(
    counting: Confusion | Totals, there: Callable[..., Any], scores: Given, targets: Given
) -> tuple[Part, Part]:
    """there: counts the same where tensors are."""
    check_shapes(scores, targets)
    if (classes := shape_of(scores)[1]) > _MOST:
        raise ValueError(
            f"a matrix of {classes:,} by {classes:,} classes would take {8e-9 * classes**2:.1f} "
            f"GB: at most {_MOST:,} are counted against each other; accuracy(...) counts hits"
        )
    if is_remote(scores):
        given = _remote(scores, targets)
        first, counts = late_parts(counting, *given) or there(*given)
        return first, counts
    rows = on_host(scores)
    found, counts = counting(rows, on_host(targets))
    raise_problems(counts, rows.shape[1])
    return found, counts


def raise_problems(counts: NDArray[Any], classes: int, metric: str = "") -> None:
    """Raise ValueError if `counted_hits` has counted invalid scores or classes.

    metric: what is told of where they were, when they are read long after.
    """
    _, _, nans, outside = counts
    where = f"{metric}: " if metric else ""
    if outside:
        raise ValueError(where + no_class(classes))
    if nans:
        raise ValueError(f"{where}scores must be numbers, but some are NaN")


def no_class(classes: int) -> str:
    """Return what to say of targets that are not among so many classes."""
    told = f"targets must be in [0, {classes}), the classes of the scores"
    if classes == 1:
        told += ", of which a single output has one: of two classes give (1 - p, p)"
    return told


def as_numbers(given: Given) -> NDArray[Any]:
    """Return it as an array, of float64 unless that rounds. ValueError if it is not numeric."""
    found = on_host(given)
    if found.dtype.kind not in "biuf":
        raise ValueError(f"predictions and targets must be numbers, not {found.dtype}")
    return found.astype(np.float64) if is_exact(found) else found


def check_shapes(scores: Given, targets: Given) -> None:
    """Raise ValueError for shapes or rows that do not fit, and targets that are not integers."""
    check_row_order((("scores", scores), ("targets", targets)))
    found, wanted, dtype = shape_of(scores), shape_of(targets), dtype_of(targets)
    if len(found) != 2 or wanted != found[:1] or not found[1]:
        raise ValueError(
            f"scores must be (samples, classes) and targets (samples,), not {found} and {wanted}"
        )
    if dtype.kind not in "iu":
        raise ValueError(f"targets must be class numbers, not of dtype {dtype}")


def _remote(scores: Given, targets: Given) -> tuple[Tensor, Tensor]:
    assert isinstance(scores, Tensor)
    return scores.detach(), beside(targets, scores).astype(int32)
