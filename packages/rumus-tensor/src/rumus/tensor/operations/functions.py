"""Elementwise functions by name, for tensors and for expressions alike."""

from __future__ import annotations

import math
from typing import TypeVar, overload

from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.expr import Expr
from rumus.tensor.expression.real_number import Finite, check_limits
from rumus.tensor.graph.operators import elementwise
from rumus.tensor.graph.tensor import Tensor, as_tensor

T = TypeVar("T", Tensor, Expr)


@checked_arguments
def exp(x: T) -> T:
    """The exponential.

    x: floating, of any shape.
    """
    return x.exp()


@checked_arguments
def log(x: T) -> T:
    """The natural logarithm.

    x: floating, of any shape.
    """
    return x.log()


@checked_arguments
def log1p(x: T) -> T:
    """log(1 + x), accurate for small x.

    x: floating, of any shape.
    """
    return x.log1p()


@checked_arguments
def expm1(x: T) -> T:
    """exp(x) - 1, accurate for small x.

    x: floating, of any shape.
    """
    return x.expm1()


@checked_arguments
def sqrt(x: T) -> T:
    """The square root.

    x: floating, of any shape.
    """
    return x.sqrt()


@checked_arguments
def sin(x: T) -> T:
    """The sine.

    x: floating, of any shape.
    """
    return x.sin()


@checked_arguments
def cos(x: T) -> T:
    """The cosine.

    x: floating, of any shape.
    """
    return x.cos()


@checked_arguments
def floor(x: T) -> T:
    """The largest integer not above x; no gradient flows through it.

    x: floating, of any shape.
    """
    return x.floor()


@checked_arguments
def ceil(x: T) -> T:
    """The smallest integer not below x; no gradient flows through it.

    x: floating, of any shape.
    """
    return x.ceil()


@elementwise
def tanh(x: T) -> T:
    """The hyperbolic tangent.

    x: floating, of any shape.
    """
    return x.tanh()


@checked_arguments
def erf(x: T) -> T:
    """The error function.

    x: floating, of any shape.
    """
    return x.erf()


@checked_arguments
def sign(x: T) -> T:
    """-1, 0 or 1.

    x: of numbers, of any shape.
    """
    return x.sign()


@elementwise
def sigmoid(x: T) -> T:
    """1 / (1 + exp(-x)).

    x: floating, of any shape.
    """
    return x.sigmoid()


@elementwise
def relu(x: T) -> T:
    """max(x, 0), with derivative 0 at 0.

    x: of numbers, of any shape.
    """
    return x.relu()


@elementwise
def softplus(x: T) -> T:
    """log(1 + exp(x)), without overflow.

    x: floating, of any shape.
    """
    return x.softplus()


@checked_arguments
def maximum(a: T, b: T | float) -> T:
    """The larger of the two, element by element.

    a: a tensor, array or number.
    b: of a shape that broadcasts with `a`.
    """
    return a.maximum(b)


@checked_arguments
def minimum(a: T, b: T | float) -> T:
    """The smaller of the two, element by element.

    a: a tensor, array or number.
    b: of a shape that broadcasts with `a`.
    """
    return a.minimum(b)


@checked_arguments
def clip(x: T, low: T | float | None = None, high: T | float | None = None) -> T:
    """Limit each element to [low, high]; None: no limit on that side.

    x: of numbers, of any shape.
    low: the smallest result, None for no limit.
    high: the largest result, None for no limit.

    ValueError for two numbers of which the first is larger: each element would become the second.
    """
    if not isinstance(x, (Tensor, Expr)):
        raise TypeError(f"clip: x must be a tensor, not {shown(x)}")
    check_limits("clip", low, high)
    above = x if low is None else x.maximum(low)
    return above if high is None else above.minimum(high)


@overload
def where(condition: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor: ...
@overload
def where(condition: Expr, a: Expr | float, b: Expr | float) -> Expr: ...
@checked_arguments
def where(
    condition: Tensor | Expr, a: Tensor | Expr | float, b: Tensor | Expr | float
) -> Tensor | Expr:
    """`a` where the (bool) condition holds, `b` elsewhere.

    condition: bool, broadcast with the others.
    a: a tensor, array or number.
    b: of a shape that broadcasts with `a`.

    >>> from rumus.tensor import tensor, where
    >>> where(tensor([True, False]), tensor([1.0, 2.0]), 0.0).tolist()
    [1.0, 0.0]
    """
    if (
        isinstance(condition, Tensor)
        and isinstance(a, (int, float))
        and isinstance(b, (int, float))
    ):
        a = as_tensor(a, condition._backend)
    return condition._apply("where", condition, a, b)  # type: ignore[arg-type]


@elementwise
def silu(x: T) -> T:
    """x sigmoid(x). Elfwing, Uchibe, Doya: "Sigmoid-weighted linear units", 2018.

    x: floating, of any shape.
    """
    return x * x.sigmoid()


@elementwise
def gelu(x: T) -> T:
    """x P(X <= x) for a standard normal X. Hendrycks, Gimpel: arXiv:1606.08415, section 2.

    x: floating, of any shape.
    """
    return 0.5 * x * (1.0 + (x * math.sqrt(0.5)).erf())


@elementwise
def gelu_tanh(x: T) -> T:
    """The tanh approximation of `gelu`. Hendrycks, Gimpel: arXiv:1606.08415, section 2.

    x: floating, of any shape.
    """
    # (1 + tanh(u)) / 2 is the sigmoid of 2 u: fewer operations, and exact far below 0.
    square = (x * x).minimum(100.0)  # the sigmoid is 0 or 1 beyond, and the cube would overflow
    scale = math.sqrt(8 / math.pi)
    return x * (x * (scale + 0.044715 * scale * square)).sigmoid()


@elementwise
def leaky_relu(x: T, *, slope: Finite = 0.01) -> T:
    """x where it is positive, `slope` x elsewhere; the derivative at 0 is `slope`.

    x: floating, of any shape.
    slope: of the negative part, finite.
    """
    return (x > 0).where(x, slope * x)


@elementwise
def elu(x: T, *, alpha: Finite = 1.0) -> T:
    """x where it is positive, alpha (exp(x) - 1) elsewhere. Clevert et al.: arXiv:1511.07289.

    x: floating, of any shape.
    alpha: finite; the limit for very negative x is -alpha.
    """
    return (x > 0).where(x, alpha * x.minimum(0.0).expm1())
