"""How often rows of scores say the right class, counted in a handful of NumPy's calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.memory.fused import FusedName

FEW: Final = 4_096  # scores that are looked at sooner than the largest of each row are found


def class_hits(scores: NDArray[Any], targets: NDArray[Any], top: int, out: NDArray[Any]) -> None:
    """out = rows with the target among the `top` best, other rows, with NaN, of no class.

    scores: (rows, classes). targets: (rows,), integers; one outside [0, classes) is of no class.
    Of equal scores the first is better for top=1, the last otherwise.
    """
    first = scores.argmax(1)  # NaN wins
    hits = first == targets if top == 1 else _better(scores, targets) < top
    _judge(scores, targets, first, hits, out)


def _better(scores: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.intp]:
    """How many classes of each row are better than its target; all, if that is no class.

    It is a look at each score, where sorting them takes as many as there are classes.
    """
    rows, classes = scores.shape
    known = (targets >= 0) & (targets < classes)
    places = np.where(known, targets, 0)
    own = scores[np.arange(rows), places, None]
    with np.errstate(invalid="ignore"):
        better = np.count_nonzero(~(scores <= own), axis=1)  # NaN is the best
        better += np.count_nonzero((scores == own) & (np.arange(classes) > places[:, None]), axis=1)
    found: NDArray[np.intp] = np.where(known, better, classes)
    return found


def class_confusion(
    scores: NDArray[Any], targets: NDArray[Any], matrix: NDArray[Any], out: NDArray[Any]
) -> None:
    """matrix[i, j] = rows of class i whose best score is that of j; `out` as of `class_hits`."""
    classes = scores.shape[1]
    targets, first = _known_pairs(scores, targets, out)
    if len(targets) < classes:  # most of the matrix is 0
        matrix.fill(0)
        np.add.at(matrix, (targets, first), 1)
        return
    cells = targets.astype(np.intp) * classes + first
    counts = np.bincount(cells, minlength=classes * classes)
    matrix[...] = counts.reshape(classes, classes)


def class_totals(
    scores: NDArray[Any], targets: NDArray[Any], totals: NDArray[Any], out: NDArray[Any]
) -> None:
    """totals = rows by the class of the best score, rows by target, and hits; `out` as above.

    They are the sums and the diagonal of `class_confusion`, without its matrix.

    totals: (3 * classes,), one after another.
    """
    classes = scores.shape[1]
    targets, first = _known_pairs(scores, targets, out)
    for place, found in enumerate((first, targets, first[first == targets])):
        counts = np.bincount(found.astype(np.intp, copy=False), minlength=classes)
        totals[place * classes : (place + 1) * classes] = counts


def _known_pairs(
    scores: NDArray[Any], targets: NDArray[Any], out: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The targets that are classes and the classes of the best scores; `out` as of `class_hits`."""
    first = scores.argmax(1)
    _judge(scores, targets, first, first == targets, out)
    if out[3]:
        known = (targets >= 0) & (targets < scores.shape[1])
        return targets[known], first[known]
    return targets, first


def _judge(
    scores: NDArray[Any],
    targets: NDArray[Any],
    first: NDArray[Any],
    hits: NDArray[Any],
    out: NDArray[Any],
) -> None:
    """first: in each row a class with NaN, if there is one.

    What is wrong is rare: one look at an extreme shows that nothing is; otherwise it is counted.
    The place of an extreme is found sooner than its value.
    """
    rows, classes = scores.shape
    right = np.count_nonzero(hits)
    out[0], out[1], out[2], out[3] = right, rows - right, 0, 0
    if not rows:
        return
    largest = scores if scores.size < FEW else scores[np.arange(rows), first]
    if math.isnan(largest.item(largest.argmax())):  # NaN wins
        out[2] = np.count_nonzero(np.isnan(scores[np.arange(rows), first]))
    if targets.dtype.kind == "i":
        targets = targets.view(f"u{targets.itemsize}")  # a negative one is large without its sign
    if targets.item(targets.argmax()) >= classes:
        out[3] = np.count_nonzero(targets >= classes)


CLASS_COUNTS: Final[Mapping[FusedName, Callable[..., None]]] = {
    "class_confusion": class_confusion,
    "class_hits": class_hits,
    "class_totals": class_totals,
}
