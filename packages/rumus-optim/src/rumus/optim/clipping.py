"""Limiting gradients, over exactly what an optimizer owns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from rumus.optim.hyperparameter import check
from rumus.optim.optimizer import Optimizer, names_of
from rumus.tensor import (
    Expr,
    GradientStore,
    Kernel,
    NonFiniteGradientError,
    OwnershipError,
    Parameter,
)
from rumus.tensor.backend import Array

_G, _LIMIT = Expr.array("g"), Expr.scalar("limit")
_SCALE = Kernel("scale", {"g": _G * Expr.scalar("factor")})
_LIMIT_EACH = Kernel("limit", {"g": _G.maximum(-_LIMIT).minimum(_LIMIT)})


def clip_grad_norm(
    grads: GradientStore, optimizer: Optimizer[Any], max_norm: float, *, eps: float = 1e-6
) -> float:
    """Scale the gradients an optimizer owns so that their joint 2-norm is at most `max_norm`.

    All are multiplied by max_norm / (norm + eps) where that is below 1. What other optimizers own
    neither counts nor changes. Returns the norm before. Pascanu, Mikolov, Bengio: arXiv:1211.5063,
    section 3.2.

    ValueError for a max_norm that is not finite and positive or an eps below 0,
    MissingGradientError for a gradient that is not there, GradientMismatchError for one that does
    not fit, NonFiniteGradientError, with the names, for a norm that is not finite. Nothing has
    changed then.
    """
    _check_limit("max_norm", max_norm)
    check("eps", eps)
    owned = list(_owned(grads, optimizer))
    squares = [parameter.backend.sum_of_squares(gradient) for parameter, gradient in owned]
    norm = math.sqrt(math.fsum(squares)) if all(map(math.isfinite, squares)) else math.nan
    if not math.isfinite(norm):
        bad = [p for (p, _), s in zip(owned, squares, strict=True) if not math.isfinite(s)]
        names = ", ".join(map(repr, names_of(bad, optimizer)))
        raise NonFiniteGradientError(f"the norm of the gradients is not finite: {names}")
    if max_norm < norm + eps:
        factor = max_norm / (norm + eps)
        for parameter, gradient in owned:
            parameter.backend.elementwise(_SCALE, (gradient,), (factor,), (gradient,))
    return norm


def clip_grad_value(grads: GradientStore, optimizer: Optimizer[Any], max_value: float) -> None:
    """Limit each element of the gradients an optimizer owns to [-max_value, max_value].

    NaN stays NaN. ValueError for a limit that is not finite and positive, GradientMismatchError for
    a gradient that does not fit, MissingGradientError for one that is not there; nothing has
    changed then.
    """
    _check_limit("max_value", max_value)
    scalars = _LIMIT_EACH.bind({"limit": max_value})
    for parameter, gradient in list(_owned(grads, optimizer)):
        parameter.backend.elementwise(_LIMIT_EACH, (gradient,), scalars, (gradient,))


def _check_limit(name: str, limit: float) -> None:
    if check(name, limit) <= 0:
        raise ValueError(f"{name} must be finite and positive, not {limit}")


def _owned(grads: GradientStore, optimizer: Optimizer[Any]) -> Iterator[tuple[Parameter, Array]]:
    """Each owned parameter with its gradient; optional ones without a gradient are left out."""
    if not optimizer.groups:
        raise OwnershipError(f"{optimizer} was released and owns nothing")
    for group in optimizer.groups:
        for _, parameter in group.named:
            if not group.optional or parameter in grads:
                grads.check(parameter)
                yield parameter, grads.array(parameter)
