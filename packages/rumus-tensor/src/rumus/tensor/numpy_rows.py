"""Row kernels in NumPy: softmax and its relatives along the last axis, without a graph between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Real = NDArray[Any]


def check_index(index: Real, length: int) -> None:
    """Raise IndexError for the first index outside of [0, length)."""
    if index.size and (index.min() < 0 or index.max() >= length):
        bad = index[(index < 0) | (index >= length)].flat[0]
        raise IndexError(f"index {bad} is outside of [0, {length})")


def softmax(x: Real, out: Real) -> None:
    """out = exp(x - max) / sum."""
    with np.errstate(all="ignore"):
        np.subtract(x, x.max(-1, keepdims=True), out)
        np.exp(out, out)
        np.divide(out, out.sum(-1, keepdims=True), out)


def softmax_gradient(y: Real, gradient: Real, out: Real) -> None:
    """out = y (g - sum(g y))."""
    with np.errstate(all="ignore"):
        np.multiply(gradient, y, out)
        np.subtract(gradient, out.sum(-1, keepdims=True), out)
        np.multiply(out, y, out)


def log_softmax(x: Real, out: Real) -> None:
    """out = x - max - log(sum(exp(x - max)))."""
    with np.errstate(all="ignore"):
        np.subtract(x, x.max(-1, keepdims=True), out)
        np.subtract(out, np.log(np.exp(out).sum(-1, keepdims=True)), out)


def log_softmax_gradient(y: Real, gradient: Real, out: Real) -> None:
    """out = g - exp(y) sum(g)."""
    with np.errstate(all="ignore"):
        np.exp(y, out)
        np.multiply(out, gradient.sum(-1, keepdims=True), out)
        np.subtract(gradient, out, out)


def cross_entropy(logits: Real, index: Real, out: Real, probabilities: Real) -> None:
    """out = log(sum(exp(x))) - x[index] of each row; `probabilities` gets the softmax."""
    check_index(index, logits.shape[1])
    with np.errstate(all="ignore"):
        np.subtract(logits, logits.max(1, keepdims=True), probabilities)
        picked = probabilities[np.arange(len(index)), index]
        np.exp(probabilities, probabilities)
        total = probabilities.sum(1)
        np.subtract(np.log(total), picked, out)
        np.divide(probabilities, total[:, None], probabilities)


def cross_entropy_gradient(probabilities: Real, index: Real, gradient: Real, out: Real) -> None:
    """out = g (p - 1 at the target)."""
    with np.errstate(all="ignore"):
        np.multiply(probabilities, gradient[:, None], out)
        out[np.arange(len(index)), index] -= gradient


ROW_KERNELS: Final[Mapping[str, Callable[..., None]]] = {
    "softmax": softmax,
    "softmax_gradient": softmax_gradient,
    "log_softmax": log_softmax,
    "log_softmax_gradient": log_softmax_gradient,
    "cross_entropy": cross_entropy,
    "cross_entropy_gradient": cross_entropy_gradient,
}
