"""Elementwise losses: each is one fused kernel and a sum."""

from __future__ import annotations

import math
from functools import partial
from typing import Final, TypeVar

import numpy as np

from rumus.nn.loss_input import OF_LOGITS, check_input
from rumus.nn.probabilities import check_probabilities
from rumus.nn.reduction import (
    Reduction,
    as_target,
    check_pair,
    of_elements,
    weighted,
)
from rumus.tensor import Expr, Tensor, TensorLike, elementwise
from rumus.tensor.expression.arguments import checked_arguments

T = TypeVar("T", Tensor, Expr)
_SMALLEST: Final = 2.0**-126  # normal number of float32


@elementwise
def _squared(prediction: T, target: T, *, scale: float) -> T:
    difference = prediction - target
    return scale * (difference * difference)


@elementwise
def _absolute(prediction: T, target: T, *, scale: float) -> T:
    return scale * (prediction - target).abs()


@elementwise
def _huber(prediction: T, target: T, *, delta: float, scale: float) -> T:
    size = (prediction - target).abs()
    near = size.minimum(delta)  # squaring an infinite difference would give NaN
    return scale * near * (size - 0.5 * near)  # scale is 1 / beta: near / beta is at most 1


def less_likely(logits: T, target: T) -> tuple[T, T]:
    """Return the logit of the side that the target gives less, and how much it gives it."""
    is_yes = target >= 0.5
    return is_yes.where(-logits, logits), is_yes.where(1 - target, target)


@elementwise
def binary_entropy(logits: T, target: T) -> T:
    """-t log s(x) - (1 - t) log(1 - s(x)), accurate even for confident, correct logits.

    There, softplus(x) - t x would subtract two nearly equal numbers.
    """
    return entropy_of(*less_likely(logits, target))


def entropy_of(wrong: T, rest: T) -> T:
    """The binary entropy of what `less_likely` gives; its slope is finite at infinite logits."""
    is_wrong = wrong > 0
    small = is_wrong.where(-wrong, wrong).softplus()
    return small + is_wrong.where((1 - rest) * wrong, -share(wrong, rest))


def share(x: T, part: T) -> T:
    """x part, the part below 1 of softplus(x); 0 where it would take NaN from infinite numbers."""
    is_none = x._apply("eq", x, math.inf) | part._apply("eq", part, 0.0)
    finite = (x.abs() < math.inf).where(x, 0.0)  # it is the derivative of a part of 0
    return is_none.where(finite * part, x * part)


@elementwise
def _binary(logits: T, target: T, *, scale: float) -> T:
    return scale * binary_entropy(logits, target)


@elementwise
def _bounded_log(p: T) -> T:
    """log p, at least -100; the slope at 0 is 1e12, PyTorch's largest.

    So it is at numbers under 1.2e-38, as sigmoids of -90 are, where 1 / p would be infinite: their
    logarithm, found at 2^64 times the number, is rounded down to a multiple of 2^-17, which has no
    slope.
    """
    is_zero, is_tiny = p._apply("eq", p, 0.0), p._apply("lt", p, _SMALLEST)
    far = is_tiny.where(is_zero.where(1.0, p * 2.0**64), 1.0).log() - 64 * math.log(2)
    of_tiny = is_zero.where(-100.0, ((far * 2.0**17).floor() / 2.0**17).maximum(-100.0))
    return is_tiny.where(of_tiny + 1e12 * p, is_tiny.where(1.0, p).log().maximum(-100.0))


@elementwise
def _bounded_log_rest(p: T) -> T:
    """log(1 - p), bounded like `_bounded_log`."""
    is_one = p._apply("eq", p, 1.0)
    rest = (-is_one.where(0.0, p)).log1p()
    return is_one.where(1e12 * (1 - p) - 100.0, rest.maximum(-100.0))


@elementwise
def _of_probability(p: T, target: T, *, scale: float) -> T:
    yes, no = _bounded_log(p), _bounded_log_rest(p)
    return scale * -(target * yes + (1 - target) * no)


