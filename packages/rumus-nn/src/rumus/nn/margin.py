"""Margin losses: predictions that are right by the margin cost nothing."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rumus.nn.class_losses import class_weights, count_classes
from rumus.nn.distance import cosine_similarity, pairwise_distance
from rumus.nn.loss_input import check_classes
from rumus.nn.reduction import (
    Found,
    Reduction,
    as_integers,
    as_target,
    check_floating,
    check_pair,
    check_reduction,
    is_readable,
    of_elements,
    weighted,
    widened,
)
from rumus.tensor import Expr, Tensor, TensorLike, elementwise, minimum, ones
from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.real_number import finite_number, real_number
from rumus.tensor.graph.scan import numbers
from rumus.tensor.memory.recording import ask_host

T = TypeVar("T", Tensor, Expr)


@elementwise
def _rest(x: T) -> T:
    """x where it is not negative, else 0, with the slope 1 at 0: as in PyTorch, unlike a ReLU."""
    found: T = (x < 0).where(0.0, x)
    return found


@elementwise
def _hinge(prediction: T, target: T, *, margin: float, scale: float) -> T:
    return scale * _rest(margin - prediction * target)


@elementwise
def _hinge_embedding(x: T, target: T, *, margin: float, scale: float) -> T:
    return scale * (target > 0).where(x, _rest(margin - x))


@elementwise
def _soft_margin(x: T, target: T, *, scale: float) -> T:
    return scale * (-target * x).softplus()


@elementwise
def _ranking(first: T, second: T, target: T, *, margin: float, scale: float) -> T:
    return scale * _rest(margin - target * (first - second))


@elementwise
def _cosine_embedding(similarity: T, target: T, *, margin: float, scale: float) -> T:
    return scale * (target > 0).where(1 - similarity, _rest(similarity - margin))


@elementwise
def _contrastive(distance: T, target: T, *, margin: float, scale: float) -> T:
    apart = (margin - distance).relu()
    return scale * 0.5 * (target > 0).where(distance * distance, apart * apart)


@elementwise
def _triplet(positive: T, negative: T, *, margin: float, scale: float) -> T:
    return scale * _rest(margin + positive - negative)


@elementwise
def _others(x: T, own: T, target: T, number: T, weight: T, *, margin: float, classes: float) -> T:
    cost = weighted(weight, (margin - own + x).relu())
    cost = number._apply("eq", number, target).where(0.0, cost)
    is_class = (target < 0).where(0.0, (target < classes).where(1.0, 0.0)) > 0
    # NaN, and so its gradient, where the target is not a class
    return cost + is_class.where(0.0, x) * is_class.where(1.0, math.nan)


@elementwise
def _own(x: T, target: T, number: T) -> T:
    return number._apply("eq", number, target).where(x, 0.0)


def _check_signs(loss: str, target: Tensor) -> None:
    """Raise ValueError for a target that is neither 1 nor -1; not checked on a GPU."""
    if is_readable(target):
        ask_host(partial(_check_values, loss), [target._array])


def _check_values(loss: str, target: NDArray[Any]) -> None:
    bad = np.argwhere(np.abs(target) != 1)
    if len(bad):
        at = tuple(bad[0].tolist())
        raise ValueError(f"{loss}: target {target[at]} at index {at} is neither 1 nor -1")


def _check_margin(loss: str, margin: float, low: float = -math.inf, high: float = math.inf) -> None:
    """Raise ValueError for a margin that is not finite, or with which pairs cost nothing."""
    number = real_number(f"{loss}: margin", margin)
    if not math.isfinite(number) or not low <= number <= high:
        allowed = (
            f"in [{low:g}, {high:g}]"
            if high < math.inf
            else f"finite and at least {low:g}"
            if low > -math.inf
            else "finite"
        )
        raise ValueError(f"{loss}: margin must be {allowed}, not {margin}")


@checked_arguments
def hinge_loss(
    prediction: Tensor,
    target: TensorLike,
    *,
    margin: float = 1.0,
    reduction: Reduction = "mean",
    sample_weight: TensorLike | None = None,
) -> Tensor:
    """max(0, margin - target prediction), as in support vector machines.

    Cortes, Vapnik: "Support-vector networks", 1995.

    prediction: floating, any shape.
    target: 1 or -1, of the prediction's shape, ValueError otherwise (checked only on the CPU).
    margin: 0 or more, the value of target prediction from which there is no loss.
    reduction, sample_weight: as in `mse_loss`, as are the other errors.

    >>> from rumus.nn import hinge_loss
    >>> from rumus.tensor import tensor
    >>> hinge_loss(tensor([0.5, 2.0]), [1.0, 1.0], reduction="none").tolist()
    [0.5, 0.0]
    """
    _check_margin("hinge_loss", margin, 0)
    x, beside = check_pair("hinge_loss", prediction, target, reduction)
    _check_signs("hinge_loss", beside)
    losses = partial(_hinge, x, beside, margin=margin)
    return of_elements("hinge_loss", losses, x.size, reduction, sample_weight)


@checked_arguments
def hinge_embedding_loss(
    distance: Tensor,
    target: TensorLike,
    *,
    margin: float = 1.0,
    reduction: Reduction = "mean",
    sample_weight: TensorLike | None = None,
) -> Tensor:
    """The distance where the target is 1, max(0, margin - distance) where it is -1.

    distance: floating, any shape.
    target, reduction, sample_weight: as in `hinge_loss`, as are the errors.
    margin: the distance from which a target of -1 costs nothing.

    >>> from rumus.nn import hinge_embedding_loss
    >>> from rumus.tensor import tensor
    >>> hinge_embedding_loss(tensor([0.25, 0.25]), [1.0, -1.0], reduction="none").tolist()
    [0.25, 0.75]
    """
    _check_margin("hinge_embedding_loss", margin)
    x, beside = check_pair("hinge_embedding_loss", distance, target, reduction)
    _check_signs("hinge_embedding_loss", beside)
    losses = partial(_hinge_embedding, x, beside, margin=margin)
    return of_elements("hinge_embedding_loss", losses, x.size, reduction, sample_weight)


@checked_arguments
def soft_margin_loss(
    prediction: Tensor,
    target: TensorLike,
    *,
    reduction: Reduction = "mean",
    sample_weight: TensorLike | None = None,
) -> Tensor:
    """log(1 + exp(-target prediction)), without overflow.

    prediction, target, reduction, sample_weight: as in `hinge_loss`, as are the errors.

    >>> from rumus.nn import soft_margin_loss
    >>> from rumus.tensor import tensor
    >>> round(soft_margin_loss(tensor([0.0]), [-1.0]).item(), 4)
    0.6931
    """
    x, beside = check_pair("soft_margin_loss", prediction, target, reduction)
    _check_signs("soft_margin_loss", beside)
    losses = partial(_soft_margin, x, beside)
    return of_elements("soft_margin_loss", losses, x.size, reduction, sample_weight)


@checked_arguments
def margin_ranking_loss(
    first: Tensor,
    second: Tensor,
    target: TensorLike,
    *,
    margin: float = 0.0,
    reduction: Reduction = "mean",
    sample_weight: TensorLike | None = None,
) -> Tensor:
    """max(0, margin - target (first - second)): 1 where the first should be larger, else -1.

    first, second: floating, of one shape.
    target, reduction, sample_weight: as in `hinge_loss`, as are the errors.
    margin: by how much the larger one should lead.

    >>> from rumus.nn import margin_ranking_loss
    >>> from rumus.tensor import tensor
    >>> margin_ranking_loss(tensor([1.0]), tensor([3.0]), [1.0]).item()
    2.0
    """
    _check_margin("margin_ranking_loss", margin)
    name = "margin_ranking_loss"
    x, y = check_pair(name, first, second, reduction)
    _, beside = check_pair(name, first, target, reduction)
    _check_signs(name, beside)
    losses = partial(_ranking, x, y, beside, margin=margin)
    return of_elements(name, losses, x.size, reduction, sample_weight)


@checked_arguments
def multi_margin_loss(
    logits: Tensor,
    targets: TensorLike,
    *,
    margin: float = 1.0,
    weight: TensorLike | None = None,
    reduction: Reduction = "mean",
    sample_weight: TensorLike | None = None,
) -> Tensor:
    """The hinge loss of several classes: sum max(0, margin - x[target] + x[i]) / classes, i others.

    Crammer, Singer: "On the algorithmic implementation of multiclass kernel-based vector machines",
    2001.

    logits: (batch, classes), floating.
    targets: (batch,), integers, tensor or array.
    margin: by how much the target's logit should lead.
    weight: (classes,), multiplies the losses of each class; the mean is still over the samples, as
        in PyTorch.
    reduction: "mean", "sum", or "none" for one number for each sample.
    sample_weight: (batch,), as in `mse_loss`.

    Errors are those of `cross_entropy_loss`, except that no target is ignored.

    >>> from rumus.nn import multi_margin_loss
    >>> from rumus.tensor import tensor
    >>> multi_margin_loss(tensor([[1.0, 0.5, -3.0]]), [0]).item()
    0.1666666716337204
    """
    _check_margin("multi_margin_loss", margin)
    name = "multi_margin_loss"
    check_reduction(name, reduction)
    check_floating(name, "the logits", logits)
    x = widened(logits)
    given = targets if isinstance(targets, Tensor) else np.asarray(targets)
    if x.ndim != 2 or not x.shape[1] or given.shape != x.shape[:1] or given.dtype.kind not in "iu":
        raise ValueError(
            f"{name}: expected logits (batch, classes) and class numbers (batch,), got {x.shape} "
            f"and {given.dtype} of shape {given.shape}"
        )
    if reduction == "mean" and not len(x):
        raise ValueError(f"{name}: the mean of no targets, logits of shape {x.shape}")
    check_classes(name, x, 1)
    classes = x.shape[1]
    count_classes(name, x, given, classes, ignore_index=None)
    index = as_integers(x, given)
    target, number = index.unsqueeze(1), numbers(classes, x.backend)
    w = ones((), dtype=x.dtype, backend=x.backend)
    if weight is not None:
        each = class_weights(name, x, weight, classes)
        w = _own(each.broadcast_to(x.shape), target, number).sum(1, keepdims=True)
    own = _own(x, target, number).sum(1, keepdims=True)
    losses = _others(x, own, target, number, w, margin=margin, classes=classes).mean(1)
    return Found(losses, losses.size).reduced(name, reduction, sample_weight)


@checked_arguments
def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: Reduction = "mean",
    sample_weight: TensorLike | None = None,
) -> Tensor:
    """max(0, margin + |anchor - positive| - |anchor - negative|) of each row.

    Schroff, Kalenichenko, Philbin: "FaceNet": arXiv:1503.03832.

    anchor, positive, negative: (..., features) of one shape, floating.
    margin: 0 or more, by how much the positive should be closer.
    p, eps: of the distance, see `pairwise_distance`.
    swap: use the smaller of the negative's distances to the anchor and to the positive.
    reduction: "mean", "sum", or "none" for one number for each row.
    sample_weight: as in `mse_loss`.

    Errors are those of `mse_loss`.

    >>> from rumus.nn import triplet_margin_loss
    >>> from rumus.tensor import tensor
    >>> a, b, c = tensor([[0.0, 0.0]]), tensor([[3.0, 4.0]]), tensor([[0.0, 5.0]])
    >>> round(triplet_margin_loss(a, b, c).item(), 4)
    1.0
    """
    name = "triplet_margin_loss"
    _check_margin(name, margin, 0)
    finite_number(f"{name}: eps", eps)
    a, b = check_pair(name, anchor, positive, reduction)
    _, c = check_pair(name, anchor, negative, reduction)
    near, far = (pairwise_distance(a, other, p=p, eps=eps) for other in (b, c))
    if swap:
        far = minimum(far, pairwise_distance(b, c, p=p, eps=eps))
    losses = partial(_triplet, near, far, margin=margin)
    return of_elements(name, losses, near.size, reduction, sample_weight)


@checked_arguments
def cosine_embedding_loss(
    first: Tensor,
    second: Tensor,
    target: TensorLike,
    *,
    margin: float = 0.0,
    reduction: Reduction = "mean",
    sample_weight: TensorLike | None = None,
) -> Tensor:
    """1 - cos of the angle where the target is 1, max(0, cos - margin) where it is -1.

    first, second: (..., features) of one shape.
    target: (...), 1 or -1, ValueError otherwise (checked only on the CPU).
    margin: in [-1, 1], the cosine up to which dissimilar rows cost nothing.
    reduction: "mean", "sum", or "none" for one number for each row.
    sample_weight: as in `mse_loss`.

    >>> from rumus.nn import cosine_embedding_loss
    >>> from rumus.tensor import tensor
    >>> x, y = tensor([[1.0, 0.0]]), tensor([[0.0, 2.0]])
    >>> cosine_embedding_loss(x, y, [1.0]).item()
    1.0
    """
    _check_margin("cosine_embedding_loss", margin, -1, 1)
    name = "cosine_embedding_loss"
    x, y = check_pair(name, first, second, reduction)
    similarity = cosine_similarity(x, y)
    _, beside = check_pair(name, similarity, target, reduction)
    _check_signs(name, beside)
    losses = partial(_cosine_embedding, similarity, beside, margin=margin)
    return of_elements(name, losses, similarity.size, reduction, sample_weight)


@checked_arguments
def contrastive_loss(
    first: Tensor,
    second: Tensor,
    is_same: TensorLike,
    *,
    margin: float = 1.0,
    reduction: Reduction = "mean",
    sample_weight: TensorLike | None = None,
) -> Tensor:
    """d^2 / 2 for similar pairs, max(0, margin - d)^2 / 2 for others, d their distance.

    Hadsell, Chopra, LeCun: "Dimensionality reduction by learning an invariant mapping", 2006.

    first, second: (..., features) of one shape.
    is_same: (...), 1 (or True) for a similar pair, 0 for others.
    margin: 0 or more, the distance from which a dissimilar pair costs nothing.
    reduction: "mean", "sum", or "none" for one number for each pair.
    sample_weight: as in `mse_loss`.

    >>> from rumus.nn import contrastive_loss
    >>> from rumus.tensor import tensor
    >>> x, y = tensor([[0.0, 0.0]]), tensor([[0.0, 0.5]])
    >>> contrastive_loss(x, y, [True]).item(), contrastive_loss(x, y, [False]).item()
    (0.125, 0.125)
    """
    _check_margin("contrastive_loss", margin, 0)
    name = "contrastive_loss"
    x, y = check_pair(name, first, second, reduction)
    distance = (x - y).norm(axis=-1)
    same = as_target(name, distance, is_same, "is_same")
    _, beside = check_pair(name, distance, same, reduction)
    losses = partial(_contrastive, distance, beside, margin=margin)
    return of_elements(name, losses, distance.size, reduction, sample_weight)
