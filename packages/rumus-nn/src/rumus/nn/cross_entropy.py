"""`cross_entropy_loss`: how badly logits predict classes, or probabilities of classes."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rumus.nn.reduction import Reduction, check_floating, check_reduction, is_readable
from rumus.tensor import (
    Expr,
    Tensor,
    TensorLike,
    cross_entropy,
    elementwise,
    float16,
    float32,
    int32,
    tensor,
)
from rumus.tensor.graph.indexing import known_bounds
from rumus.tensor.graph.means import note_mean

T = TypeVar("T", Tensor, Expr)
NAME = "cross_entropy_loss"


@elementwise
def _expected(log_probability: T, target: T, *, keep: float, share: float) -> T:
    probability = keep * target + share
    # A class that cannot be costs nothing, even where its logit is -inf.
    return (probability <= 0).where(0.0, -probability * log_probability)


def cross_entropy_loss(
    logits: Tensor,
    targets: TensorLike,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """-log softmax(logits)[target], or -sum(target log softmax(logits)) for probabilities.

    logits: (..., classes), floating; the classes are the last axis, whatever the number of axes.
    targets: integers of shape (...), the number of the class; or floating of shape (..., classes),
    the probability of each class. A tensor or an array.
    ignore_index: integer targets of this value count nothing, neither in the sum nor in the mean.
    label_smoothing: in [0, 1]; mixes this much of 1 / classes into the targets. Szegedy et al.:
    arXiv:1512.00567, section 7.
    Result: one number, or for reduction "none" one for each target, 0 where it is ignored; float32
    for logits of float16.

    Class numbers take no second array of the logits' size: `backward` writes the gradient over the
    logits if nobody holds them by then. A variable of yours does, unless it is local to a function
    that has returned, as a loss function of `Trainer` has.

    IndexError for a target that is no class, with its value and its place; ValueError for shapes
    that do not fit, when there is nothing to take the mean of (no target, or all ignored), and for
    a label_smoothing out of range; TypeError for dtypes that make no sense. On a GPU, integer
    tensors are not looked at, since that would be a transfer: where there are some to ignore, the
    loss of a target that is no class is NaN, and so is a mean of nothing.

    >>> from rumus.tensor import tensor
    >>> logits = tensor([[2.0, 0.0], [0.0, 2.0]])
    >>> round(cross_entropy_loss(logits, [0, 1]).item(), 4)
    0.1269
    >>> cross_entropy_loss(logits, [0, -100], reduction="none")[1].item()
    0.0
    """
    check_reduction(NAME, reduction)
    check_floating(NAME, "the logits", logits)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"{NAME}: label_smoothing must be in [0, 1], not {label_smoothing}")
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"{NAME}: logits of shape {logits.shape} have no classes")
    given = targets if isinstance(targets, Tensor) else np.asarray(targets)
    _check_fit(logits, given, reduction)
    if given.dtype.kind == "f":
        logits = logits.astype(float32) if logits.dtype == float16 else logits
        beside = _beside(logits, given)
        losses = _of_probabilities(logits, beside, label_smoothing)
        return _reduced(losses, losses.size, reduction)
    losses, count = _of_classes(logits, given, ignore_index, label_smoothing)
    if reduction == "none":
        return losses.reshape(given.shape)
    return _reduced(losses, count, reduction)


def _check_fit(logits: Tensor, targets: Tensor | NDArray[Any], reduction: str) -> None:
    """Raise TypeError or ValueError for targets of a wrong dtype or shape."""
    kind = targets.dtype.kind
    if kind not in "iuf":
        raise TypeError(f"{NAME}: targets must be integers or probabilities, not {targets.dtype}")
    wanted = logits.shape if kind == "f" else logits.shape[:-1]
    if targets.shape != wanted:
        what = "probabilities" if kind == "f" else "class numbers"
        raise ValueError(
            f"{NAME}: targets of {targets.dtype} are {what} and need shape {wanted} for logits of "
            f"shape {logits.shape} (..., classes), not {targets.shape}"
        )
    if reduction == "mean" and math.prod(logits.shape[:-1]) == 0:
        raise ValueError(f"{NAME}: the mean of no targets, logits of shape {logits.shape}")


def _beside(logits: Tensor, targets: Tensor | NDArray[Any]) -> Tensor:
    if isinstance(targets, Tensor):
        return targets
    dtype = logits.dtype if targets.dtype.kind == "f" else int32
    return tensor(targets, dtype=dtype, backend=logits.backend)


def _of_probabilities(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    share = smoothing / logits.shape[-1]
    terms = _expected(logits.log_softmax(), targets, keep=1 - smoothing, share=share)
    return terms.sum(-1)


def _of_classes(
    logits: Tensor, targets: Tensor | NDArray[Any], ignore_index: int, smoothing: float
) -> tuple[Tensor, Tensor | int]:
    """The loss of each target, flattened, 0 where ignored; and how many are not ignored."""
    classes = logits.shape[-1]
    rows = logits if logits.ndim == 2 else logits.reshape(math.prod(targets.shape), classes)
    if isinstance(targets, np.ndarray):
        count = _count_classes(targets, classes, ignore_index)
        index = _beside(logits, targets).reshape(-1)
        ignored = None if count == index.size else ignore_index
        return cross_entropy(rows, index, smoothing, ignored), count
    index = targets if targets.ndim == 1 else targets.reshape(-1)
    if is_readable(rows) and is_readable(index):
        count = _count_classes(targets.numpy(), classes, ignore_index)
        ignored = None if count == index.size else ignore_index
        return cross_entropy(rows, index, smoothing, ignored), count
    low, high = known_bounds(index) or (ignore_index, ignore_index)
    if not low <= ignore_index <= high:
        return cross_entropy(rows, index, smoothing), index.size
    losses = cross_entropy(rows, index, smoothing, ignore_index)
    return losses, (index != ignore_index).sum().astype(losses.dtype)


def _count_classes(targets: NDArray[Any], classes: int, ignore_index: int) -> int:
    """How many targets are not ignored; IndexError for the first that is no class."""
    ignored = targets == ignore_index
    wrong = ~ignored & ((targets < 0) | (targets >= classes))
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0].tolist())
        raise IndexError(
            f"{NAME}: target {targets[at]} at index {at} is outside of [0, {classes}), "
            f"and is not ignore_index ({ignore_index})"
        )
    return int(targets.size - ignored.sum())


def _reduced(losses: Tensor, count: Tensor | int, reduction: Reduction) -> Tensor:
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if isinstance(count, int) and count == 0:
        raise ValueError(f"{NAME}: every target is ignored, so there is nothing to take a mean of")
    if isinstance(count, int) and count == losses.size:
        return note_mean(losses.mean(), count)
    return note_mean(losses.sum() / count, count)