@elementwise
def _weighted_binary(logits: T, target: T, weight: T, pos_weight: T, *, scale: float) -> T:
    positive = weighted(pos_weight * target, (-logits).softplus())
    return scale * weighted(weight, positive + weighted(1 - target, logits.softplus()))


@checked_arguments
def mse_loss(
    prediction: Tensor,
    target: TensorLike,
    *,
    reduction: Reduction = "mean",
    sample_weight: TensorLike | None = None,
) -> Tensor:
    """(prediction - target)^2.

    prediction: floating, any shape; float16 is computed, and returned, in float32.
    target: a tensor or an array of the same shape; nothing broadcasts.
    reduction: "mean", "sum", or "none" for the shape of the prediction.
    sample_weight: the weight of each loss, not negative: (batch,), or with more of the leading
        axes; the mean is then divided by the sum of the weights.

    ValueError for different shapes, an unknown reduction, a mean of nothing, or weights that do not
    fit; TypeError for a prediction that is not floating or a target that is not numeric.

    >>> from rumus.nn import mse_loss
    >>> from rumus.tensor import tensor
    >>> mse_loss(tensor([1.0, 4.0]), [1.0, 2.0]).item()
    2.0
    """
    x, beside = check_pair("mse_loss", prediction, target, reduction)
    losses = partial(_squared, x, beside)
    return of_elements("mse_loss", losses, x.size, reduction, sample_weight)


@checked_arguments
def l1_loss(
    prediction: Tensor,
    target: TensorLike,
    *,
    reduction: Reduction = "mean",
    sample_weight: TensorLike | None = None,
) -> Tensor:
    """|prediction - target|, with derivative 0 where they are equal.

    prediction, target, reduction, sample_weight: as in `mse_loss`, as are the errors.

    >>> from rumus.nn import l1_loss
    >>> from rumus.tensor import tensor
    >>> l1_loss(tensor([1.0, 4.0]), [1.0, 2.0], reduction="sum").item()
    2.0
    """
    x, beside = check_pair("l1_loss", prediction, target, reduction)
    losses = partial(_absolute, x, beside)
    return of_elements("l1_loss", losses, x.size, reduction, sample_weight)


@checked_arguments
def huber_loss(
    prediction: Tensor,
    target: TensorLike,
    *,
    delta: float = 1.0,
    reduction: Reduction = "mean",
    sample_weight: TensorLike | None = None,
) -> Tensor:
    """d^2 / 2 for |d| <= delta, delta (|d| - delta / 2) beyond, with d = prediction - target.

    Huber, "Robust estimation of a location parameter", 1964.

    prediction, target, reduction, sample_weight: as in `mse_loss`, as are the errors.
    delta: positive, ValueError otherwise.

    >>> from rumus.nn import huber_loss
    >>> from rumus.tensor import tensor
    >>> huber_loss(tensor([0.5, 3.0]), [0.0, 0.0], reduction="none").tolist()
    [0.125, 2.5]
    """
    _check_positive("huber_loss", "delta", delta)
    x, beside = check_pair("huber_loss", prediction, target, reduction)
    losses = partial(_huber, x, beside, delta=delta)
    return of_elements("huber_loss", losses, x.size, reduction, sample_weight)


@checked_arguments
def smooth_l1_loss(
    prediction: Tensor,
    target: TensorLike,
    *,
    beta: float = 1.0,
    reduction: Reduction = "mean",
    sample_weight: TensorLike | None = None,
) -> Tensor:
    """d^2 / (2 beta) for |d| <= beta, |d| - beta / 2 beyond: the Huber loss over beta.

    Girshick, "Fast R-CNN": arXiv:1504.08083, section 2.3.

    prediction, target, reduction, sample_weight: as in `mse_loss`, as are the errors.
    beta: positive, ValueError otherwise.

    >>> from rumus.nn import smooth_l1_loss
    >>> from rumus.tensor import tensor
    >>> smooth_l1_loss(tensor([0.5, 3.0]), [0.0, 0.0], beta=0.5, reduction="none").tolist()
    [0.25, 2.75]
    """
    _check_positive("smooth_l1_loss", "beta", beta)
    x, beside = check_pair("smooth_l1_loss", prediction, target, reduction)

    def losses(scale: float) -> Tensor:
        return _huber(x, beside, delta=beta, scale=scale / beta)

    return of_elements("smooth_l1_loss", losses, x.size, reduction, sample_weight)


