"""Row kernels in NumPy: softmaxes and norms along the last axis, outside the graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.backends.numpy_sums import add_up, row_sums
from rumus.tensor.memory.fused import FusedName

Real = NDArray[Any]
BLOCK: Final = 32_768  # elements
PLACES: Final = 1 << 18  # elements of logits that are transposed at a time


def _rows(x: Real) -> Real:
    """All but the last axis joined."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def check_index(index: Real, length: int) -> None:
    """Raise IndexError for the first index outside [0, length)."""
    if index.size and (index.min() < 0 or index.max() >= length):
        bad = index[(index < 0) | (index >= length)].flat[0]
        raise IndexError(f"index {bad} is outside [0, {length})")


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
    """Blocks of rows that stay in cache for a few passes."""
    rows = max(1, BLOCK // max(1, x.shape[1]))
    return (slice(start, start + rows) for start in range(0, len(x), rows))


def masked(index: Real, ignored: int | None) -> tuple[Real | None, Real]:
    """A mask of where the index is `ignored`, None if nowhere; and the index with 0 there."""
    mask = None if ignored is None else index == ignored
    return (None, index) if mask is None else (mask, np.where(mask, 0, index))


def cross_entropy(
    logits: Real,
    index: Real,
    out: Real,
    statistics: Real,
    smoothing: float = 0.0,
    ignored: int | None = None,
    weight: Real | None = None,
) -> None:
    """out = sum(t) log(sum(exp(x))) - sum(t x) of each row; t = w ((1 - s) [index] + s / n).

    logits: (rows, n), or (batch, n, places) with index and out (batch, places); n the classes.
    w: the `weight` of each class, 1 by default. s: the smoothing. `statistics` gets, along its last
    axis, the largest element, the sum of exp(x - largest) and, with weights, the weight of the
    row's class, for the gradient. `statistics` and `out` are float32 for float16 logits. Rows whose
    index is `ignored` get 0, and the weight 0.
    """
    check_index(masked(index, ignored)[1], logits.shape[1])
    for part in _places(logits):
        arrays = index[part].reshape(-1), out[part].reshape(-1)
        kept = statistics[part].reshape(-1, statistics.shape[-1])
        row_losses(rows_of(logits[part]), *arrays, kept, smoothing, ignored, weight)


def row_losses(
    logits: Real, index: Real, out: Real, statistics: Real, smoothing: float, ignored: int | None,
    weight: Real | None,
) -> None:  # fmt: skip
    """`cross_entropy` of (rows, n), with a checked index."""
    mask, index = masked(index, ignored)
    with np.errstate(all="ignore"):
        for part in _row_blocks(logits):
            largest = logits[part].max(1).astype(statistics.dtype)
            shifted = np.subtract(logits[part], largest[:, None], order="C", dtype=statistics.dtype)
            expected = shifted[np.arange(len(shifted)), index[part]]
            if weight is not None:
                statistics[part, 2] = weight[index[part]]
                expected = _weighted(expected, statistics[part, 2])
            if smoothing:  # otherwise a logit of -inf would count
                rest = (shifted if weight is None else _weighted(shifted, weight)).mean(1)
                expected = (1 - smoothing) * expected + smoothing * rest
            total = np.empty_like(largest)
            row_sums(np.exp(shifted, shifted), total)()
            mass = _mass(statistics[part], smoothing, weight)
            np.subtract(np.log(total) * mass, expected, out[part])
            statistics[part, 0], statistics[part, 1] = largest, total
    if mask is not None:
        out[mask] = 0
        statistics[mask, 2:] = 0


class BoundRows:
    """Rows of logits and their classes, prepared for the usual loss of captured steps.

    It has the bits of `cross_entropy` and its gradient without smoothing and weights, in one block,
    and allocates nothing. Callers have NumPy's warnings turned off.

    logits: (rows, n), of float32 or float64.
    index: (rows,), each row's class.
    statistics: as in `cross_entropy`.
    shifted: of the logits' shape; scratch, or the gradient.
    """

    def __init__(self, logits: Real, index: Real, statistics: Real, shifted: Real) -> None:
        self.logits, self.index, self.shifted = logits, index, shifted
        self.largest, self.total = statistics[:, :1], statistics[:, 1:2]
        rows, self.classes = logits.shape
        self.starts = np.arange(0, rows * self.classes, self.classes)
        self.places = np.empty(rows, np.intp)  # of one element of each row among all
        self.flat, self.flat_logits = shifted.reshape(-1), logits.reshape(-1)
        # As numbers without a sign, negative ones are the largest.
        self.unsigned = index.view(np.dtype(f"u{index.itemsize}"))
        self.row = [np.empty(rows, logits.dtype) for _ in range(3)]
        self.add_up = row_sums(shifted, self.row[2])

    @property
    def nbytes(self) -> int:
        """The size of its own memory."""
        return sum(array.nbytes for array in (self.starts, self.places, *self.row))

    @staticmethod
    def are_usual(
        logits: Real, index: Real, smoothing: float, ignored: int | None, weight: Real | None
    ) -> bool:
        """Whether a loss is the usual one, of arrays that are as most are."""
        return bool(
            not smoothing
            and ignored is None
            and weight is None
            and logits.ndim == 2
            and logits.dtype in (np.float32, np.float64)
            and logits.flags.c_contiguous
            and index.flags.c_contiguous
            and 0 < logits.size <= BLOCK
        )

    def losses(self, out: Real) -> None:
        """Write the losses and the statistics. IndexError as in `cross_entropy`."""
        unsigned = self.unsigned
        if unsigned[unsigned.argmax()] >= self.classes:
            check_index(self.index, self.classes)
        largest, expected, total = self.row
        self.logits.argmax(1, self.places)  # a third of the time of their maximum
        np.add(self.starts, self.places, self.places)
        self.flat_logits.take(self.places, out=largest, mode="clip")
        self.largest[:, 0] = largest
        np.add(self.starts, self.index, self.places)
        np.subtract(self.logits, self.largest, self.shifted)
        self.flat.take(self.places, out=expected, mode="clip")
        np.exp(self.shifted, self.shifted)
        self.add_up()
        self.total[:, 0] = total
        np.log(total, total)
        np.subtract(total, expected, out)

    def gradients(self, gradient: Real) -> None:
        """Write the gradients of the losses that have these gradients to `shifted`."""
        np.add(self.starts, self.index, self.places)
        np.subtract(self.logits, self.largest, self.shifted)
        np.exp(self.shifted, self.shifted)
        np.divide(self.shifted, self.total, self.shifted)
        np.multiply(self.shifted, gradient[:, None], self.shifted)
        self.flat[self.places] -= gradient


def _weighted(shifted: Real, weight: Real) -> Real:
    """The product; 0 for a weight of 0, whose class counts for nothing, and a logit of -inf."""
    product: Real = shifted * weight
    product[(weight == 0) & (shifted == -np.inf)] = 0
    return product


def _mass(statistics: Real, smoothing: float, weight: Real | None) -> Any:
    """The sum of each row's target."""
    if weight is None:
        return 1
    mass = statistics[:, 2]
    return mass if not smoothing else (1 - smoothing) * mass + smoothing * weight.mean()


def cross_entropy_gradient(
    logits: Real,
    index: Real,
    statistics: Real,
    gradient: Real,
    out: Real,
    smoothing: float = 0.0,
    ignored: int | None = None,
    weight: Real | None = None,
) -> None:
    """out = g (sum(t) p - t): p is the softmax, t the target; see `cross_entropy`.

    `out` may be the logits themselves. Rows whose index is `ignored` get 0.
    """
    for part in _places(logits):
        x = rows_of(logits[part])
        into = x if out.ndim == 3 else out[part]
        kept = statistics[part].reshape(-1, statistics.shape[-1])
        arrays = index[part].reshape(-1), kept, gradient[part].reshape(-1)
        row_gradients(x, *arrays, into, smoothing, ignored, weight)
        if out.ndim == 3:
            put_rows(into, out[part])


def row_gradients(
    logits: Real, index: Real, statistics: Real, gradient: Real, out: Real, smoothing: float,
    ignored: int | None, weight: Real | None,
) -> None:  # fmt: skip
    """`cross_entropy_gradient` of (rows, n)."""
    mask, index = masked(index, ignored)
    with np.errstate(all="ignore"):
        for part in _row_blocks(logits):
            largest, total = statistics[part, :1], statistics[part, 1:2]
            p = np.subtract(logits[part], largest, dtype=statistics.dtype)
            np.divide(np.exp(p, p), total, p)
            certain = (1 - smoothing) * gradient[part]
            if weight is not None:
                p *= _mass(statistics[part], smoothing, weight)[:, None]
                certain *= statistics[part, 2]
            if smoothing:
                share = smoothing / logits.shape[1]
                p -= p.dtype.type(share) if weight is None else share * weight
            p *= gradient[part, None]
            p[np.arange(len(p)), index[part]] -= certain
            out[part] = p
    if mask is not None:
        out[mask] = 0


def _places(logits: Real) -> Iterator[slice]:
    """Parts of a batch that are transposed to rows at once: all of it if it is already in rows."""
    size = logits.shape[1] * logits.shape[2] if logits.ndim == 3 else 0
    step = max(1, PLACES // size) if size else max(1, len(logits))
    return (slice(start, start + step) for start in range(0, len(logits), step))


def rows_of(logits: Real) -> Real:
    """(batch, n, places) as (rows, n), copied; (rows, n) unchanged."""
    if logits.ndim == 2:
        return logits
    return np.ascontiguousarray(logits.transpose(0, 2, 1)).reshape(-1, logits.shape[1])


def put_rows(rows: Real, out: Real) -> None:
    """Write (rows, n) to (batch, n, places)."""
    batch, classes, places = out.shape
    out[...] = rows.reshape(batch, places, classes).transpose(0, 2, 1)


def layer_norm(
    x: Real, weight: Real | None, bias: Real | None, out: Real, statistics: Real, eps: float
) -> None:
    """out = (x - mean) / deviation * weight + bias; `statistics` gets mean and 1 / deviation."""
    x = np.ascontiguousarray(x)  # along any other axis NumPy adds one number at a time
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
    squares = np.square(x).mean(-1, keepdims=True)
    squares += 0 * squares  # NaN where they overflow: divided by inf all would be 0
    statistics[..., 1:] = 1 / np.sqrt(squares + eps)
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

    The weight gets the sum of g n over the rows, the bias that of g. None for an output that is not
    needed.
    """
    _norm_gradient(x, weight, statistics, gradient, into, into_weight, added, is_centered=True)
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
    """Like the layer norm's, without mean(h)."""
    _norm_gradient(x, weight, statistics, gradient, into, into_weight, added, is_centered=False)


def _norm_gradient(
    x: Real,
    weight: Real | None,
    statistics: Real,
    gradient: Real,
    into: Real | None,
    into_weight: Real | None,
    added: Real | None,
    is_centered: bool,
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
        if is_centered:
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
