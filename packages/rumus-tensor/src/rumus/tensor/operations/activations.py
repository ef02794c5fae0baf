"""Activations beyond the mathematical functions, each one fused kernel."""

from __future__ import annotations

from typing import TypeVar

from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.expr import Expr
from rumus.tensor.expression.real_number import Limit, Positive
from rumus.tensor.graph.operators import elementwise
from rumus.tensor.graph.reduction import normalize_axis
from rumus.tensor.graph.shaping import split
from rumus.tensor.graph.tensor import Tensor

T = TypeVar("T", Tensor, Expr)

_SCALE = 1.0507009873554804934193349852946  # Klambauer et al., arXiv:1706.02515, section 2
_ALPHA = 1.6732632423543772848170429916717


@elementwise
def mish(x: T) -> T:
    """x tanh(softplus(x)). Misra: arXiv:1908.08681.

    x: floating, of any shape.
    """
    return x * x.softplus().tanh()


@elementwise
def relu6(x: T) -> T:
    """min(max(x, 0), 6), with derivative 0 at both ends. Howard et al.: arXiv:1704.04861.

    x: floating, of any shape.
    """
    return (x >= 6.0).where(6.0, x.relu())


@elementwise
def hardtanh(x: T, *, low: Limit = -1.0, high: Limit = 1.0) -> T:
    """x, limited to [low, high], with derivative 0 at both ends.

    x: floating, of any shape.
    low: the smallest result; may be -inf.
    high: the largest result; may be inf.
    """
    return (x <= low).where(low, (high <= x).where(high, x))


@elementwise
def hardsigmoid(x: T) -> T:
    """min(max(x + 3, 0), 6) / 6. Howard et al., "MobileNetV3": arXiv:1905.02244, section 5.2.

    x: floating, of any shape.
    """
    return relu6(x + 3.0) / 6.0


@elementwise
def hardswish(x: T) -> T:
    """x hardsigmoid(x). Howard et al., "MobileNetV3": arXiv:1905.02244, section 5.2.

    x: floating, of any shape.
    """
    return x * hardsigmoid(x)


@elementwise
def selu(x: T) -> T:
    """A scaled `elu` that keeps mean 0 and variance 1. Klambauer et al.: arXiv:1706.02515.

    x: floating, of any shape.
    """
    return _SCALE * (x > 0).where(x, _ALPHA * x.minimum(0.0).expm1())


@elementwise
def celu(x: T, *, alpha: Positive = 1.0) -> T:
    """max(x, 0) + min(0, alpha (exp(x / alpha) - 1)). Barron: arXiv:1704.07483.

    x: floating, of any shape.
    alpha: finite and positive; the limit for very negative x is -alpha.
    """
    return (x < 0).where(alpha * (x.minimum(0.0) / alpha).expm1(), x)


@elementwise
def log_sigmoid(x: T) -> T:
    """log(1 / (1 + exp(-x))), without overflow.

    x: floating, of any shape.
    """
    return -(-x).softplus()


@elementwise
def softsign(x: T) -> T:
    """x / (1 + |x|).

    x: floating, of any shape.
    """
    return x / (1.0 + x.abs())


@elementwise
def prelu(x: T, weight: T) -> T:
    """x where it is positive, weight x elsewhere, also at 0. He et al.: arXiv:1502.01852.

    x: floating, of any shape.
    weight: one number, or one per channel, broadcast to x.
    """
    is_positive = x > 0
    # The weight's gradient is 0 for positive x: so also for an infinite one.
    return is_positive.where(x, weight * is_positive.where(0.0, x))


@elementwise
def _gated(x: T, gate: T) -> T:
    return x * gate.sigmoid()


@checked_arguments
def glu(x: Tensor, axis: int = -1) -> Tensor:
    """The first half of an axis times the sigmoid of the second. Dauphin et al.: arXiv:1612.08083.

    x: floating.
    axis: of even length, ValueError otherwise.

    >>> from rumus.tensor import tensor
    >>> from rumus.tensor.operations.activations import glu
    >>> glu(tensor([4.0, 0.0])).tolist()
    [2.0]
    """
    at = normalize_axis(axis, x.ndim, "glu") if x.ndim else 0
    if x.ndim and x.shape[at] % 2:
        raise ValueError(f"glu: axis {axis} of {x.shape} does not divide into halves")
    first, gate = split(x, 2, at)
    return _gated(first, gate)