def _check_positive(loss: str, what: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{loss}: {what} must be positive and finite, not {value}")


@checked_arguments
def binary_cross_entropy(
    probabilities: Tensor,
    target: TensorLike,
    *,
    reduction: Reduction = "mean",
    sample_weight: TensorLike | None = None,
) -> Tensor:
    """-t log p - (1 - t) log(1 - p), each logarithm at least -100, as in PyTorch.

    For logits use `binary_cross_entropy_with_logits`, which is accurate where p rounds to 0 or 1.

    probabilities: p in [0, 1], as from a sigmoid.
    target: t in [0, 1], of the same shape.
    reduction: "mean", "sum" or "none", as in `mse_loss`.
    sample_weight: as in `mse_loss`.

    ValueError for p or t out of range, with its position (checked only on the CPU), and as for
    `mse_loss`.

    >>> from rumus.nn import binary_cross_entropy
    >>> from rumus.tensor import tensor
    >>> round(binary_cross_entropy(tensor([0.5, 1.0]), [1.0, 1.0]).item(), 4)
    0.3466
    """
    name = "binary_cross_entropy"
    p, beside = check_pair(name, probabilities, target, reduction)
    check_input(name, p, "probabilities", "binary_cross_entropy_with_logits takes logits")
    check_probabilities(name, "probability", p)
    check_probabilities(name, "target", beside)
    losses = partial(_of_probability, p, beside)
    return of_elements(name, losses, p.size, reduction, sample_weight)


@checked_arguments
def binary_cross_entropy_with_logits(
    logits: Tensor,
    target: TensorLike,
    *,
    weight: TensorLike | None = None,
    pos_weight: TensorLike | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """weight (-pos_weight t log s(x) - (1 - t) log(1 - s(x))), s the sigmoid, without overflow.

    logits: x, floating, any shape.
    target: t, the probability of the positive class, of the same shape, in [0, 1].
    weight: of each loss, a tensor, array or number that broadcasts to this shape.
    pos_weight: of the positive class, likewise.
    reduction: "mean", "sum" or "none"; the mean is over all elements, whatever their weights.

    ValueError for a target outside [0, 1], with its position (checked only on the CPU: elsewhere
    that would be a transfer), for weights that do not fit, and as for `mse_loss`.

    >>> from rumus.nn import binary_cross_entropy_with_logits
    >>> from rumus.tensor import tensor
    >>> round(binary_cross_entropy_with_logits(tensor([0.0, 50.0]), [1.0, 1.0]).item(), 4)
    0.3466
    """
    name = "binary_cross_entropy_with_logits"
    logits, beside = check_pair(name, logits, target, reduction)
    check_input(name, logits, "logits", OF_LOGITS)
    check_probabilities(name, "target", beside)
    losses = partial(_binary, logits, beside)
    if weight is not None or pos_weight is not None:
        weights = _fitting_weight(name, logits, weight, "weight")
        positive = _fitting_weight(name, logits, pos_weight, "pos_weight")
        losses = partial(_weighted_binary, logits, beside, weights, positive)
    return of_elements(name, losses, logits.size, reduction, None)


def _fitting_weight(loss: str, logits: Tensor, weight: TensorLike | None, what: str) -> Tensor:
    """Return a weight, 1 for None; ValueError if it would broadcast the logits."""
    beside = as_target(loss, logits, 1.0 if weight is None else weight, what)
    try:
        fits = np.broadcast_shapes(beside.shape, logits.shape) == logits.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{loss}: {what} {beside.shape} does not broadcast to {logits.shape}")
    return beside
