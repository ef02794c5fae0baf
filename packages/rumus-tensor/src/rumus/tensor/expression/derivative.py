"""Symbolic reverse mode: the derivative of an `Expr` is an `Expr`.

A table with one row per operation, then one loop. A row gets the gradient `g` of the result, the
result `y` and the operands, and returns the gradient of each operand, None if nothing flows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from rumus.tensor.expression.expr import Expr, postorder

_Row = Callable[..., tuple[Expr | None, ...]]


def _eq(a: Expr, b: Expr) -> Expr:
    return a._apply("eq", a, b)


def _larger(g: Expr, y: Expr, a: Expr, b: Expr) -> Expr:
    """The share of `g` that goes to `a` in y = maximum(a, b): all, half of a tie, or nothing.

    A tie with a number gets all, since the number needs none. If either is NaN, it is NaN: a
    gradient of 0 would hide a NaN loss.
    """
    if b.uniform:
        return (a < b).where(0.0, (b <= a).where(g, g * y))
    return (b < a).where(g, (a < b).where(0.0, _eq(a, b).where(0.5 * g, g * y)))


def _smaller(g: Expr, y: Expr, a: Expr, b: Expr) -> Expr:
    """The share of `g` that goes to `a` in y = minimum(a, b), as in `_larger`."""
    if b.uniform:
        return (b < a).where(0.0, (a <= b).where(g, g * y))
    return (a < b).where(g, (b < a).where(0.0, _eq(a, b).where(0.5 * g, g * y)))


def _of_exponent(g: Expr, y: Expr, a: Expr, b: Expr) -> Expr:
    """The share of the exponent in y = a**b: NaN for a < 0, where nearby exponents give NaN.

    It is 0 for a = 0 and b >= 0, where 0 log(0) would be NaN.
    """
    share = g * y * a.log()
    return _eq(a, _Z).where((b >= _Z).where(0.0, share), share)


def _bounded(g: Expr, *factors: Expr) -> Expr:
    """`g` times factors of at most 1, which go to 0 where a factor of `g` may go to infinity.

    In x sigmoid(x), say, `g` is the incoming gradient times x, which may overflow: x is multiplied
    by the small factors first, as 0 times infinity is NaN.
    """
    incoming, own = g.operands if g.operation == "mul" else (None, g)
    for factor in factors:
        own = own * factor
    return own if incoming is None else incoming * own


_Z: Final = Expr.constant(0.0)

DERIVATIVES: Final[Mapping[str, _Row]] = {
    "add": lambda g, y, a, b: (g, g),
    "sub": lambda g, y, a, b: (g, -g),
    "mul": lambda g, y, a, b: (g * b, g * a),
    # Not with b * b, which may overflow float32 where a / b and 1 / b do not.
    "div": lambda g, y, a, b: (g / b, -(g * y) / b),
    # d/da by b * a**(b - 1) and not b * y / a, which is NaN at a = 0; and where b = 0, by a**0, as
    # a**-1 is infinite there.
    "pow": lambda g, y, a, b: (
        g * b * a ** _eq(b, _Z).where(0.0, b - 1),
        _of_exponent(g, y, a, b),
    ),
    "abs": lambda g, y, a: (g * a.sign(),),
    "sign": lambda g, y, a: (None,),
    "exp": lambda g, y, a: (g * y,),
    "log": lambda g, y, a: (g / a,),
    "log1p": lambda g, y, a: (g / (1 + a),),
    "expm1": lambda g, y, a: (g * a.exp(),),
    "sqrt": lambda g, y, a: (0.5 * g / y,),
    "sin": lambda g, y, a: (g * a.cos(),),
    "cos": lambda g, y, a: (-g * a.sin(),),
    "tanh": lambda g, y, a: (_bounded(g, 1 - y * y),),
    "erf": lambda g, y, a: (2 / math.sqrt(math.pi) * _bounded(g, (-a * a).exp()),),
    "sigmoid": lambda g, y, a: (_bounded(g, y, 1 - y),),
    "softplus": lambda g, y, a: (_bounded(g, a.sigmoid()),),
    "relu": lambda g, y, a: ((a <= _Z).where(0.0, g),),
    "floor": lambda g, y, a: (None,),
    "floor_divide": lambda g, y, a, b: (None, None),
    "mod": lambda g, y, a, b: (g, -g * (a // b)),
    "maximum": lambda g, y, a, b: (_larger(g, y, a, b), _larger(g, y, b, a)),
    "minimum": lambda g, y, a, b: (_smaller(g, y, a, b), _smaller(g, y, b, a)),
    "lt": lambda g, y, a, b: (None, None),
    "le": lambda g, y, a, b: (None, None),
    "eq": lambda g, y, a, b: (None, None),
    "where": lambda g, y, condition, a, b: (None, condition.where(g, 0.0), condition.where(0.0, g)),
}


def differentiate(output: Expr, gradient: Expr, wrt: Sequence[Expr]) -> list[Expr]:
    """Return `gradient` times the derivative of `output` with respect to each leaf of `wrt`.

    `wrt` holds array leaves, found by name; a leaf that `output` does not depend on gets 0.
    """
    gradients: dict[Expr, Expr] = {output: gradient}
    by_leaf: dict[str, Expr] = {}
    for node in reversed(postorder([output], is_leaf=lambda node: node.uniform)):
        flowing = gradients.get(node)
        if flowing is None or node.uniform:
            continue
        if node.operation == "array":
            seen = by_leaf.get(node.name)
            by_leaf[node.name] = flowing if seen is None else seen + flowing
            continue
        row = DERIVATIVES[node.operation](flowing, node, *node.operands)
        for operand, share in zip(node.operands, row, strict=True):
            if share is not None and not operand.uniform:
                seen = gradients.get(operand)
                gradients[operand] = share if seen is None else seen + share
    return [by_leaf.get(leaf.name, _Z) for leaf in wrt]
