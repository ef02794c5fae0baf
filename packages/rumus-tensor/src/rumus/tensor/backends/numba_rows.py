"""Row kernels in compiled loops: norms, softmax and cross entropy without intermediate arrays.

Threads share blocks of `BLOCK` rows, and sums over rows are computed block by block, so the number
of threads does not change the bits. Small arrays stay with the NumPy versions, which need no
compiling. Indices within a run are unsigned: a signed index would be checked for negative values
each time, and the loop would not vectorize.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np

from rumus.tensor.backends import numpy_rows
from rumus.tensor.backends.numpy_rows import check_index, masked, put_rows, rows_of
from rumus.tensor.backends.numpy_sums import add_up
from rumus.tensor.compiled import numba_math
from rumus.tensor.compiled.numba_lanes import largest
from rumus.tensor.compiled.numba_math import exp
from rumus.tensor.compiled.numba_shapes import reads, writes
from rumus.tensor.compiled.shared_work import run_parts
from rumus.tensor.compiled.whole_numba import whole_numba
from rumus.tensor.expression.dtype import DType, float32
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.fused import FusedName

BLOCK: Final = 64  # rows
RUN: Final = 1024  # elements of a row added in float32; their sums are in float64
SMALL: Final = 16_384  # below this many elements, the NumPy versions run
FEW: Final = 256  # the same for logits, whose NumPy version is some thirty calls
PARALLEL: Final = 1 << 19  # from this many elements on, starting threads pays off


def _is_small(x: Array, limit: int = SMALL) -> bool:
    return bool(x.size < limit or x.dtype != float32)


def _rows(x: Array) -> Array:
    """All but the last axis joined; a copy if the layout requires it."""
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])


def layer_norm(
    x: Array, weight: Array | None, bias: Array | None, out: Array, statistics: Array, eps: float
) -> None:
    """Like `numpy_rows.layer_norm`."""
    if _is_small(x):
        numpy_rows.layer_norm(x, weight, bias, out, statistics, eps)
        return
    length, loop = x.shape[-1], _compiled()["layer_norm"]
    reads("layer_norm", weight=(weight, (length,)), bias=(bias, (length,)))
    writes("layer_norm", out=(out, x.shape), statistics=(statistics, (*x.shape[:-1], 2)))
    scale = np.ones(length, x.dtype) if weight is None else weight
    shift = np.zeros(length, x.dtype) if bias is None else bias
    x, out, kept = _rows(x), out.reshape(-1, length), statistics.reshape(-1, 2)
    run_parts(
        lambda start, stop: loop(x, scale, shift, out, kept, eps, start, stop),
        len(x), x.size >= PARALLEL,
    )  # fmt: skip


def layer_norm_gradient(
    x: Array, weight: Array | None, statistics: Array, gradient: Array, into: Array | None,
    into_weight: Array | None, into_bias: Array | None, added: Array | None = None,
) -> None:  # fmt: skip
    """Like `numpy_rows.layer_norm_gradient`."""
    if _is_small(x):
        shares = into, into_weight, into_bias, added
        numpy_rows.layer_norm_gradient(x, weight, statistics, gradient, *shares)
        return
    length, loop = x.shape[-1], _compiled()["layer_norm_gradient"]
    last, kept = (length,), (*x.shape[:-1], 2)
    reads("layer_norm", weight=(weight, last), gradient=(gradient, x.shape), added=(added, x.shape))
    reads("layer_norm", into_weight=(into_weight, last), into_bias=(into_bias, last))
    writes("layer_norm", statistics=(statistics, kept), into=(into, x.shape))
    scale = np.ones(length, x.dtype) if weight is None else weight
    share = np.empty((0, length), x.dtype) if into is None else into.reshape(-1, length)
    x, gradient, numbers = _rows(x), _rows(gradient), statistics.reshape(-1, 2)
    blocks = -(-len(x) // BLOCK)
    sums = np.zeros((blocks, 2, length), x.dtype)
    run_parts(
        lambda start, stop: loop(x, scale, numbers, gradient, share, sums, start, stop),
        blocks, x.size >= PARALLEL,
    )  # fmt: skip
    for number, row in enumerate((into_weight, into_bias)):
        if row is not None:
            add_up(sums[:, number], (0,), row)
    if into is not None and added is not None:
        np.add(into, added, into)


def softmax(x: Array, out: Array) -> None:
    """Like `numpy_rows.softmax`."""
    if _is_small(x):
        numpy_rows.softmax(x, out)
        return
    writes("softmax", out=(out, x.shape))
    rows, result, loop = _rows(x), out.reshape(-1, x.shape[-1]), _compiled()["softmax"]
    run_parts(lambda a, b: loop(rows, result, a, b), len(rows), x.size >= PARALLEL)


def softmax_gradient(y: Array, gradient: Array, out: Array) -> None:
    """Like `numpy_rows.softmax_gradient`."""
    if _is_small(y):
        numpy_rows.softmax_gradient(y, gradient, out)
        return
    reads("softmax", gradient=(gradient, y.shape))
    writes("softmax", out=(out, y.shape))
    rows, given, result = _rows(y), _rows(gradient), out.reshape(-1, y.shape[-1])
    loop = _compiled()["softmax_gradient"]
    run_parts(lambda a, b: loop(rows, given, result, a, b), len(rows), y.size >= PARALLEL)


def cross_entropy(
    logits: Array, index: Array, out: Array, statistics: Array, smoothing: float = 0.0,
    ignored: int | None = None, weight: Array | None = None,
) -> None:  # fmt: skip
    """Like `numpy_rows.cross_entropy`."""
    if _is_small(logits, FEW):
        given = logits, index, out, statistics
        numpy_rows.cross_entropy(*given, smoothing, ignored, weight)
        return
    bound_cross_entropy(logits, index, out, statistics, smoothing, ignored, weight)()


def bound_cross_entropy(
    logits: Array, index: Array, out: Array, statistics: Array, smoothing: float = 0.0,
    ignored: int | None = None, weight: Array | None = None,
) -> Callable[[], None]:  # fmt: skip
    """Return what computes the losses, once or, if `may_be_bound`, each time from these arrays.

    It checks the targets, whose numbers may have changed, each time.
    """
    _check(logits, index, statistics, weight)
    writes("cross_entropy", out=(out, index.shape))
    kept, losses = statistics.reshape(-1, statistics.shape[-1]), out.reshape(-1)
    rows, loop = _rows(rows_of(logits)), _compiled()["cross_entropy"]
    checked, weights = _targets(index, logits.shape[1], ignored), _weights(weight, rows.dtype)
    none = logits.shape[1] if ignored is None else ignored

    def run() -> None:
        targets = checked()
        run_parts(
            lambda a, b: loop(rows, targets, losses, kept, weights, smoothing, none, a, b),
            len(rows), rows.size >= PARALLEL,
        )  # fmt: skip

    return run


def may_be_bound(logits: Array, index: Array, weight: Array | None) -> bool:
    """Whether the loops of a cross entropy go over these arrays themselves, not over copies."""
    given = (logits, index) if weight is None else (logits, index, weight)
    is_dense = all(array.flags.c_contiguous for array in given)
    return is_dense and logits.ndim == 2 and not _is_small(logits, FEW)


def cross_entropy_gradient(
    logits: Array, index: Array, statistics: Array, gradient: Array, out: Array,
    smoothing: float = 0.0, ignored: int | None = None, weight: Array | None = None,
) -> None:  # fmt: skip
    """Like `numpy_rows.cross_entropy_gradient`."""
    if _is_small(logits, FEW):
        given = logits, index, statistics, gradient, out
        numpy_rows.cross_entropy_gradient(*given, smoothing, ignored, weight)
        return
    given = logits, index, statistics, gradient, out
    bound_cross_entropy_gradient(*given, smoothing, ignored, weight)()


def bound_cross_entropy_gradient(
    logits: Array, index: Array, statistics: Array, gradient: Array, out: Array,
    smoothing: float = 0.0, ignored: int | None = None, weight: Array | None = None,
) -> Callable[[], None]:  # fmt: skip
    """Return what computes the gradient; see `bound_cross_entropy`."""
    _check(logits, index, statistics, weight)
    reads("cross_entropy", gradient=(gradient, index.shape))
    writes("cross_entropy", out=(out, logits.shape))
    kept, g = statistics.reshape(-1, statistics.shape[-1]), gradient.reshape(-1)
    rows, loop = _rows(rows_of(logits)), _compiled()["cross_entropy_gradient"]
    into = out if out.ndim == 2 else rows
    checked, weights = _targets(index, logits.shape[1], ignored), _weights(weight, rows.dtype)
    none = logits.shape[1] if ignored is None else ignored

    def run() -> None:
        targets = checked()
        run_parts(
            lambda a, b: loop(rows, targets, kept, g, into, weights, smoothing, none, a, b),
            len(rows), rows.size >= PARALLEL,
        )  # fmt: skip
        if out.ndim == 3:
            put_rows(into, out)

    return run


def _targets(index: Array, classes: int, ignored: int | None) -> Callable[[], Array]:
    """What returns the flattened targets; IndexError for one neither a class nor ignored."""
    flat, are_classes = index.reshape(-1), _compiled()["are_classes"]
    other = classes if ignored is None else ignored

    def checked() -> Array:
        if not are_classes(flat, classes, other):
            check_index(masked(flat, ignored)[1], classes)
        return flat

    return checked


def _check(logits: Array, index: Array, statistics: Array, weight: Array | None) -> None:
    """Raise ValueError unless the arrays fit the loops."""
    if logits.ndim not in (2, 3):
        raise ValueError(f"cross_entropy: logits must have 2 or 3 axes, not {logits.shape}")
    rows = (logits.shape[0], *logits.shape[2:])
    reads("cross_entropy", index=(index, rows), weight=(weight, logits.shape[1:2]))
    numbers = 2 if weight is None else 3
    writes("cross_entropy", statistics=(statistics, (*rows, numbers)))


def _weights(weight: Array | None, dtype: DType) -> Array:
    """The weight of each class; empty if they are not weighted."""
    return np.empty(0, dtype) if weight is None else np.ascontiguousarray(weight)


def _are_classes(index: Any, classes: int, ignored: int) -> bool:
    """For numba to compile: whether each number is one of the classes, or ignored."""
    wrong = 0
    for i in range(len(index)):
        wrong += (index[i] < 0 or index[i] >= classes) and index[i] != ignored
    return wrong == 0


def _total(x: Any, row: int, less: Any) -> Any:
    """For numba to compile: the sum of x - less over a row."""
    total = 0.0
    for cut in range(0, x.shape[1], RUN):
        part = x.dtype.type(0)
        for i in range(cut, min(cut + RUN, x.shape[1])):
            k = np.uintp(i)
            part += x[row, k] - less
        total += part
    return total


def _total_weighted(x: Any, row: int, less: Any, weight: Any) -> Any:
    """For numba to compile: the sum of (x - less) weight over a row."""
    total = 0.0
    for cut in range(0, x.shape[1], RUN):
        part = x.dtype.type(0)
        for i in range(cut, min(cut + RUN, x.shape[1])):
            k = np.uintp(i)
            if weight[k] > 0 or x[row, k] != -math.inf:  # otherwise it would be NaN
                part += (x[row, k] - less) * weight[k]
        total += part
    return total


def _total_product(x: Any, y: Any, row: int) -> Any:
    """For numba to compile: the sum of x y over a row."""
    total = 0.0
    for cut in range(0, x.shape[1], RUN):
        part = x.dtype.type(0)
        for i in range(cut, min(cut + RUN, x.shape[1])):
            k = np.uintp(i)
            part += x[row, k] * y[row, k]
        total += part
    return total


def _layer_norm(
    x: Any, weight: Any, bias: Any, out: Any, statistics: Any, eps: float, start: int, stop: int
) -> None:
    """For numba to compile: the rows from start to stop."""
    length = x.shape[1]
    for row in range(start, stop):
        mean = x.dtype.type(_total(x, row, x.dtype.type(0)) / length)
        total = 0.0
        for cut in range(0, length, RUN):
            part = x.dtype.type(0)
            for i in range(cut, min(cut + RUN, length)):
                k = np.uintp(i)
                part += (x[row, k] - mean) * (x[row, k] - mean)
            total += part
        if total == math.inf:
            total = math.nan  # the squares overflow, and divided by inf all would be 0
        rate = x.dtype.type(1 / math.sqrt(total / length + eps))
        statistics[row, 0], statistics[row, 1] = mean, rate
        for i in range(length):
            out[row, i] = (x[row, i] - mean) * rate * weight[i] + bias[i]


def _layer_norm_gradient(
    x: Any, weight: Any, statistics: Any, gradient: Any, into: Any, sums: Any, start: int, stop: int
) -> None:
    """For numba to compile: the blocks from start to stop."""
    length = x.shape[1]
    for block in range(start, stop):
        for row in range(block * BLOCK, min((block + 1) * BLOCK, len(x))):
            mean, rate = statistics[row, 0], statistics[row, 1]
            for i in range(length):
                normalized = (x[row, i] - mean) * rate
                sums[block, 0, i] += gradient[row, i] * normalized
                sums[block, 1, i] += gradient[row, i]
            if len(into):
                first, second = 0.0, 0.0
                for cut in range(0, length, RUN):
                    part, product = x.dtype.type(0), x.dtype.type(0)
                    for i in range(cut, min(cut + RUN, length)):
                        k = np.uintp(i)
                        h = gradient[row, k] * weight[k]
                        part += h
                        product += h * ((x[row, k] - mean) * rate)
                    first += part
                    second += product
                less, slope = x.dtype.type(first / length), x.dtype.type(second / length)
                for i in range(length):
                    h = gradient[row, i] * weight[i]
                    into[row, i] = (h - less - (x[row, i] - mean) * rate * slope) * rate


def _softmax_gradient(y: Any, gradient: Any, out: Any, start: int, stop: int) -> None:
    """For numba to compile: the rows from start to stop."""
    for row in range(start, stop):
        total = y.dtype.type(_total_product(gradient, y, row))
        for i in range(y.shape[1]):
            out[row, i] = y[row, i] * (gradient[row, i] - total)


def _exponentials(x: Any, row: int, out: Any, to: int) -> Any:
    """A row of out = exp(x - max); return the maximum and the sum."""
    length = x.shape[1]
    highest = largest(x.view(np.int32), row, length)
    for i in range(length):
        out[to, i] = exp(x[row, i] - highest)
    total = 0.0
    for cut in range(0, length, RUN):
        part = x.dtype.type(0)
        for i in range(cut, min(cut + RUN, length)):
            k = np.uintp(i)
            part += out[to, k]
        total += part
    return highest, x.dtype.type(total)


def _softmax(x: Any, out: Any, start: int, stop: int) -> None:
    for row in range(start, stop):
        _, total = _exponentials(x, row, out, row)
        share = x.dtype.type(1) / total
        for i in range(x.shape[1]):
            out[row, i] *= share


def _cross_entropy(
    x: Any, index: Any, out: Any, statistics: Any, weight: Any, smoothing: float, ignored: int,
    start: int, stop: int,
) -> None:  # fmt: skip
    powers = np.empty((1, x.shape[1]), x.dtype)
    is_weighted = len(weight) > 0
    average = weight.sum() / x.shape[1] if is_weighted else 1.0
    for row in range(start, stop):
        highest, total = _exponentials(x, row, powers, 0)
        statistics[row, 0], statistics[row, 1] = highest, total
        if index[row] == ignored:
            out[row] = 0
            if is_weighted:
                statistics[row, 2] = 0
            continue
        expected, mass = x[row, index[row]] - highest, 1.0
        if is_weighted:
            statistics[row, 2] = mass = weight[index[row]]
            # A class of weight 0 counts for nothing, also with a logit of -inf.
            expected = expected * mass if mass > 0 or expected != -math.inf else 0.0 * mass
        if smoothing > 0:
            rest = (
                _total_weighted(x, row, highest, weight) if is_weighted else _total(x, row, highest)
            )
            expected = (1 - smoothing) * expected + smoothing * (rest / x.shape[1])
            mass = (1 - smoothing) * mass + smoothing * average
        out[row] = mass * math.log(total) - expected


def _cross_entropy_gradient(
    x: Any, index: Any, statistics: Any, gradient: Any, out: Any, weight: Any, smoothing: float,
    ignored: int, start: int, stop: int,
) -> None:  # fmt: skip
    is_weighted = len(weight) > 0
    average = weight.sum() / x.shape[1] if is_weighted else 1.0
    # A loop from one array to another that is the same would not run on vectors.
    is_in_place = x.ctypes.data == out.ctypes.data
    for row in range(start, stop):
        if index[row] == ignored:
            for i in range(x.shape[1]):
                out[row, i] = 0
            continue
        highest, g = statistics[row, 0], gradient[row]
        own = statistics[row, 2] if is_weighted else 1.0
        mass = (1 - smoothing) * own + smoothing * average
        scale = x.dtype.type(g * mass / statistics[row, 1])
        share = x.dtype.type(g * smoothing / x.shape[1])
        less = x.dtype.type(0) if is_weighted else share
        if not is_in_place:
            for i in range(x.shape[1]):
                out[row, i] = x[row, i]
        for i in range(x.shape[1]):
            out[row, i] = exp(out[row, i] - highest) * scale - less
        if is_weighted and smoothing > 0:
            for i in range(x.shape[1]):
                out[row, i] -= share * weight[i]
        out[row, index[row]] -= x.dtype.type((1 - smoothing) * own * g)


@cache
def _compiled() -> Mapping[str, Callable[..., Any]]:
    numba = whole_numba()
    from numba.extending import register_jitable

    numba_math.compiled()
    fast = {"contract", "reassoc", "nsz"}
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fast}
    for function in (largest, _exponentials, _total, _total_product, _total_weighted):
        register_jitable(**options)(function)  # a dispatcher in a closure could not be cached
    njit = numba.njit(**options, cache=True)
    loops: tuple[Callable[..., Any], ...] = (
        _layer_norm, _layer_norm_gradient, _softmax, _softmax_gradient,
        _cross_entropy, _cross_entropy_gradient, _are_classes,
    )  # fmt: skip
    return {loop.__name__.lstrip("_"): njit(loop) for loop in loops}


ROW_KERNELS: Final[Mapping[FusedName, Callable[..., None]]] = {
    "softmax": softmax,
    "softmax_gradient": softmax_gradient,
    "cross_entropy": cross_entropy,
    "cross_entropy_gradient": cross_entropy_gradient,
    "layer_norm": layer_norm,
    "layer_norm_gradient": layer_norm_gradient,
}
