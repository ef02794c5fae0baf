"""Softmax, log-softmax, log-sum-exp and the cross entropy of rows.

Each is written in primitives, which every backend has. A backend may offer a fused version by name
(`backend.fused`); one test holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rumus.tensor.expression.dtype import float16, float32, int32, is_floating
from rumus.tensor.graph.indexing import gather
from rumus.tensor.graph.operators import cast
from rumus.tensor.graph.reduction import count_over, normalize_axis
from rumus.tensor.graph.tensor import Tensor, arange, backend_of, result_of
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.fused import GRADIENTS
from rumus.tensor.memory.last_use import Kept


def _floating(x: Tensor) -> Tensor:
    return x if is_floating(x.dtype) else cast(x, float32)


def logsumexp(x: Tensor, axis: int = -1, keepdims: bool = False) -> Tensor:
    """log(sum(exp(x))) along `axis`; the largest element is taken out first."""
    if x.dtype == float16:
        return cast(logsumexp(cast(x, float32), axis, keepdims), float16)
    x = _floating(x)
    at = normalize_axis(axis, x.ndim, "logsumexp")
    # Any constant may be taken out; where the largest is infinite, 0 keeps inf - inf away.
    largest = x.detach().max(at, keepdims=True)
    shift = (largest.abs() < float("inf")).where(largest, 0.0)
    total = (x - shift).exp().sum(at, keepdims=True).log() + shift
    return total if keepdims else total.squeeze(at)


def softmax_primitive(x: Tensor, axis: int = -1) -> Tensor:
    """The softmax in primitives."""
    shifted = (x - x.detach().max(axis, keepdims=True)).exp()
    return shifted / shifted.sum(axis, keepdims=True)


def log_softmax_primitive(x: Tensor, axis: int = -1) -> Tensor:
    """The log-softmax in primitives."""
    return x - logsumexp(x, axis, keepdims=True)


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along `axis`."""
    return _rows("softmax", x, axis)


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """log(softmax(x)) along `axis`, exact where the softmax would round to 0."""
    return _rows("log_softmax", x, axis)


_PRIMITIVES = {"softmax": softmax_primitive, "log_softmax": log_softmax_primitive}


def _rows(name: Literal["softmax", "log_softmax"], x: Tensor, axis: int) -> Tensor:
    """Run a row kernel along the last axis where the backend has it, else its primitives."""
    if x.dtype == float16:
        return cast(_rows(name, cast(x, float32), axis), float16)
    x = _floating(x)
    at = normalize_axis(axis, x.ndim, name)
    count_over(x, at, name)
    backend = x._backend
    forward, back = backend.fused(name), backend.fused(GRADIENTS[name])
    if at != x.ndim - 1 or forward is None or back is None:
        return _PRIMITIVES[name](x, at)
    out = backend.allocate(x.shape, x.dtype)
    forward(x._array, out)

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array]:
        into = backend.allocate(out.shape, out.dtype)
        back(out, gradient, into)
        return (into,)

    return result_of(name, out, backend, (x,), vjp, reads_result=True)


def cross_entropy_primitive(
    logits: Tensor,
    targets: Tensor,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
) -> Tensor:
    """The cross entropy of rows in primitives."""
    if ignore_index is not None:
        ignored = targets == ignore_index
        losses = cross_entropy_primitive(logits, ignored.where(0, targets), label_smoothing)
        return ignored.where(0.0, losses)
    rows, classes = logits.shape
    flat = arange(rows, backend=logits.backend) * classes + targets
    picked = gather(logits.reshape(-1), flat)
    if label_smoothing:  # else a logit of -inf would count
        picked = (1 - label_smoothing) * picked + label_smoothing * logits.mean(-1)
    return logsumexp(logits) - picked


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
) -> Tensor:
    """-log softmax(logits)[target] of each row.

    logits: (rows, classes), floating. targets: (rows,), int32, each in [0, classes).
    label_smoothing: mixes this much of 1 / classes into the targets. ignore_index: the loss of a
    target of this value is 0. Then a GPU does not look at the targets, and the loss of one that is
    no class is NaN.
    Result: (rows,), float32 for logits of float16. ValueError or TypeError if they do not fit;
    IndexError for a target out of range.
    Besides the logits only two numbers a row are kept for `backward`, which writes the gradient
    over the logits where nobody holds them any more: where no variable, view or other operation
    could show what they were.
    """
    _check_classes(logits, targets)
    backend = backend_of("cross_entropy", (logits, targets))
    forward, back = backend.fused("cross_entropy"), backend.fused("cross_entropy_gradient")
    if not is_floating(logits.dtype) or (forward is None and logits.dtype == float16):
        logits = cast(logits, float32)
    if forward is None or back is None:
        return cross_entropy_primitive(logits, targets, label_smoothing, ignore_index)
    x, index = logits._array, targets._array
    dtype = float32 if logits.dtype == float16 else logits.dtype
    out = backend.allocate(targets.shape, dtype)
    statistics = backend.allocate((*targets.shape, 2), dtype)
    forward(x, index, out, statistics, label_smoothing, ignore_index)
    kept = Kept(x)

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array]:
        x, is_free = kept.take(backend)
        into = x if is_free else backend.allocate(x.shape, x.dtype)
        back(x, index, statistics, gradient, into, label_smoothing, ignore_index)
        return (into,)

    return result_of("cross_entropy", out, backend, (logits,), vjp, saved=(logits, targets))


def _check_classes(logits: Tensor, targets: Tensor) -> None:
    """Raise ValueError or TypeError for targets that do not fit the logits."""
    if logits.ndim != 2 or targets.shape != logits.shape[:1]:
        raise ValueError(
            f"cross_entropy: logits (rows, classes) and targets (rows,) are needed, "
            f"not {logits.shape} and {targets.shape}"
        )
    if targets.dtype != int32:
        raise TypeError(f"cross_entropy: targets must be int32, not {targets.dtype}")
