"""Metrics that are exact over a whole set, however it is split into batches.

Each function takes a model's scores for a batch and the targets, as tensors or arrays, and returns
a `MetricState`: a validation that returns it by name adds up those of all batches, and `float` of
one is the metric. They match scikit-learn, in float64 on the host. Scores on a GPU, or of a
training step (with a graph), are counted there, in float32 within a batch, and read on demand: so
steps that log metrics are captured like others. Over no samples, every metric is NaN, where
scikit-learn raises an error: an empty batch is allowed, and adds nothing.

>>> import numpy as np
>>> from rumus.train import metrics
>>> scores, targets = np.array([[0.2, 0.8], [0.9, 0.1], [0.4, 0.6]]), np.array([1, 0, 0])
>>> float(metrics.accuracy(scores, targets)), float(metrics.f1(scores, targets, positive=1))
(0.6666666666666666, 0.6666666666666666)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rumus.tensor import Tensor
from rumus.tensor.expression.whole_number import whole_number
from rumus.train.base.class_counts import (
    Given,
    as_numbers,
    beside,
    check_shapes,
    confusion_counts,
    counted_hits,
    is_remote,
    raise_problems,
    shape_of,
    total_counts,
)
from rumus.train.base.exact_difference import difference, difference_there, is_exact
from rumus.train.base.metric_state import CONFUSION_MATRIX, MetricState, Values
from rumus.train.base.other_names import METRICS, OF_METRIC
from rumus.train.base.row_labels import check_row_order
from rumus.train.base.surprise import surprise

Finish: TypeAlias = Callable[..., Any]
Floats: TypeAlias = NDArray[np.float64]
Numbers: TypeAlias = NDArray[Any]

__all__ = [
    "MetricState",
    "accuracy",
    "auroc",
    "average_precision",
    "confusion_matrix",
    "f1",
    "mean_absolute_error",
    "perplexity",
    "precision",
    "r2",
    "recall",
    "root_mean_squared_error",
]

if not TYPE_CHECKING:  # for type checkers, a module with this function has every attribute

    def __getattr__(name: str) -> NoReturn:
        """Tell what to write instead of another library's name."""
        METRICS.refuse(name)


@OF_METRIC.as_keywords
def accuracy(scores: Given, targets: Given, *, top: int = 1) -> MetricState:
    """The share of samples whose class is among the `top` best scores.

    Among equal scores, the lower class ranks first for top=1, and the higher one otherwise, as in
    scikit-learn.

    scores: (samples, classes).
    targets: (samples,), class indices.
    top: the number of best scores that count, in [1, classes].

    Raises ValueError for shapes that do not fit, NaN scores, targets out of range, and a `top`
    outside [1, classes]; for a batch on a GPU, when the metric is read. In a training step, the
    logged metric is then NaN, with a warning at the end of the epoch, and training continues.
    """
    check_shapes(scores, targets)
    classes = shape_of(scores)[1]
    if not 1 <= whole_number("top", top) <= classes:
        raise ValueError(f"top must be in [1, {classes}], the number of classes, not {top}")
    counts = counted_hits(scores, targets, top)
    name = f"accuracy(top={top})"
    return MetricState(name, (counts,), partial(_accuracy, name, classes))


@OF_METRIC.as_keywords
def confusion_matrix(scores: Given, targets: Given) -> MetricState:
    """Counts by class, (target, prediction).

    `state.matrix` is the matrix; `float` of the state is the accuracy.

    A run folder keeps the matrix if a validation returns it, and the report shows it.

    scores, targets: as in `accuracy`, with the same errors, and one for more than 10,000 classes.

    >>> import numpy as np
    >>> from rumus.train.metrics import confusion_matrix
    >>> scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    >>> confusion_matrix(scores, np.array([0, 1, 1])).matrix.tolist()
    [[1, 0], [1, 1]]
    """
    parts = confusion_counts(scores, targets)
    return MetricState(CONFUSION_MATRIX, parts, _of_matrix)


@OF_METRIC.as_keywords
def precision(scores: Given, targets: Given, *, positive: int | None = None) -> MetricState:
    """True positives among predicted positives; 0 if there are none.

    scores, targets: as in `confusion_matrix`, with the same errors.
    positive: the positive class; None for the mean over all classes that occur in targets or
        predictions ("macro").
    """
    return _of_confusion("precision", scores, targets, positive)


