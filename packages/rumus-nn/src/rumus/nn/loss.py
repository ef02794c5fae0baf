"""Losses element by element: each is one fused kernel and a sum."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from rumus.nn.reduction import (
    Reduction,
    as_target,
    check_pair,
    is_readable,
    mean_scale,
    reduced,
)
from rumus.tensor import Expr, Tensor, TensorLike, elementwise

T = TypeVar("T", Tensor, Expr)


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
    return scale * (size <= delta).where(0.5 * (size * size), delta * (size - 0.5 * delta))


@elementwise
def _binary(logits: T, target: T, *, scale: float) -> T:
    return scale * (logits.softplus() - target * logits)


@elementwise
def _weighted_binary(logits: T, target: T, weight: T, pos_weight: T, *, scale: float) -> T:
    positive = pos_weight * target * (-logits).softplus()
    return scale * (weight * (positive + (1 - target) * logits.softplus()))


def mse_loss(prediction: Tensor, target: TensorLike, *, reduction: Reduction = "mean") -> Tensor:
    """(prediction - target)^2.

    prediction: floating, any shape; float16 is computed, and returned, in float32. target: a tensor
    or an array of the same shape; nothing is broadcast. Result: one number, or for
    reduction "none" the shape of the prediction.
    ValueError for shapes that differ, an unknown reduction, a mean of nothing; TypeError for a
    prediction that is not floating or a target that is not of numbers.

    >>> from rumus.tensor import tensor
    >>> mse_loss(tensor([1.0, 4.0]), [1.0, 2.0]).item()
    2.0
    """
    prediction, beside = check_pair("mse_loss", prediction, target, reduction)
    scale = mean_scale(prediction, reduction)
    return reduced(_squared(prediction, beside, scale=scale), reduction)


def l1_loss(prediction: Tensor, target: TensorLike, *, reduction: Reduction = "mean") -> Tensor:
    """|prediction - target|, with derivative 0 where they are equal.

    Shapes, results and errors are those of `mse_loss`.

    >>> from rumus.tensor import tensor
    >>> l1_loss(tensor([1.0, 4.0]), [1.0, 2.0], reduction="sum").item()
    2.0
    """
    prediction, beside = check_pair("l1_loss", prediction, target, reduction)
    scale = mean_scale(prediction, reduction)
    return reduced(_absolute(prediction, beside, scale=scale), reduction)


def huber_loss(
    prediction: Tensor, target: TensorLike, *, delta: float = 1.0, reduction: Reduction = "mean"
) -> Tensor:
    """d^2 / 2 for |d| <= delta, delta (|d| - delta / 2) beyond, with d = prediction - target.

    Huber, "Robust estimation of a location parameter", 1964. delta: positive, ValueError otherwise.
    Shapes, results and errors are those of `mse_loss`.

    >>> from rumus.tensor import tensor
    >>> huber_loss(tensor([0.5, 3.0]), [0.0, 0.0], reduction="none").tolist()
    [0.125, 2.5]
    """
    if not 0 < delta < float("inf"):
        raise ValueError(f"huber_loss: delta must be positive and finite, not {delta}")
    prediction, beside = check_pair("huber_loss", prediction, target, reduction)
    scale = mean_scale(prediction, reduction)
    return reduced(_huber(prediction, beside, delta=delta, scale=scale), reduction)


def binary_cross_entropy_with_logits(
    logits: Tensor,
    target: TensorLike,
    *,
    weight: TensorLike | None = None,
    pos_weight: TensorLike | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """weight (-pos_weight t log s(x) - (1 - t) log(1 - s(x))), s the sigmoid, without overflow.

    logits: x, floating, any shape. target: t, the probability of yes, of the same shape, each in
    [0, 1]. weight, pos_weight: tensors, arrays or numbers that broadcast to this shape. The mean is
    over all elements, whatever their weights.
    ValueError for a target outside of [0, 1], with its place (looked at on the CPU only: on another
    device that would be a transfer), for weights that do not fit, and as `mse_loss` says.

    >>> from rumus.tensor import tensor
    >>> round(binary_cross_entropy_with_logits(tensor([0.0, 50.0]), [1.0, 1.0]).item(), 4)
    0.3466
    """
    name = "binary_cross_entropy_with_logits"
    logits, beside = check_pair(name, logits, target, reduction)
    if is_readable(beside):
        _check_probabilities(name, beside)
    scale = mean_scale(logits, reduction)
    if weight is None and pos_weight is None:
        return reduced(_binary(logits, beside, scale=scale), reduction)
    weights = _fitting_weight(name, logits, weight, "weight")
    positive = _fitting_weight(name, logits, pos_weight, "pos_weight")
    losses = _weighted_binary(logits, beside, weights, positive, scale=scale)
    return reduced(losses, reduction)


def _check_probabilities(loss: str, target: Tensor) -> None:
    values = target.numpy()
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        where = tuple(np.argwhere(~((values >= 0) & (values <= 1)))[0].tolist())
        raise ValueError(
            f"{loss}: target {values[where]} at index {where} is outside of [0, 1]; "
            "targets are probabilities, not -1 and 1"
        )


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
