"""Clipping the gradients of an optimizer's own parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

from rumus.optim.engine.optimizer import Optimizer, names_of
from rumus.optim.options.clip import check_limit
from rumus.optim.options.hyperparameter import check
from rumus.optim.options.other_names import CLIPPING
from rumus.tensor import (
    Backend,
    Expr,
    GradientStore,
    Kernel,
    NonFiniteGradientError,
    Parameter,
    Tensor,
    sqrt,
    tensor,
    where,
)
from rumus.tensor.memory.backend import Array

# Gradients in one array, on a backend, with their parameters.
Owned: TypeAlias = tuple[Backend, Array, list[Parameter]]

_G, _LIMIT = Expr.array("g"), Expr.scalar("limit")
_SCALE = Kernel("scale", {"g": _G * Expr.array("factor")}, ("g", "factor"))
_LIMIT_EACH = Kernel("limit", {"g": _G.maximum(-_LIMIT).minimum(_LIMIT)})
_ADD = Kernel("add", {"total": Expr.array("total") + Expr.array("more")}, ("total", "more"))


_MAX_NORM, _EPS = Expr.scalar("max_norm"), Expr.scalar("eps")


def factor_of(total: Expr, limit: Expr = _MAX_NORM) -> Expr:
    """Return the factor of gradients whose squares sum to `total`.

    limit: the largest norm.

    A device continues after a sum that is not finite, so the clipped gradients must be ones that
    its optimizer refuses. If one of them is NaN, they stay as they are. If the sum overflowed, some
    element is infinite or at least 1e14, since there are fewer than 1e10 of them: a factor of 1e25
    makes the large ones infinite and leaves the others finite.
    """
    divisor = sqrt(total) + _EPS
    within = where(limit < divisor, limit / divisor, 1.0)
    beyond = where(total <= math.inf, 1e25, 1.0)
    return where(total < math.inf, within, beyond)


_TOTAL = Expr.array("total")
_NORM = Kernel("norm", {"norm": sqrt(_TOTAL), "factor": factor_of(_TOTAL)})


@CLIPPING.as_keywords
def clip_grad_norm(
    grads: GradientStore, optimizer: Optimizer[Any], max_norm: float, *, eps: float = 1e-6
) -> Tensor:
    """Scale an optimizer's gradients so that their joint 2-norm is at most `max_norm`.

    All are multiplied by max_norm / (norm + eps) if that is below 1. Gradients of other optimizers
    neither count nor change. Returns the norm before clipping, a scalar tensor that stays on the
    GPU until `float` reads it. Pascanu, Mikolov, Bengio: arXiv:1211.5063, section 3.2.

    grads: what `backward` returned.
    optimizer: whose parameters count.
    max_norm: positive; infinity only measures.
    eps: at least 0, added to the norm.

    ValueError for a max_norm that is not positive or an eps below 0, MissingGradientError for a
    missing gradient, GradientMismatchError for one that does not fit, NonFiniteGradientError, with
    the names, for a norm that is not finite. Nothing has changed then. On a GPU a non-finite norm
    raises nothing here: the optimizer's step handles it according to `nonfinite`.
    """
    if max_norm != math.inf:
        check_limit("max_norm", max_norm)
    check("eps", eps)
    owned = _owned(grads, optimizer)
    backends = {id(backend): backend for backend, _, _ in owned}
    if len(backends) > 1 or not owned:
        return _clip_on_host(grads, optimizer, owned, (max_norm, eps))
    (backend,) = backends.values()
    total = total_of_squares(backend, [array for _, array, _ in owned])
    if not backend.runs_ahead:
        _check_finite(float(backend.download(total)), grads, optimizer, owned)
    norm, factor = (backend.allocate((), total.dtype) for _ in range(2))
    scalars = _NORM.bind({"max_norm": max_norm, "eps": eps})
    backend.elementwise(_NORM, (total,), scalars, (norm, factor))
    if max_norm < math.inf:
        for _, gradient, _ in owned:
            _scale(backend, gradient, factor)
    return Tensor(norm, backend)


def _clip_on_host(
    grads: GradientStore,
    optimizer: Optimizer[Any],
    owned: Sequence[Owned],
    limits: tuple[float, float],
) -> Tensor:
    """Clip gradients on several backends: the norm is read."""
    parts = [float(b.download(b.sum_of_squares(array))) for b, array, _ in owned]
    total = math.fsum(parts) if all(map(math.isfinite, parts)) else math.nan
    _check_finite(total, grads, optimizer, owned)
    norm = math.sqrt(total)
    max_norm, eps = limits
    if max_norm < norm + eps:
        for backend, gradient, _ in owned:
            factor = tensor(max_norm / (norm + eps), dtype=gradient.dtype, backend=backend)
            _scale(backend, gradient, factor._array)
    return tensor(norm)


def total_of_squares(backend: Backend, gradients: Sequence[Array]) -> Array:
    """Return the sum of all squares, as an array without axes."""
    return added_up(backend, [backend.sum_of_squares(gradient) for gradient in gradients])


def added_up(backend: Backend, sums: Sequence[Array]) -> Array:
    """Return the sum of arrays without axes; the first holds it."""
    total, *others = sums
    for more in others:
        backend.elementwise(_ADD, (total, more), (), (total,))
    return total


def _scale(backend: Backend, gradient: Array, factor: Array) -> None:
    if factor.dtype != gradient.dtype:
        given, factor = factor, backend.allocate((), gradient.dtype)
        backend.copy(given, factor)
    backend.elementwise(_SCALE, (gradient, factor), (), (gradient,))


def _check_finite(
    total: float, grads: GradientStore, optimizer: Optimizer[Any], owned: Sequence[Owned]
) -> None:
    """Raise NonFiniteGradientError, with the names, if the sum of squares is not finite."""
    if math.isfinite(total):
        return
    bad, parameters = [], [p for _, _, some in owned for p in some]
    for p in parameters:
        squares = p.backend.sum_of_squares(grads.array(p))
        if not math.isfinite(float(p.backend.download(squares))):
            bad.append(p)
    names = ", ".join(map(repr, names_of(bad or parameters, optimizer)))
    raise NonFiniteGradientError(f"the norm of the gradients is not finite: {names}")


@CLIPPING.as_keywords
def clip_grad_value(grads: GradientStore, optimizer: Optimizer[Any], max_value: float) -> None:
    """Limit each element of an optimizer's gradients to [-max_value, max_value].

    NaN stays NaN.

    grads: what `backward` returned.
    optimizer: whose parameters count.
    max_value: finite and positive.

    ValueError for a limit that is not finite and positive, GradientMismatchError for a gradient
    that does not fit, MissingGradientError for a missing one; nothing has changed then.
    """
    check_limit("max_value", max_value)
    scalars = _LIMIT_EACH.bind({"limit": max_value})
    for backend, gradient, _ in _owned(grads, optimizer):
        backend.elementwise(_LIMIT_EACH, (gradient,), scalars, (gradient,))


def _owned(grads: GradientStore, optimizer: Optimizer[Any]) -> list[Owned]:
    """The owned gradients, without missing optional ones."""
    optimizer.check_owning()
    for group in optimizer.groups:
        for _, parameter in group.named:
            slot = parameter._slot
            if group.optional and parameter not in grads:
                continue
            if slot is None or grads.array(parameter) is not slot.gradient:
                grads.check(parameter)
    return optimizer.gradients(grads)
