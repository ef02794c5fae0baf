"""Counts of classes of a small batch in one compiled loop, where NumPy makes ten calls.

Over many scores NumPy's argmax, which runs on vectors, is faster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np

from rumus.tensor.backends import numpy_class_counts
from rumus.tensor.compiled.numba_shapes import reads, writes
from rumus.tensor.expression.dtype import float32, int32
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.fused import FusedName

MANY: Final = 8_192  # scores from which NumPy's version runs
_NO_MATRIX: Final = np.empty((0, 0), float32)


def class_hits(scores: Array, targets: Array, top: int, out: Array) -> None:
    """As `numpy_class_counts.class_hits`."""
    if top != 1 or not _is_small(scores, targets):
        numpy_class_counts.class_hits(scores, targets, top, out)
        return
    reads("class_hits", targets=(targets, scores.shape[:1]))
    writes("class_hits", out=(out, (4,)))
    _compiled()(scores, targets, _NO_MATRIX, out)


def class_confusion(scores: Array, targets: Array, matrix: Array, out: Array) -> None:
    """As `numpy_class_counts.class_confusion`."""
    if not _is_small(scores, targets):
        numpy_class_counts.class_confusion(scores, targets, matrix, out)
        return
    reads("class_confusion", targets=(targets, scores.shape[:1]))
    writes("class_confusion", matrix=(matrix, (scores.shape[1],) * 2), out=(out, (4,)))
    matrix.fill(0)
    _compiled()(scores, targets, matrix, out)


def _is_small(scores: Array, targets: Array) -> bool:
    """Whether the loop takes them: with another dtype or layout it would be compiled once more."""
    is_known = scores.dtype == float32 and targets.dtype == int32
    is_dense = scores.flags.c_contiguous and targets.flags.c_contiguous
    return bool(is_known and is_dense and scores.size < MANY)


def _count(scores: Any, targets: Any, matrix: Any, out: Any) -> None:
    """For numba to compile. matrix: of zeros, or of no classes where none is wanted."""
    hits, nans, outside = 0, 0, 0
    for row in range(scores.shape[0]):
        first, largest, target = 0, scores[row, 0], targets[row]
        for i in range(1, scores.shape[1]):
            value = scores[row, i]
            if value > largest or (value != value and largest == largest):  # NaN wins
                first, largest = i, value
        hits += first == target
        nans += largest != largest
        if target < 0 or target >= scores.shape[1]:
            outside += 1
        elif matrix.shape[0]:
            matrix[target, first] += 1
    out[0], out[1], out[2], out[3] = hits, scores.shape[0] - hits, nans, outside


@cache
def _compiled() -> Callable[..., None]:
    import numba

    loop: Callable[..., None] = numba.njit(nogil=True, error_model="numpy", cache=True)(_count)
    return loop


CLASS_COUNTS: Final[Mapping[FusedName, Callable[..., None]]] = {
    "class_confusion": class_confusion,
    "class_hits": class_hits,
}