@OF_METRIC.as_keywords
def recall(scores: Given, targets: Given, *, positive: int | None = None) -> MetricState:
    """True positives among actual positives; 0 if there are none.

    scores, targets, positive: as in `precision`, with the same errors.
    """
    return _of_confusion("recall", scores, targets, positive)


@OF_METRIC.as_keywords
def f1(scores: Given, targets: Given, *, positive: int | None = None) -> MetricState:
    """2 TP / (2 TP + FP + FN); 0 if there are none.

    scores, targets, positive: as in `precision`, with the same errors.
    """
    return _of_confusion("f1", scores, targets, positive)


@OF_METRIC.as_keywords
def auroc(scores: Given, targets: Given) -> MetricState:
    """The area under the ROC curve: how often a positive sample scores higher than a negative one.

    NaN if a class is absent. Keeps all scores.

    scores: (samples,), any numbers; equal ones count half.
    targets: (samples,), 0 or 1.

    Raises ValueError for shapes that differ, NaN scores and other targets.
    """
    return _kept("auroc", scores, targets, _scored, _auroc)


@OF_METRIC.as_keywords
def average_precision(scores: Given, targets: Given) -> MetricState:
    """sum_n (R_n - R_(n-1)) P_n over the thresholds; 0 without positives.

    Keeps all scores.

    scores, targets: as in `auroc`, with the same errors.
    """
    return _kept("average_precision", scores, targets, _scored, _average_precision)


@OF_METRIC.as_keywords
def perplexity(logits: Given, targets: Given, *, ignore_index: int = -100) -> MetricState:
    """exp of the mean of -log softmax(logits)[target], over all targets that are not ignored.

    NaN if all targets are ignored, and on a GPU if a target is out of range.

    logits: (..., classes).
    targets: (...), class indices.
    ignore_index: the target to ignore, as in `rumus.nn.cross_entropy_loss`.

    Raises ValueError for shapes that do not fit and, on the host, for a target out of range.
    """
    losses, count = surprise(logits, targets, ignore_index)
    return MetricState("perplexity", (losses, count), _perplexity)


@OF_METRIC.as_keywords
def mean_absolute_error(predictions: Given, targets: Given) -> MetricState:
    """The mean of |prediction - target|, over all elements; NaN if one is.

    predictions, targets: of equal shape; otherwise raises ValueError.
    """
    return _of_errors("mean_absolute_error", predictions, targets, abs, _ratio)


@OF_METRIC.as_keywords
def root_mean_squared_error(predictions: Given, targets: Given) -> MetricState:
    """The root of the mean square of prediction - target, over all elements; NaN if one is.

    As in torchmetrics. scikit-learn's is, of several outputs, the mean of their roots.

    predictions, targets: of equal shape; otherwise raises ValueError.
    """
    square = lambda error: error * error
    return _of_errors("root_mean_squared_error", predictions, targets, square, _root_of_ratio)


@OF_METRIC.as_keywords
def r2(predictions: Given, targets: Given) -> MetricState:
    """1 - sum (y - p)^2 / sum (y - mean y)^2 over the samples, whose values are kept.

    Of several outputs it is the mean of theirs, as by default in scikit-learn and torchmetrics. For
    constant targets it is 1 if all predictions are right, otherwise 0. NaN for a single sample.

    predictions, targets: of equal shape, (samples,) or (samples, ...): each place is an output.

    Raises ValueError for shapes that differ, and for NaN.
    """
    return _kept("r2", predictions, targets, _paired, _r2)


def _of_errors(
    name: str, predictions: Given, targets: Given, of: Callable[[Any], Any], finish: Finish
) -> MetricState:
    if isinstance(predictions, Tensor) and is_remote(predictions):
        _check_same(shape_of(predictions), shape_of(targets))
        there = predictions.detach()
        error = difference_there(there, beside(targets, there))
        return MetricState(name, (of(error).sum(), np.array(float(error.size))), finish)
    errors = difference(*_numbers(predictions, targets))
    return MetricState(name, (np.array(of(errors).sum()), np.array(float(errors.size))), finish)


def _kept(
    name: str, given: Given, targets: Given, check: Callable[..., Any], finish: Finish
) -> MetricState:
    """A state that keeps all values; those on a device are checked when read."""
    if isinstance(given, Tensor) and is_remote(given):
        _check_same(shape_of(given), shape_of(targets))
        parts: tuple[Values, ...] = given.detach(), beside(targets, given)
        finish = partial(_checked, check, finish)
    else:
        parts = check(given, targets)
    shape = shape_of(given)
    outputs = math.prod(shape[1:])
    rows = shape[:1] if outputs == 1 else (*shape[:1], outputs)
    kept = tuple([part.reshape(rows or (1,)) for part in parts])
    return MetricState(name, kept, finish, joins=True)


