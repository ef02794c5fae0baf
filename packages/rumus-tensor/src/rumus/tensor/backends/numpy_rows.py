"""Row kernels in NumPy: softmaxes and norms along the last axis, without a graph between."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.backends.numpy_sums import add_up
from rumus.tensor.memory.fused import FusedName

Real = NDArray[Any]
BLOCK: Final = 32_768  # elements


def _rows(x: Real) -> Real:
    """All but the last axis joined."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


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
        np.multiply(out, np.ascontiguousarray(gradient).sum(-1, keepdims=True), out)
        np.subtract(gradient, out, out)


def _row_blocks(x: Real) -> Iterator[slice]:
    """Blocks of rows that stay in the cache while a few passes go over them."""
    rows = max(1, BLOCK // max(1, x.shape[1]))
    return (slice(start, start + rows) for start in range(0, len(x), rows))


def masked(index: Real, ignored: int | None) -> tuple[Real | None, Real]:
    """Where an index is `ignored`, None for nowhere; and the index with 0 there."""
    mask = None if ignored is None else index == ignored
    return (None, index) if mask is None else (mask, np.where(mask, 0, index))


def cross_entropy(
    logits: Real,
    index: Real,
    out: Real,
    statistics: Real,
    smoothing: float = 0.0,
    ignored: int | None = None,
) -> None:
    """out = log(sum(exp(x))) - ((1 - s) x[index] + s mean(x)) of each row, with s = smoothing.

    `statistics` (rows, 2) gets the largest element and the sum of exp(x - largest), both for the
    gradient. They and `out` are float32 for logits of float16. Rows of the index `ignored` get 0.
    """
    mask, index = masked(index, ignored)
    check_index(index, logits.shape[1])
    with np.errstate(all="ignore"):
        for part in _row_blocks(logits):
            largest = logits[part].max(1).astype(statistics.dtype)
            shifted = np.subtract(logits[part], largest[:, None], order="C", dtype=statistics.dtype)
            expected = shifted[np.arange(len(shifted)), index[part]]
            if smoothing:  # else a logit of -inf would count
                expected = (1 - smoothing) * expected + smoothing * shifted.mean(1)
            total = np.exp(shifted, shifted).sum(1)
            np.subtract(np.log(total), expected, out[part])
            statistics[part, 0], statistics[part, 1] = largest, total
    if mask is not None:
        out[mask] = 0


def cross_entropy_gradient(
    logits: Real,
    index: Real,
    statistics: Real,
    gradient: Real,
    out: Real,
    smoothing: float = 0.0,
    ignored: int | None = None,
) -> None:
    """out = g (p - t): p is the softmax, t the target 1 - s at the index, and s / columns more.

    `out` may be the logits themselves. Rows of the index `ignored` get 0.
    """
    mask, index = masked(index, ignored)
    with np.errstate(all="ignore"):
        for part in _row_blocks(logits):
            largest, total = statistics[part, :1], statistics[part, 1:]
            p = np.subtract(logits[part], largest, dtype=statistics.dtype)
            np.divide(np.exp(p, p), total, p)
            if smoothing:
                p -= p.dtype.type(smoothing / logits.shape[1])
            p *= gradient[part, None]
            p[np.arange(len(p)), index[part]] -= (1 - smoothing) * gradient[part]
            out[part] = p
    if mask is not None:
        out[mask] = 0


def layer_norm(
    x: Real, weight: Real | None, bias: Real | None, out: Real, statistics: Real, eps: float
) -> None:
    """out = (x - mean) / deviation * weight + bias; `statistics` gets mean and 1 / deviation."""
    x = np.ascontiguousarray(x)  # along any other axis NumPy adds one by one
    with np.errstate(all="ignore"):
        mean = x.mean(-1, keepdims=True)
        np.subtract(x, mean, out)
        statistics[..., :1] = mean
        _scale(out, weight, bias, out, statistics, eps)


def rms_norm(
    x: Real, weight: Real | None, bias: None, out: Real, statistics: Real, eps: float
) -> None:
    """out = x / rms * weight; `statistics` gets 0 and 1 / rms."""
    x = np.ascontiguousarray(x)
    with np.errstate(all="ignore"):
        statistics[..., 0] = 0
        _scale(x, weight, bias, out, statistics, eps)


def _scale(
    x: Real, weight: Real | None, bias: Real | None, out: Real, statistics: Real, eps: float
) -> None:
    """out = x / sqrt(mean(x^2) + eps) * weight + bias."""
    statistics[..., 1] = 1 / np.sqrt(np.square(x).mean(-1) + eps)
    np.multiply(x, statistics[..., 1:], out)
    if weight is not None:
        np.multiply(out, weight, out)
    if bias is not None:
        np.add(out, bias, out)


def layer_norm_gradient(
    x: Real,
    weight: Real | None,
    statistics: Real,
    gradient: Real,
    into: Real | None,
    into_weight: Real | None,
    into_bias: Real | None,
    added: Real | None = None,
) -> None:
    """With n the normalized x and h = g weight: (h - mean(h) - n mean(h n)) / deviation + added.

    The weight gets the sum of g n over the rows, the bias that of g. None where it is not wanted.
    """
    _norm_gradient(x, weight, statistics, gradient, into, into_weight, added, is_centred=True)
    if into_bias is not None:
        with np.errstate(all="ignore"):
            add_up(_rows(gradient), (0,), into_bias)


def rms_norm_gradient(
    x: Real,
    weight: Real | None,
    statistics: Real,
    gradient: Real,
    into: Real | None,
    into_weight: Real | None,
    into_bias: None,
    added: Real | None = None,
) -> None:
    """As of the layer norm, without mean(h)."""
    _norm_gradient(x, weight, statistics, gradient, into, into_weight, added, is_centred=False)


def _norm_gradient(
    x: Real,
    weight: Real | None,
    statistics: Real,
    gradient: Real,
    into: Real | None,
    into_weight: Real | None,
    added: Real | None,
    is_centred: bool,
) -> None:
    x, gradient = np.ascontiguousarray(x), np.ascontiguousarray(gradient)
    with np.errstate(all="ignore"):
        normalized = (x - statistics[..., :1]) * statistics[..., 1:]
        if into_weight is not None:
            add_up(_rows(gradient * normalized), (0,), into_weight)
        if into is None:
            return
        h = gradient if weight is None else gradient * weight
        np.multiply(normalized, (h * normalized).mean(-1, keepdims=True), normalized)
        np.subtract(h, normalized, into)
        if is_centred:
            np.subtract(into, h.mean(-1, keepdims=True), into)
        np.multiply(into, statistics[..., 1:], into)
        if added is not None:
            np.add(into, added, into)


ROW_KERNELS: Final[Mapping[FusedName, Callable[..., None]]] = {
    "softmax": softmax,
    "softmax_gradient": softmax_gradient,
    "log_softmax": log_softmax,
    "log_softmax_gradient": log_softmax_gradient,
    "cross_entropy": cross_entropy,
    "cross_entropy_gradient": cross_entropy_gradient,
    "layer_norm": layer_norm,
    "layer_norm_gradient": layer_norm_gradient,
    "rms_norm": rms_norm,
    "rms_norm_gradient": rms_norm_gradient,
}
