"""Losses for imbalanced classes: focal, dice."""

from __future__ import annotations

from functools import partial
from typing import Final, TypeVar

import numpy as np

from rumus.nn.class_losses import class_weights
from rumus.nn.cross_entropy import check_fit, class_axis, losses_of_classes
from rumus.nn.loss import entropy_of, less_likely
from rumus.nn.loss_input import OF_LOGITS, check_classes, check_input
from rumus.nn.probabilities import check_probabilities
from rumus.nn.reduction import (
    Found,
    Reduction,
    check_floating,
    check_pair,
    check_reduction,
    of_elements,
    weighted,
)
from rumus.tensor import Expr, Tensor, TensorLike, elementwise
from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.real_number import real_number

T = TypeVar("T", Tensor, Expr)

# Beyond it a probability is 0 or 1, and its slope of 0 would be multiplied by an infinite loss.
_FAR: Final = 1000.0


@elementwise
def _weighed(entropy: T, *, gamma: float) -> T:
    """(1 - p)^gamma times the cross entropy -log p."""
    is_near = entropy < _FAR
    missing = is_near.where((-(-is_near.where(entropy, 0.0)).expm1()).relu(), 1.0)
    # A power below 1 has no slope at 0, where the entropy is also 0.
    return (missing > 0).where((missing > 0).where(missing, 1.0) ** gamma * entropy, entropy)


def _focal(x: T, target: T, gamma: float) -> T:
    """(1 - p)^gamma times the binary entropy, p the probability of the target; see `_weighed`.

    From the less likely side, so that 1 - p keeps its digits where the logit is right.
    """
    wrong, rest = less_likely(x, target)
    is_near = wrong.abs() < _FAR
    p = is_near.where(is_near.where(wrong, 0.0).sigmoid(), (wrong > 0).where(1.0, 0.0))
    missing = p + rest - 2 * p * rest
    safe = (missing > 0).where(missing, 1.0)
    return weighted((missing > 0).where(safe**gamma, missing), entropy_of(wrong, rest))


@elementwise
def _sigmoid_focal(x: T, target: T, *, alpha: float, gamma: float, scale: float) -> T:
    weight = alpha * target + (1 - alpha) * (1 - target)
    return scale * weighted(weight, _focal(x, target, gamma))


@elementwise
def _sigmoid_focal_unweighted(x: T, target: T, *, gamma: float, scale: float) -> T:
    return scale * _focal(x, target, gamma)


def _check_gamma(loss: str, gamma: float) -> None:
    if not 0 <= real_number(f"{loss}: gamma", gamma) < float("inf"):
        raise ValueError(f"{loss}: gamma must be at least 0 and finite, not {gamma}")


@checked_arguments
def focal_loss(
    logits: Tensor,
    targets: TensorLike,
    *,
    gamma: float = 2.0,
    axis: int = -1,
    weight: TensorLike | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    sample_weight: TensorLike | None = None,
) -> Tensor:
    """weight[target] (1 - p)^gamma (-log p), p the probability of the target's class.

    Lin et al., "Focal loss for dense object detection": arXiv:1708.02002, section 3. The mean is
    over the targets that are not ignored, and not divided by the weights, as in the paper.

    logits, axis, weight, ignore_index, sample_weight: as in `cross_entropy_loss`.
    targets: integers, the number of the class, of the shape of the logits without their axis.
    gamma: 0 is the cross entropy; ValueError if negative.
    reduction: "mean", "sum", or "none" for one number per target.

    Errors are those of `cross_entropy_loss`.

    >>> from rumus.nn import focal_loss
    >>> from rumus.tensor import tensor
    >>> round(focal_loss(tensor([[2.0, 0.0]]), [0]).item(), 4)
    0.0018
    """
    name = "focal_loss"
    _check_gamma(name, gamma)
    check_reduction(name, reduction)
    check_floating(name, "the logits", logits)
    at = class_axis(name, logits, axis)
    given = targets if isinstance(targets, Tensor) else np.asarray(targets)
    if given.dtype.kind == "f":
        raise TypeError(f"{name}: targets must be class numbers, not {given.dtype}")
    check_fit(name, logits, given, reduction, at)
    check_input(name, logits, "logits of classes", OF_LOGITS)
    check_classes(name, logits, at)
    found = losses_of_classes(name, logits, given, at, ignore_index, 0.0, None)
    losses = _weighed(found.losses, gamma=gamma)
    if weight is not None:
        weights = class_weights(name, logits, weight, logits.shape[at])
        fixed = logits.detach()
        own = losses_of_classes(name, fixed, given, at, ignore_index, 0.0, weights).weights
        assert own is not None
        losses = weighted(own, losses)
    return Found(losses, found.count, found.weights).reduced(name, reduction, sample_weight)


