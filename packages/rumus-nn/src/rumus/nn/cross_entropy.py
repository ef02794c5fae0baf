"""`cross_entropy_loss`: of logits for classes, or for probabilities of classes."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rumus.nn.class_losses import class_weights, count_classes
from rumus.nn.loss_input import OF_LOGITS, check_classes, check_input
from rumus.nn.probabilities import check_probabilities, warn_of_several_classes
from rumus.nn.reduction import (
    Found,
    Reduction,
    as_integers,
    as_target,
    check_floating,
    check_reduction,
    weighted,
    widened,
)
from rumus.tensor import Expr, Tensor, TensorLike, elementwise, ones
from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.real_number import real_number
from rumus.tensor.operations.cross_entropy import weighted_cross_entropy

T = TypeVar("T", Tensor, Expr)
NAME = "cross_entropy_loss"
_CLASSES = "floating targets are the probabilities of the classes; class numbers are integers"


@elementwise
def _expected(log_probability: T, target: T, weight: T, *, keep: float, share: float) -> T:
    probability = keep * target + share
    # An impossible class costs nothing, even if its logit is -inf.
    return (abs(probability) <= 0).where(0.0, weighted(weight, -probability * log_probability))


@checked_arguments
def cross_entropy_loss(
    logits: Tensor,
    targets: TensorLike,
    *,
    axis: int = -1,
    weight: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """-log softmax(logits)[target], or -sum(target log softmax(logits)) for probabilities.

    Class numbers need no second array of the logits' size: `backward` overwrites the logits with
    their gradient if nothing holds them by then. A variable of yours does, unless it is local to a
    function that has returned, such as a loss function for `Trainer`.

    logits: floating, with any number of axes, one of which is the classes.
    targets: integers of the other axes' shape, the number of the class; or floating of the shape of
        the logits, the probability of each class. A tensor or an array.
    axis: of the classes; 1 for images of (batch, classes, height, width).
    weight: (classes,), not negative, the weight of each class: the loss times weight[target], or
        each term of a sum over probabilities times its class's weight. The mean over class numbers
        is weighted: divided by the sum of the targets' weights. A class of weight 0 costs
        nothing, also with a logit of -inf. None: 1 for all.
    sample_weight: the weight of each target, not negative: (batch,), or with more of the targets'
        axes. The mean is also divided by the sum of these weights.
    ignore_index: integer targets of this value are ignored, in the sum and in the mean.
    label_smoothing: in [0, 1]; mixes this much of 1 / classes into the targets. Szegedy et al.:
        arXiv:1512.00567, section 7.
    reduction: "mean", "sum", or "none" for one number per target, 0 if it is ignored. float32 for
        float16 logits.

    IndexError for a target that is not a class, with its value and position; ValueError for a
    probability outside [0, 1], for shapes that do not fit, for a mean of nothing (no target, all
    ignored, or all weights 0), for weights that are negative or not finite, and for a
    label_smoothing out of range; TypeError for wrong dtypes. Tensors on a GPU are not checked,
    since that would be a transfer: with ignore_index, the loss of a target that is not a class is
    NaN, and so is a mean of nothing. An array of weights is uploaded at each call; a tensor is not.

    >>> from rumus.nn import cross_entropy_loss
    >>> from rumus.tensor import tensor
    >>> logits = tensor([[2.0, 0.0], [0.0, 2.0]])
    >>> round(cross_entropy_loss(logits, [0, 1]).item(), 4)
    0.1269
    >>> cross_entropy_loss(logits, [0, -100], reduction="none")[1].item()
    0.0
    >>> round(cross_entropy_loss(logits, [0, 0], weight=[3.0, 1.0]).item(), 4)
    1.1269
    """
    check_reduction(NAME, reduction)
    check_floating(NAME, "the logits", logits)
    if not 0 <= real_number(f"{NAME}: label_smoothing", label_smoothing) <= 1:
        raise ValueError(f"{NAME}: label_smoothing must be in [0, 1], not {label_smoothing}")
    at = class_axis(NAME, logits, axis)
    given = targets if isinstance(targets, Tensor) else np.asarray(targets)
    check_fit(NAME, logits, given, reduction, at)
    check_input(NAME, logits, "logits of classes", OF_LOGITS)
    check_classes(NAME, logits, at)
    weights = None if weight is None else class_weights(NAME, logits, weight, logits.shape[at])
    if given.dtype.kind == "f":
        beside = as_target(NAME, logits, given)
        check_probabilities(NAME, "target", beside, _CLASSES)
        warn_of_several_classes(NAME, beside, at)
        losses = _of_probabilities(logits, beside, at, weights, label_smoothing)
        found = Found(losses, losses.size)
    else:
        found = losses_of_classes(NAME, logits, given, at, ignore_index, label_smoothing, weights)
    return found.reduced(NAME, reduction, sample_weight)


def class_axis(loss: str, logits: Tensor, axis: int) -> int:
    """Return the axis of the classes from the front; ValueError if there are none."""
    if logits.ndim == 0 or not -logits.ndim <= axis < logits.ndim:
        raise ValueError(f"{loss}: logits of shape {logits.shape} have no classes on axis {axis}")
    if logits.shape[axis] == 0:
        raise ValueError(f"{loss}: logits of shape {logits.shape} have no classes")
    return axis % logits.ndim


def check_fit(
    loss: str, logits: Tensor, targets: Tensor | NDArray[Any], reduction: str, axis: int
) -> None:
    """Raise TypeError or ValueError for targets of a wrong dtype or shape."""
    kind = targets.dtype.kind
    if kind not in "iuf":
        raise TypeError(f"{loss}: targets must be integers or probabilities, not {targets.dtype}")
    others = (*logits.shape[:axis], *logits.shape[axis + 1 :])
    wanted = logits.shape if kind == "f" else others
    if targets.shape != wanted:
        what = "probabilities" if kind == "f" else "class numbers"
        where = "(..., classes)" if axis == logits.ndim - 1 else f"with classes on axis {axis}"
        raise ValueError(
            f"{loss}: targets of {targets.dtype} are {what} and need shape {wanted} for logits of "
            f"shape {logits.shape} {where}, not {targets.shape}"
        )
    if reduction == "mean" and math.prod(others) == 0:
        raise ValueError(f"{loss}: the mean of no targets, logits of shape {logits.shape}")


def _of_probabilities(
    logits: Tensor, targets: Tensor, axis: int, weights: Tensor | None, smoothing: float
) -> Tensor:
    logits = widened(logits)
    share = smoothing / logits.shape[axis]
    if weights is None:
        weights = ones((), dtype=logits.dtype, backend=logits.backend)
    else:
        weights = weights.reshape(-1, *[1] * (logits.ndim - axis - 1))
    given = logits.log_softmax(axis), targets, weights
    return _expected(*given, keep=1 - smoothing, share=share).sum(axis)


def losses_of_classes(
    loss: str,
    logits: Tensor,
    targets: Tensor | NDArray[Any],
    axis: int,
    ignore_index: int,
    smoothing: float,
    weights: Tensor | None,
) -> Found:
    """The loss of each target, 0 where ignored; and what each of them weighs."""
    classes, shape = logits.shape[axis], targets.shape
    outer, places = math.prod(shape[:axis]), math.prod(shape[axis:])
    is_last = axis == logits.ndim - 1
    seen = (outer, classes) if is_last else (outer, classes, places)
    rows = logits if logits.shape == seen else logits.reshape(*seen)
    count = count_classes(loss, logits, targets, classes, ignore_index)
    index = as_integers(logits, targets).reshape(*((outer,) if is_last else (outer, places)))
    ignored = None if count == index.size else ignore_index
    losses, own = weighted_cross_entropy(rows, index, smoothing, ignored, weights)
    losses = losses.reshape(*shape)
    if own is not None:
        return Found(losses, count, own.reshape(*shape))
    kept = None if ignored is None else (index != ignore_index).astype(losses.dtype)
    return Found(losses, count, None if kept is None else kept.reshape(*shape))
