"""Negative log-likelihood losses, and divergences of distributions."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from rumus.nn.class_losses import class_weights, count_classes
from rumus.nn.loss import share
from rumus.nn.loss_input import OF_LOGARITHMS, check_classes, check_input
from rumus.nn.probabilities import check_counts, check_probabilities
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
from rumus.tensor import Expr, Tensor, TensorLike, bool_, elementwise, ones
from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.real_number import positive_number
from rumus.tensor.graph.scan import numbers
from rumus.tensor.graph.tensor import backend_of
from rumus.tensor.memory.recording import ask_host

T = TypeVar("T", Tensor, Expr)
DivergenceReduction: TypeAlias = Literal["mean", "sum", "none", "batchmean"]


@elementwise
def _picked(
    log_probability: T, target: T, number: T, weight: T, *, classes: float, ignored: float
) -> T:
    is_it, is_ignored = (target._apply("eq", target, other) for other in (number, ignored))
    is_class = (target < 0).where(0.0, (target < classes).where(1.0, 0.0))
    is_known = is_ignored.where(1.0, is_class) > 0
    # NaN, as is its gradient, if the target is not a class
    unknown = is_known.where(0.0, log_probability) * is_known.where(1.0, math.nan)
    return is_ignored.where(0.0, is_it.where(weighted(weight, -log_probability), 0.0) + unknown)


def _nothing(prediction: T) -> T:
    """0, also for an infinite prediction; NaN, as is its gradient, for one that is NaN."""
    given: Any = prediction
    is_number = given._apply("eq", given, given)
    found: T = is_number.where(0.0, given) * is_number.where(1.0, math.nan)
    return found


@elementwise
def _divergence(prediction: T, target: T, *, scale: float) -> T:
    given: Any = target
    usable = (given < 0.0).where(math.nan, given)
    term = usable * ((given > 0.0).where(given, 1.0).log() - prediction)
    found: T = scale * target._apply("eq", target, 0.0).where(_nothing(prediction), term)
    return found


@elementwise
def _divergence_of_logs(prediction: T, target: T, *, scale: float) -> T:
    probability = target.exp()
    term = probability * (target - prediction)
    is_none = probability._apply("eq", probability, 0.0)
    return scale * is_none.where(_nothing(prediction), term)


@elementwise
def _poisson_of_logs(prediction: T, target: T, *, scale: float) -> T:
    return scale * (prediction.exp() - share(prediction, target))


@elementwise
def _poisson(prediction: T, target: T, *, eps: float, scale: float) -> T:
    return scale * (prediction - target * (prediction + eps).log())


@elementwise
def _stirling(target: T, *, scale: float) -> T:
    large = target > 1
    safe = large.where(target, 1.0)
    term = safe * safe.log() - safe + 0.5 * (2 * math.pi * safe).log()
    return scale * large.where(term, 0.0)


@elementwise
def _gaussian(
    prediction: T, target: T, variance: T, missing: T, *, constant: float, scale: float
) -> T:
    kept = variance + missing
    difference = prediction - target
    return scale * (0.5 * (kept.log() + difference / kept * difference) + constant)


@checked_arguments
def nll_loss(
    log_probabilities: Tensor,
    targets: TensorLike,
    *,
    axis: int = -1,
    weight: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor:
    """-log_probabilities[target]: the cross entropy after a log-softmax.

    log_probabilities: floating, such as `x.log_softmax(axis)`; for logits, `cross_entropy_loss`
        computes both in one kernel.
    targets: integers, the number of the class.
    axis, weight, sample_weight, ignore_index, reduction: as in `cross_entropy_loss`, as are the
        errors.

    >>> from rumus.nn import nll_loss
    >>> from rumus.tensor import tensor
    >>> round(nll_loss(tensor([[2.0, 0.0], [0.0, 2.0]]).log_softmax(), [0, 1]).item(), 4)
    0.1269
    """
    name = "nll_loss"
    check_reduction(name, reduction)
    check_floating(name, "the log probabilities", log_probabilities)
    x = widened(log_probabilities)
    check_input(name, x, "logarithms of probabilities", OF_LOGARITHMS)
    if not x.ndim or not -x.ndim <= axis < x.ndim or not x.shape[axis]:
        raise ValueError(f"{name}: {x.shape} has no classes on axis {axis}")
    at, given = axis % x.ndim, targets if isinstance(targets, Tensor) else np.asarray(targets)
    others = (*x.shape[:at], *x.shape[at + 1 :])
    if given.dtype.kind not in "iu" or given.shape != others:
        raise ValueError(
            f"{name}: expected class numbers of shape {others} for {x.shape} with classes on axis "
            f"{axis}, got {given.dtype} of shape {given.shape}"
        )
    check_classes(name, x, at)
    count = count_classes(name, x, given, x.shape[at], ignore_index)
    index = as_integers(x, given)
    backend_of(name, (x, index))
    column = [1] * (x.ndim - at - 1)
    number = numbers(x.shape[at], x.backend).reshape(-1, *column)
    one = ones((), dtype=x.dtype, backend=x.backend)
    w = one
    if weight is not None:
        w = class_weights(name, x, weight, x.shape[at]).reshape(-1, *column)

    def of_target(values: Tensor) -> Tensor:
        own = {"classes": x.shape[at], "ignored": ignore_index}
        return _picked(values, index.unsqueeze(at), number, w, **own).sum(at)

    losses = of_target(x)
    is_plain = count == index.size and weight is None
    counted = None if is_plain else of_target(-one)
    return Found(losses, count, counted).reduced(name, reduction, sample_weight)


def _check_signs(complaint: str, values: NDArray[Any]) -> None:
    if values.size and values.min() < 0:
        raise ValueError(complaint)


@checked_arguments
def kl_div(
    log_prediction: Tensor,
    target: TensorLike,
    *,
    log_target: bool = False,
    reduction: DivergenceReduction = "mean",
    sample_weight: TensorLike | None = None,
) -> Tensor:
    """target (log target - log_prediction): the terms of the Kullback-Leibler divergence.

    "On information and sufficiency", 1951. The order is PyTorch's: KL(target || prediction). A term
    with probability 0 is 0.

    log_prediction: floating, logarithms of probabilities.
    target: of the same shape, probabilities.
    log_target: the target is logarithms of probabilities.
    reduction: "mean" divides by the number of terms; "batchmean" divides the sum by the length of
        the first axis, which gives the actual divergence; "sum"; "none" for all terms.
    sample_weight: as in `mse_loss`; not with "batchmean".

    ValueError for a probability outside [0, 1] (checked only on the CPU), and as for `mse_loss`.

    >>> from rumus.nn import kl_div
    >>> from rumus.tensor import tensor
    >>> p = tensor([[0.5, 0.5]])
    >>> round(kl_div(p.log(), [[0.25, 0.75]], reduction="batchmean").item(), 4)
    0.1308
    """
    name = "kl_div"
    if reduction == "batchmean":
        if sample_weight is not None:
            raise ValueError(f'{name}: sample_weight works with reduction "mean", not "batchmean"')
        if not log_prediction.ndim or not len(log_prediction):
            raise ValueError(
                f"{name}: no batch to take the mean over, shape {log_prediction.shape}"
            )
        total = kl_div(log_prediction, target, log_target=log_target, reduction="sum")
        return total / len(log_prediction)
    x, beside = check_pair(name, log_prediction, target, reduction)
    check_input(name, x, "logarithms of probabilities", OF_LOGARITHMS)
    if not log_target:
        check_probabilities(name, "target", beside, "give probabilities, or log_target=True")
    losses = partial(_divergence_of_logs if log_target else _divergence, x, beside)
    return of_elements(name, losses, x.size, reduction, sample_weight)


@checked_arguments
def poisson_nll_loss(
    prediction: Tensor,
    target: TensorLike,
    *,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: Reduction = "mean",
    sample_weight: TensorLike | None = None,
) -> Tensor:
    """rate - target log(rate): for Poisson counts, without the factorial term.

    prediction: the logarithm of the rate, floating, any shape.
    target: as in `mse_loss`.
    log_input: False if the prediction is the rate itself, to which `eps` is added in the logarithm.
    full: add Stirling's approximation of log(target!) for targets above 1.
    eps: positive, ValueError otherwise.
    reduction, sample_weight: as in `mse_loss`, as are the other errors.

    ValueError for a negative target, with its position (checked only on the CPU).

    >>> from rumus.nn import poisson_nll_loss
    >>> from rumus.tensor import tensor
    >>> poisson_nll_loss(tensor([0.0]), [3.0]).item()
    1.0
    """
    name = "poisson_nll_loss"
    positive_number(f"{name}: eps", eps)
    x, beside = check_pair(name, prediction, target, reduction)
    check_counts(name, "target", beside)

    def losses(scale: float) -> Tensor:
        if log_input:
            terms = _poisson_of_logs(x, beside, scale=scale)
        else:
            terms = _poisson(x, beside, eps=eps, scale=scale)
        return terms + _stirling(beside, scale=scale) if full else terms

    return of_elements(name, losses, x.size, reduction, sample_weight)


@checked_arguments
def gaussian_nll_loss(
    prediction: Tensor,
    target: TensorLike,
    variance: TensorLike,
    *,
    full: bool = False,
    eps: float = 1e-6,
    reduction: Reduction = "mean",
    sample_weight: TensorLike | None = None,
) -> Tensor:
    """(log variance + (prediction - target)^2 / variance) / 2.

    Nix, Weigend: "Estimating the mean and variance of the target probability distribution", 1994.

    prediction, target: as in `mse_loss`.
    variance: of this shape, or without the last axis, or with length 1 there.
    full: add log(2 pi) / 2.
    eps: positive, the lower bound of the variance; a smaller one counts as `eps`, with its
        gradient.
    reduction, sample_weight: as in `mse_loss`.

    TypeError for a variance of truth values. ValueError for one that does not fit or is negative
    (checked only on the CPU), and as for `mse_loss`.

    >>> from rumus.nn import gaussian_nll_loss
    >>> from rumus.tensor import tensor
    >>> gaussian_nll_loss(tensor([1.0]), [3.0], [1.0]).item()
    2.0
    """
    name = "gaussian_nll_loss"
    positive_number(f"{name}: eps", eps)
    x, beside = check_pair(name, prediction, target, reduction)
    spread = as_target(name, x, variance, "variance")
    given = variance if isinstance(variance, Tensor) else np.asarray(variance)
    if given.dtype == bool_:
        raise TypeError(f"{name}: variance must be numbers, not truth values")
    if spread.shape == x.shape[:-1] and spread.ndim < x.ndim:
        spread = spread.unsqueeze(-1)
    if spread.shape not in (x.shape, (*x.shape[:-1], 1), ()):
        raise ValueError(f"{name}: variance {spread.shape} does not fit {x.shape}")
    if is_readable(spread):
        what = "a variance is negative; give squares of deviations"
        ask_host(partial(_check_signs, f"{name}: {what}"), [spread._array])
    constant = 0.5 * math.log(2 * math.pi) if full else 0.0
    missing = (eps - spread.detach()).relu()  # added as a constant, so that eps has a slope too
    losses = partial(_gaussian, x, beside, spread, missing, constant=constant)
    return of_elements(name, losses, x.size, reduction, sample_weight)
