"""How often a model said which class: counted where its scores are, on the host or on a device.

On a device nothing is read. What is wrong with a batch cannot be said there and then, so it is
counted too, and `raise_problems` says it when the counts are read.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rumus.tensor import Tensor, arange, concat, elementwise, float32, int32, tensor
from rumus.train.base.metric_state import Part

Given: TypeAlias = Tensor | ArrayLike
NAN_SCORES: Final = "scores must be numbers, and some are NaN"
NO_CLASS: Final = "targets must be in [0, {}), the classes of the scores"


def is_remote(given: Given) -> bool:
    """Whether something is on a device, or of a training step: what reads it cannot be captured."""
    return isinstance(given, Tensor) and (given.requires_grad or given.backend.runs_ahead)


def on_host(given: Given) -> NDArray[Any]:
    """Return it as an array."""
    return given.numpy() if isinstance(given, Tensor) else np.asarray(given)


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
    return tensor(np.asarray(given), backend=other.backend)


def counted_hits(scores: Given, targets: Given, top: int) -> Part:
    """Return how many samples have their class among the `top` best scores; see `accuracy`."""
    check_shapes(scores, targets)
    if is_remote(scores):
        return _remote_hits(*_remote(scores, targets), top)
    rows, classes = _classified(scores, targets)
    if top == 1:
        return np.array(float((rows.argmax(1) == classes).sum()))
    best = np.argsort(rows, axis=1, kind="stable")[:, ::-1][:, :top]
    return np.array(float((best == classes[:, None]).any(1).sum()))


def confusion_counts(scores: Given, targets: Given) -> Part:
    """Return how often class j, the one with the best score, was said of samples of class i."""
    check_shapes(scores, targets)
    if is_remote(scores):
        rows, classes = _remote(scores, targets)
        count = rows.shape[1]
        return _one_hot(classes, count).T @ _one_hot(rows.argmax(1), count)
    rows_, classes_ = _classified(scores, targets)
    count = rows_.shape[1]
    flat = np.bincount(classes_ * count + rows_.argmax(1), minlength=count * count)
    return flat.reshape(count, count).astype(np.float64)


def counted_problems(scores: Given, targets: Given) -> tuple[Part, ...]:
    """Return a count of what is wrong with a batch on a device; nothing for one on the host."""
    if not is_remote(scores):
        return ()
    rows, classes = _remote(scores, targets)
    outside = _is_outside(classes, classes=float(rows.shape[1])).sum()
    nans = (rows != rows).astype(float32).sum()
    return (concat([nans.reshape(1), outside.reshape(1)]),)


def raise_problems(problems: NDArray[Any], classes: int) -> None:
    """Raise ValueError if `counted_problems` has counted any."""
    nans, outside = problems
    if outside:
        raise ValueError(NO_CLASS.format(classes))
    if nans:
        raise ValueError(NAN_SCORES)


def check_shapes(scores: Given, targets: Given) -> None:
    """Raise ValueError for shapes that do not fit, and targets that are no whole numbers."""
    found, wanted, dtype = shape_of(scores), shape_of(targets), dtype_of(targets)
    if len(found) != 2 or wanted != found[:1]:
        raise ValueError(
            f"scores must be (samples, classes) and targets (samples,), not {found} and {wanted}"
        )
    if dtype.kind not in "iu":
        raise ValueError(f"targets must be class numbers, not of dtype {dtype}")


def _remote_hits(rows: Tensor, classes: Tensor, top: int) -> Tensor:
    if top == 1:
        hits: Tensor = _is_equal(rows.argmax(1), classes).sum()
        return hits
    count = rows.shape[1]
    here = _one_hot(classes, count)
    own = (here > 0).where(rows, 0.0).sum(1).reshape(-1, 1)
    backend: Any = rows.backend  # as a key of the cache
    later = _numbers(backend, count) > classes.reshape(-1, 1)
    better = (rows > own).astype(float32) + (rows == own).astype(float32) * later.astype(float32)
    return (better.sum(1) < top).astype(float32).sum()


def _remote(scores: Given, targets: Given) -> tuple[Tensor, Tensor]:
    assert isinstance(scores, Tensor)
    return scores.detach(), beside(targets, scores).astype(int32)


@elementwise
def _is_equal(said: Any, wanted: Any) -> Any:
    return (~(said - wanted)).where(1.0, 0.0)


@elementwise
def _is_outside(number: Any, *, classes: float) -> Any:
    return (number < 0.0).where(1.0, (number >= classes).where(1.0, 0.0))


@lru_cache(maxsize=64)
def _numbers(backend: Any, count: int) -> Tensor:
    """The classes, as a row; made once, as a step that is captured uploads nothing."""
    return arange(count, backend=backend).reshape(1, -1)


def _one_hot(classes: Tensor, count: int) -> Tensor:
    backend: Any = classes.backend  # as a key of the cache
    return (classes.reshape(-1, 1) == _numbers(backend, count)).astype(float32)


def _classified(scores: Given, targets: Given) -> tuple[NDArray[Any], NDArray[Any]]:
    rows, classes = on_host(scores), on_host(targets)
    if classes.size and not (classes.min() >= 0 and classes.max() < rows.shape[1]):
        raise ValueError(NO_CLASS.format(rows.shape[1]))
    if np.isnan(rows).any():
        raise ValueError(NAN_SCORES)
    return rows, classes.astype(np.intp)
