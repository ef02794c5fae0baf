"""The cross entropy of rows of logits, in one kernel forward and one backward.

It is also written in primitives, which every backend has; a test compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.dtype import float16, float32, int32, is_floating
from rumus.tensor.expression.expr import Expr
from rumus.tensor.expression.real_number import real_number
from rumus.tensor.expression.whole_number import whole_number
from rumus.tensor.graph.autograd import Spread
from rumus.tensor.graph.indexing import gather
from rumus.tensor.graph.operators import cast, elementwise
from rumus.tensor.graph.softmaxes import logsumexp
from rumus.tensor.graph.tensor import Tensor, arange, backend_of, result_of
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.last_use import Kept

T = TypeVar("T", Tensor, Expr)


@elementwise
def _weighted(logit: T, weight: T) -> T:
    """The product; 0 for a weight of 0, whose class counts for nothing, and a logit of -inf."""
    is_none = weight._apply("eq", weight, 0.0) & logit._apply("eq", logit, -math.inf)
    return weight * is_none.where(0.0, logit)


def cross_entropy_primitive(
    logits: Tensor,
    targets: Tensor,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    weight: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """`weighted_cross_entropy` in primitives."""
    if logits.ndim == 3:
        joined = logits.permute(0, 2, 1).reshape(-1, logits.shape[1])
        flat = targets.reshape(-1)
        losses, weights = cross_entropy_primitive(
            joined, flat, label_smoothing, ignore_index, weight
        )
        shape = targets.shape
        return losses.reshape(shape), None if weights is None else weights.reshape(shape)
    if ignore_index is not None:
        ignored = targets == ignore_index
        safe = ignored.where(0, targets)
        losses, weights = cross_entropy_primitive(logits, safe, label_smoothing, None, weight)
        return ignored.where(0.0, losses), None if weights is None else ignored.where(0.0, weights)
    rows, classes = logits.shape
    flat = arange(rows, backend=logits.backend) * classes + targets
    own = None if weight is None else gather(weight, targets)
    picked, mass = gather(logits.reshape(-1), flat), 1.0 if own is None else own
    picked = picked if own is None else _weighted(picked, own)
    if label_smoothing:  # otherwise a logit of -inf would count
        rest = logits if weight is None else _weighted(logits, weight)
        picked = (1 - label_smoothing) * picked + label_smoothing * rest.mean(-1)
        if weight is not None:
            mass = (1 - label_smoothing) * mass + label_smoothing * weight.mean()
    return logsumexp(logits) * mass - picked, own


@checked_arguments
def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """-weight[target] log softmax(logits)[target] of each row.

    logits: (rows, classes), or (batch, classes, places), floating.
    targets: (rows,) or (batch, places), int32, each in [0, classes).
    label_smoothing: mixes this much of 1 / classes into the targets.
    ignore_index: a target of this value has loss 0. A GPU then does not check the targets, and the
        loss of one that is not a class is NaN.
    weight: (classes,), floating; None for 1.

    Result: of the targets' shape, float32 for float16 logits. ValueError or TypeError if they do
        not fit; IndexError for a target out of range. In addition to the logits, only two or three
        numbers per row are kept for `backward`, which overwrites the logits with their gradient if
        no variable, view or other operation still holds them.
    """
    return weighted_cross_entropy(logits, targets, label_smoothing, ignore_index, weight)[0]


def weighted_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    weight: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """`cross_entropy` and, with weights, the weight of each target, 0 if it is ignored."""
    _check_classes(logits, targets, weight)
    if not 0 <= real_number("cross_entropy: label_smoothing", label_smoothing) <= 1:
        raise ValueError(f"cross_entropy: label_smoothing must be in [0, 1], not {label_smoothing}")
    if ignore_index is not None:
        ignore_index = whole_number("cross_entropy: ignore_index", ignore_index)
    given = (logits, targets) if weight is None else (logits, targets, weight)
    backend = backend_of("cross_entropy", given)
    forward, back = backend.fused("cross_entropy"), backend.fused("cross_entropy_gradient")
    spread = backend.fused("cross_entropy_spread")
    if not is_floating(logits.dtype) or (forward is None and logits.dtype == float16):
        logits = cast(logits, float32)
    dtype = float32 if logits.dtype == float16 else logits.dtype
    weight = None if weight is None else cast(weight.detach(), dtype)
    if forward is None or back is None:
        return cross_entropy_primitive(logits, targets, label_smoothing, ignore_index, weight)
    x, index = logits._array, targets._array
    w = None if weight is None else weight._array
    out = backend.allocate(targets.shape, dtype)
    statistics = backend.allocate((*targets.shape, 2 if w is None else 3), dtype)
    forward(x, index, out, statistics, label_smoothing, ignore_index, w)
    kept = Kept(x)

    def vjp(gradient: Array | Spread, destinations: Sequence[Array | None]) -> Sequence[Array]:
        x, is_free = kept.take(backend)
        into = x if is_free else backend.allocate(x.shape, x.dtype)
        given, options = (x, index, statistics), (into, label_smoothing, ignore_index, w)
        if isinstance(gradient, Spread) and spread is not None:
            spread(*given, gradient.number, gradient.factor, *options)
        else:
            back(*given, gradient, *options)
        return (into,)

    saved = (logits, targets) if weight is None else (logits, targets, weight)
    takes = () if spread is None else (Spread,)
    losses = result_of("cross_entropy", out, backend, (logits,), vjp, saved=saved, takes=takes)
    return losses, None if w is None else Tensor(statistics[..., 2], backend)


def _check_classes(logits: Tensor, targets: Tensor, weight: Tensor | None) -> None:
    """Raise ValueError or TypeError for targets or weights that do not fit the logits."""
    if logits.ndim not in (2, 3) or targets.shape != (*logits.shape[:1], *logits.shape[2:]):
        raise ValueError(
            "cross_entropy: expected logits (rows, classes) and targets (rows,), or (batch, "
            f"classes, places) and (batch, places), got {logits.shape} and {targets.shape}"
        )
    if targets.dtype != int32:
        raise TypeError(f"cross_entropy: targets must be int32, not {targets.dtype}")
    if weight is not None and (weight.shape != logits.shape[1:2] or not is_floating(weight.dtype)):
        raise ValueError(
            f"cross_entropy: {logits.shape[1]} floating weights are expected, one for each class, "
            f"not {weight.dtype} of shape {weight.shape}"
        )