def _checked(check: Callable[..., Any], finish: Finish, *parts: Any) -> Any:
    return finish(*check(*parts))


def _check_same(found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if found != wanted:
        raise ValueError(f"shapes differ: predictions {found}, targets {wanted}")


def _scored(scores: Given, targets: Given) -> tuple[Numbers, Floats]:
    values, truth = _paired(scores, targets)
    if values.ndim != 1:
        raise ValueError(
            f"scores must be (samples,), those of the positive class, not {values.shape}"
        )
    others = truth[~np.isin(truth, (0, 1))]
    if others.size:
        raise ValueError(f"targets must be 0 or 1, not {others[0]:g}")
    return values, truth.astype(np.float64)


def _numbers(predictions: Given, targets: Given) -> tuple[Numbers, Numbers]:
    check_row_order((("predictions", predictions), ("targets", targets)))
    found, wanted = as_numbers(predictions), as_numbers(targets)
    _check_same(found.shape, wanted.shape)
    return found, wanted


def _paired(predictions: Given, targets: Given) -> tuple[Numbers, Numbers]:
    found, wanted = _numbers(predictions, targets)
    if np.isnan(found).any() or np.isnan(wanted).any():
        raise ValueError("predictions and targets must be numbers, but some are NaN")
    return found, wanted


def _ratio(part: Any, whole: Any) -> Any:
    return part / whole if whole else np.nan


def _root_of_ratio(part: Any, whole: Any) -> Any:
    return np.sqrt(_ratio(part, whole))


def _accuracy(name: str, classes: int, counts: Floats) -> Any:
    raise_problems(counts, classes, name)
    hits, misses, *_ = counts
    return _ratio(hits, hits + misses)


def _of_matrix(matrix: Floats, counts: Floats) -> Any:
    return _accuracy(CONFUSION_MATRIX, len(matrix), counts)


def _perplexity(losses: Any, count: Any) -> Any:
    with np.errstate(over="ignore"):
        return np.exp(losses / count) if count else np.nan


def _of_confusion(name: str, scores: Given, targets: Given, positive: int | None) -> MetricState:
    parts = total_counts(scores, targets)
    classes = shape_of(scores)[1]
    if positive is not None and not 0 <= whole_number("positive", positive) < classes:
        raise ValueError(f"positive must be a class in [0, {classes}), not {positive}")
    return MetricState(f"{name}(positive={positive})", parts, partial(_rate, name, positive))


def _rate(name: str, positive: int | None, totals: Floats, counts: Floats) -> float:
    said, there, right = np.split(totals, 3)
    raise_problems(counts, len(said), name)
    whole = {"precision": said, "recall": there, "f1": (said + there) / 2}[name]
    rates = np.divide(right, whole, out=np.zeros_like(whole), where=whole > 0)
    occurs = said + there > 0
    if not occurs.any():
        return float("nan")
    return float(rates[occurs].mean() if positive is None else rates[positive])


def _auroc(scores: Numbers, targets: Floats) -> float:
    positives = targets.sum()
    negatives = targets.size - positives
    if not positives or not negatives:
        return float("nan")
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (count.cumsum() - (count - 1) / 2)[place]  # the mean rank of equal scores
    above = rank[targets == 1].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def _average_precision(scores: Numbers, targets: Floats) -> float:
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    hits = np.bincount(place, weights=targets, minlength=len(count))[::-1]
    count = count[::-1]  # the largest scores first
    positives = targets.sum()
    if not positives:
        return 0.0 if targets.size else float("nan")
    return float((hits / positives * hits.cumsum() / count.cumsum()).sum())


def _r2(predictions: Numbers, targets: Numbers) -> float:
    if len(targets) < 2:
        return float("nan")
    residual = np.atleast_1d((difference(targets, predictions) ** 2).sum(0))
    if not is_exact(targets):
        targets = difference(targets, targets[:1])
    total = np.atleast_1d(((targets - targets.mean(0)) ** 2).sum(0))
    constant = np.where(residual, 0.0, 1.0)
    found = np.where(total, 1 - residual / np.where(total, total, 1.0), constant)
    return float(found.mean()) if found.size else float("nan")
