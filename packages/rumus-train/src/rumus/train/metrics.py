"""Metrics that are exact over a whole set, however it is cut into batches.

Each function takes what a model says of a batch and the targets, as tensors or arrays, and returns
a `MetricState`: a validation that returns it by name adds up those of all batches, and `float` of
one is the metric. They are scikit-learn's, in float64 on the host.

>>> import numpy as np
>>> from rumus.train import metrics
>>> scores, targets = np.array([[0.2, 0.8], [0.9, 0.1], [0.4, 0.6]]), np.array([1, 0, 0])
>>> float(metrics.accuracy(scores, targets)), float(metrics.f1(scores, targets, positive=1))
(0.6666666666666666, 0.6666666666666666)
"""

from __future__ import annotations

from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rumus.tensor import Tensor
from rumus.train.base.metric_state import MetricState

Given: TypeAlias = Tensor | ArrayLike
Floats: TypeAlias = NDArray[np.float64]

__all__ = [
    "MetricState",
    "accuracy",
    "auroc",
    "average_precision",
    "confusion_matrix",
    "f1",
    "mean_absolute_error",
    "precision",
    "r2",
    "recall",
    "root_mean_squared_error",
]


def accuracy(scores: Given, targets: Given, *, top: int = 1) -> MetricState:
    """The share of samples whose class is among the `top` best scores.

    scores: (samples, classes). targets: (samples,), class numbers. Of equal scores the lower class
    is better for top=1, and the higher one otherwise, as in scikit-learn.
    ValueError for shapes that do not fit, classes that are none, a `top` outside of [1, classes].
    """
    rows, classes = _classified(scores, targets)
    if not 1 <= top <= rows.shape[1]:
        raise ValueError(f"top must be in [1, {rows.shape[1]}], the number of classes, not {top}")
    if top == 1:
        hits = rows.argmax(1) == classes
    else:
        best = np.argsort(rows, axis=1, kind="stable")[:, ::-1][:, :top]
        hits = (best == classes[:, None]).any(1)
    parts = np.array(float(hits.sum())), np.array(float(len(classes)))
    return MetricState(f"accuracy(top={top})", parts, _ratio)


def confusion_counts(scores: Given, targets: Given) -> Floats:
    """How often class j, the one with the best score, was said of samples of class i."""
    rows, classes = _classified(scores, targets)
    count = rows.shape[1]
    flat = np.bincount(classes * count + rows.argmax(1), minlength=count * count)
    return flat.reshape(count, count).astype(np.float64)


def confusion_matrix(scores: Given, targets: Given) -> MetricState:
    """Counts by class, (target, said). `state.parts[0]` is the matrix; `float` of it its accuracy.

    Shapes and errors are those of `accuracy`.
    """
    counts = confusion_counts(scores, targets)
    return MetricState("confusion_matrix", (counts,), lambda m: _ratio(np.trace(m), m.sum()))


def precision(scores: Given, targets: Given, *, positive: int | None = None) -> MetricState:
    """True positives among what was said to be positive; 0 where nothing was.

    positive: the class in question; None for the mean over all classes that occur in targets or
    predictions ("macro"). Shapes and errors are those of `accuracy`.
    """
    return _of_confusion("precision", scores, targets, positive)


def recall(scores: Given, targets: Given, *, positive: int | None = None) -> MetricState:
    """True positives among what is positive; 0 where nothing is. Arguments as in `precision`."""
    return _of_confusion("recall", scores, targets, positive)


def f1(scores: Given, targets: Given, *, positive: int | None = None) -> MetricState:
    """2 TP / (2 TP + FP + FN); 0 where there are none. Arguments as in `precision`."""
    return _of_confusion("f1", scores, targets, positive)


def auroc(scores: Given, targets: Given) -> MetricState:
    """The area under the ROC curve: how often a positive sample scores higher than a negative one.

    scores: (samples,), any numbers; equal ones count half. targets: (samples,), 0 or 1. NaN where
    a class is absent. Keeps all scores. ValueError for shapes that differ and other targets.
    """
    return MetricState("auroc", _scored(scores, targets), _auroc, joins=True)


def average_precision(scores: Given, targets: Given) -> MetricState:
    """sum_n (R_n - R_(n-1)) P_n over the thresholds. Arguments as in `auroc`; 0 without positives.

    Keeps all scores.
    """
    return MetricState(
        "average_precision", _scored(scores, targets), _average_precision, joins=True
    )


def mean_absolute_error(predictions: Given, targets: Given) -> MetricState:
    """The mean of |prediction - target|, over all elements. ValueError for shapes that differ."""
    error = np.subtract(*_paired(predictions, targets))
    parts = np.array(np.abs(error).sum()), np.array(float(error.size))
    return MetricState("mean_absolute_error", parts, _ratio)


