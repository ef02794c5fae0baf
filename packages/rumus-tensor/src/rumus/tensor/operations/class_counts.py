"""How often scores say which class: counts of a batch where it lies, with nothing read.

What is wrong with a batch on a device cannot be said there and then, so it is counted as well. A
backend without kernels of its own makes the counts of primitives, in four dispatches for the best
score; one test holds the two together.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from rumus.tensor.expression.dtype import float32, int32
from rumus.tensor.expression.kernel import trace
from rumus.tensor.graph.operators import cast
from rumus.tensor.graph.shaping import concat
from rumus.tensor.graph.tensor import Tensor, arange, backend_of


def _judged(said: Any, target: Any, best: Any, *, top: Any, classes: Any) -> dict[str, Any]:
    is_hit = (said - target).abs() < top
    return {
        "hit": is_hit.where(1.0, 0.0),
        "miss": is_hit.where(0.0, 1.0),
        "nan": best._apply("eq", best, best).where(0.0, 1.0),
        "outside": (target < 0.0).where(1.0, (target >= classes).where(1.0, 0.0)),
    }


_JUDGE: Final = trace(_judged, "judge_classes")


def class_hits(scores: Tensor, targets: Tensor, top: int = 1) -> Tensor:
    """Return how many rows have their target among the `top` best scores.

    scores: (rows, classes), floating.
    targets: (rows,), int32.
    top: in [1, classes]. Of equal scores the first is better for 1, the last otherwise.

    Result: (4,), float32: hits, other rows, rows with a score that is NaN, and rows whose target is
    outside [0, classes).
    """
    backend = backend_of("class_hits", (scores, targets))
    own = backend.fused("class_hits")
    if own is None:
        return class_hits_primitive(scores, targets, top)
    out = backend.allocate((4,), float32)
    own(scores._array, targets._array, top, out)
    return Tensor(out, backend)


def class_confusion(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return how often each class has the best score of rows of each class.

    scores, targets: as in `class_hits`.

    Result: (classes, classes), float32, by target and by the class with the best score, without
    rows whose target is not a class; and what `class_hits` returns.
    """
    backend = backend_of("class_confusion", (scores, targets))
    own = backend.fused("class_confusion")
    if own is None:
        count = scores.shape[1]
        matrix = _one_hot(targets, count).T @ _one_hot(scores.argmax(1), count)
        return matrix, class_hits_primitive(scores, targets, 1)
    matrix = backend.allocate((scores.shape[1],) * 2, float32)
    out = backend.allocate((4,), float32)
    own(scores._array, targets._array, matrix, out)
    return Tensor(matrix, backend), Tensor(out, backend)


def class_totals(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return how often each class has the best score, is the target, and is both.

    scores, targets: as in `class_hits`.

    Result: (3 * classes,), float32, the three one after another, without rows whose target is not a
    class; and what `class_hits` returns.
    """
    backend, count = backend_of("class_totals", (scores, targets)), scores.shape[1]
    own = backend.fused("class_totals")
    if own is None:
        matrix, found = class_confusion(scores, targets)
        diagonal = matrix.reshape(-1)[:: count + 1]
        return concat([matrix.sum(0), matrix.sum(1), diagonal]), found
    totals = backend.allocate((3 * count,), float32)
    out = backend.allocate((4,), float32)
    own(scores._array, targets._array, totals, out)
    return Tensor(totals, backend), Tensor(out, backend)


def class_hits_primitive(scores: Tensor, targets: Tensor, top: int) -> Tensor:
    """`class_hits` in primitives."""
    scores, backend = scores.detach(), scores.backend
    rows, classes = scores.shape
    said = scores.argmax(1) if top == 1 else targets + _better(scores, targets)
    judged = backend.allocate((4, rows), float32)
    best = cast(scores.max(1), float32)  # NaN wins
    arrays = said._array, targets._array, best._array
    scalars = _JUDGE.bind({"top": float(top), "classes": float(classes)})
    backend.elementwise(_JUDGE, arrays, scalars, [judged[row] for row in range(4)])
    out = backend.allocate((4,), float32)
    backend.reduce("sum", judged, (1,), out)
    return Tensor(out, backend)


def _better(scores: Tensor, targets: Tensor) -> Tensor:
    """How many classes are better than each target."""
    here = _one_hot(targets, scores.shape[1])
    own = (here > 0).where(scores, 0.0).sum(1).reshape(-1, 1)
    backend: Any = scores.backend  # as a key of the cache
    later = _numbers(backend, scores.shape[1]) > targets.reshape(-1, 1)
    tied = cast(scores == own, float32) * cast(later, float32)
    return cast((cast(scores > own, float32) + tied).sum(1), int32)


@lru_cache(maxsize=64)
def _numbers(backend: Any, count: int) -> Tensor:
    """The classes, as a row; made once, as a step that is captured uploads nothing."""
    return arange(count, backend=backend).reshape(1, -1)


def _one_hot(classes: Tensor, count: int) -> Tensor:
    backend: Any = classes.backend  # as a key of the cache
    return cast(classes.reshape(-1, 1) == _numbers(backend, count), float32)