@checked_arguments
def sigmoid_focal_loss(
    logits: Tensor,
    target: TensorLike,
    *,
    alpha: float | None = 0.25,
    gamma: float = 2.0,
    reduction: Reduction = "mean",
    sample_weight: TensorLike | None = None,
) -> Tensor:
    """The binary focal loss of each element: a_t (1 - p_t)^gamma (-log p_t).

    Lin et al.: arXiv:1708.02002.

    logits: floating, any shape.
    target: of the same shape, in [0, 1].
    alpha: in [0, 1], the weight of positives, 1 - alpha that of negatives; None for 1.
    gamma: not negative; 0 is the binary cross entropy.
    reduction, sample_weight: as in `mse_loss`.

    ValueError for an alpha or gamma out of range, for a target outside [0, 1] (checked only on the
    CPU), and as for `mse_loss`.

    >>> from rumus.nn import sigmoid_focal_loss
    >>> from rumus.tensor import tensor
    >>> round(sigmoid_focal_loss(tensor([0.0]), [1.0]).item(), 4)
    0.0433
    """
    name = "sigmoid_focal_loss"
    _check_gamma(name, gamma)
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f"{name}: alpha must be in [0, 1], or None, not {alpha}")
    check_input(name, logits, "logits", OF_LOGITS)
    x, beside = check_pair(name, logits, target, reduction)
    check_probabilities(name, "target", beside)
    losses = partial(_sigmoid_focal_unweighted, x, beside, gamma=gamma)
    if alpha is not None:
        losses = partial(_sigmoid_focal, x, beside, alpha=alpha, gamma=gamma)
    return of_elements(name, losses, x.size, reduction, sample_weight)


@checked_arguments
def dice_loss(
    probabilities: Tensor,
    target: TensorLike,
    *,
    smooth: float = 1.0,
    per_class: bool = False,
    reduction: Reduction = "mean",
    sample_weight: TensorLike | None = None,
) -> Tensor:
    """1 - (2 sum p t + smooth) / (sum p + sum t + smooth): small if two masks overlap.

    Milletari, Navab, Ahmadi: "V-Net": arXiv:1606.04797, section 3.

    probabilities: p, (batch, ...), as from a sigmoid or softmax.
    target: t, of the same shape, in [0, 1].
    smooth: at least 0; avoids 0 / 0 for empty masks.
    per_class: sum over all axes but the first two; by default over all but the first.
    reduction: "mean", "sum", or "none" for one number per sample, or per class of each sample.
    sample_weight: as in `mse_loss`.

    ValueError for a negative smooth, too few axes, a p or t outside [0, 1] (checked only on the
    CPU), and as for `mse_loss`.

    >>> from rumus.nn import dice_loss
    >>> from rumus.tensor import tensor
    >>> dice_loss(tensor([[1.0, 0.0, 1.0]]), [[1.0, 0.0, 0.0]], smooth=0.0).item()
    0.3333333134651184
    """
    name = "dice_loss"
    check_floating(name, "the probabilities", probabilities)
    p, t = check_pair(name, probabilities, target, reduction)
    check_input(name, p, "probabilities", "apply a sigmoid or a softmax to logits")
    lead = 2 if per_class else 1
    if p.ndim <= lead:
        raise ValueError(f"{name}: expected more than {lead} axes, got {p.shape}")
    if not 0 <= smooth < float("inf"):
        raise ValueError(f"{name}: smooth must be at least 0 and finite, not {smooth}")
    check_probabilities(name, "probability", p, "apply a sigmoid or a softmax to logits")
    check_probabilities(name, "target", t)
    axes = tuple(range(lead, p.ndim))
    t = t.astype(p.dtype)
    losses = 1 - (2 * (p * t).sum(axes) + smooth) / ((p + t).sum(axes) + smooth)
    return Found(losses, losses.size).reduced(name, reduction, sample_weight)