def root_mean_squared_error(predictions: Given, targets: Given) -> MetricState:
    """The root of the mean square of prediction - target. ValueError for shapes that differ."""
    error = np.subtract(*_paired(predictions, targets))
    parts = np.array((error**2).sum()), np.array(float(error.size))
    return MetricState("root_mean_squared_error", parts, lambda s, n: np.sqrt(_ratio(s, n)))


def r2(predictions: Given, targets: Given) -> MetricState:
    """1 - sum (y - p)^2 / sum (y - mean y)^2, over all elements, which are kept.

    Of constant targets it is 1 if all predictions are right, else 0. ValueError for shapes.
    """
    found, wanted = _paired(predictions, targets)
    return MetricState("r2", (found.ravel(), wanted.ravel()), _r2, joins=True)


def _array(given: Given) -> NDArray[Any]:
    return given.numpy() if isinstance(given, Tensor) else np.asarray(given)


def _classified(scores: Given, targets: Given) -> tuple[NDArray[Any], NDArray[Any]]:
    rows, classes = _array(scores), _array(targets)
    if rows.ndim != 2 or classes.shape != rows.shape[:1]:
        raise ValueError(
            "scores must be (samples, classes) and targets (samples,), not "
            f"{rows.shape} and {classes.shape}"
        )
    if classes.dtype.kind not in "iu":
        raise ValueError(f"targets must be class numbers, not of dtype {classes.dtype}")
    if classes.size and not (classes.min() >= 0 and classes.max() < rows.shape[1]):
        raise ValueError(f"targets must be in [0, {rows.shape[1]}), the classes of the scores")
    if np.isnan(rows).any():
        raise ValueError("scores must be numbers, and some are NaN")
    return rows, classes.astype(np.intp)


def _scored(scores: Given, targets: Given) -> tuple[Floats, Floats]:
    values, truth = _paired(scores, targets)
    if values.ndim != 1 or not np.isin(truth, (0, 1)).all():
        raise ValueError(f"scores must be (samples,), targets 0 or 1; scores are {values.shape}")
    return values, truth


def _paired(predictions: Given, targets: Given) -> tuple[Floats, Floats]:
    found, wanted = _array(predictions).astype(np.float64), _array(targets).astype(np.float64)
    if found.shape != wanted.shape:
        raise ValueError(f"shapes differ: predictions {found.shape}, targets {wanted.shape}")
    if np.isnan(found).any() or np.isnan(wanted).any():
        raise ValueError("predictions and targets must be numbers, and some are NaN")
    return found, wanted


def _ratio(part: Any, whole: Any) -> Any:
    return part / whole if whole else 0.0


def _of_confusion(name: str, scores: Given, targets: Given, positive: int | None) -> MetricState:
    counts = confusion_counts(scores, targets)
    if positive is not None and not 0 <= positive < len(counts):
        raise ValueError(f"positive must be a class in [0, {len(counts)}), not {positive}")
    finish = partial(_rate, name, positive)
    return MetricState(f"{name}(positive={positive})", (counts,), finish)


def _rate(name: str, positive: int | None, counts: Floats) -> float:
    said, there, right = counts.sum(0), counts.sum(1), counts.diagonal()
    whole = {"precision": said, "recall": there, "f1": (said + there) / 2}[name]
    rates = np.divide(right, whole, out=np.zeros_like(whole), where=whole > 0)
    if positive is not None:
        return float(rates[positive])
    occurs = said + there > 0
    return float(rates[occurs].mean()) if occurs.any() else 0.0


def _auroc(scores: Floats, targets: Floats) -> float:
    positives = targets.sum()
    negatives = targets.size - positives
    if not positives or not negatives:
        return float("nan")
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (count.cumsum() - (count - 1) / 2)[place]  # the mean rank of equal scores
    above = rank[targets == 1].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def _average_precision(scores: Floats, targets: Floats) -> float:
    _, place, count = np.unique(-scores, return_inverse=True, return_counts=True)
    hits = np.bincount(place, weights=targets, minlength=len(count))
    positives = targets.sum()
    if not positives:
        return 0.0
    return float((hits / positives * hits.cumsum() / count.cumsum()).sum())


def _r2(predictions: Floats, targets: Floats) -> float:
    residual = ((targets - predictions) ** 2).sum()
    total = ((targets - targets.mean()) ** 2).sum() if targets.size else 0.0
    if not total:
        return 1.0 if not residual else 0.0
    return float(1 - residual / total)
