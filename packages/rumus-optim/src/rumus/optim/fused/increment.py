"""The update that a rule adds to p, derived from its expression, and its compensated sum with p.

A rule returns the new value of p. Subtracting the old one would include the rounding error, so the
difference is derived from the rule's expression, as in

    p (1 - s) - u   is   p + (p (-s) - u),

where -s is a scalar that the host computes in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rumus.tensor import Expr
from rumus.tensor.expression.expr import postorder

ZERO = Expr.constant(0.0)


@dataclass(frozen=True, slots=True)
class _Change:
    """What a node adds to p.

    is_whole: whether it is p itself, possibly times 1 - s or 1 + s, rather than p times any scalar:
        in p - s p, the first term is changed, and the second is the change.
    """

    delta: Expr
    is_whole: bool


def increment(new: Expr, p: Expr) -> Expr | None:
    """Return an expression for new - p without cancellation; None if `new` has another form.

    The form: p, times scalars, plus and minus anything; `where` between such.

    >>> p, g, lr, decay = Expr.array("p"), Expr.array("g"), Expr.scalar("lr"), Expr.scalar("decay")
    >>> found = increment(p * (1 - lr * decay) - lr * g, p)
    >>> found.operation, found.operands[0].operation, found.operands[0].operands[0] is p
    ('sub', 'mul', True)
    >>> increment(p * g, p) is None
    True
    """
    found: dict[Expr, _Change | None] = {}
    for node in postorder([new], is_leaf=lambda node: node.uniform):
        if node is p:
            found[node] = _Change(ZERO, True)
        else:
            found[node] = None if node.uniform else _change(node, p, found)
    change = found[new]
    return None if change is None else change.delta


def known_increment(option: str, rule: str, new: Expr, p: Expr) -> Expr:
    """Return the increment that an option needs. TypeError if the rule's form does not give it."""
    found = increment(new, p)
    if found is None:
        raise TypeError(
            f"{option}: the rule {rule} must return p plus or minus something (p may be multiplied "
            "by scalars), so that the update can be separated from p"
        )
    return found


def _change(node: Expr, p: Expr, found: Mapping[Expr, _Change | None]) -> _Change | None:
    if node.operation in ("add", "sub"):
        return _of_sum(node, found)
    if node.operation == "where":
        condition, first, second = node.operands
        a, b = found[first], found[second]
        if a is None or b is None:
            return None
        return _Change(condition.where(a.delta, b.delta), a.is_whole and b.is_whole)
    if node.operation in ("mul", "div"):
        return _of_product(node, p, found)
    return None


def _of_product(node: Expr, p: Expr, found: Mapping[Expr, _Change | None]) -> _Change | None:
    value, scalar = node.operands
    if node.operation == "mul" and value.uniform:
        value, scalar = scalar, value
    change = found[value]
    if change is None or not scalar.uniform:
        return None
    is_quotient = node.operation == "div"
    less_one = -_less_one(scalar) / scalar if is_quotient else _less_one(scalar)
    factor = 1 / scalar if is_quotient else scalar
    scaled = change.delta if change.delta is ZERO else change.delta * factor
    return _Change(_plus(p * less_one, scaled), change.is_whole and _differs_from_one(scalar))


def _of_sum(node: Expr, found: Mapping[Expr, _Change | None]) -> _Change | None:
    first, second = node.operands
    a, b = found[first], found[second]
    if node.operation == "add" and (a is None or (b is not None and b.is_whole)):
        first, second, a, b = second, first, b, a
    if a is None or (b is not None and (b.is_whole or not a.is_whole)):
        return None  # p is in neither or in both, so neither is the other's change
    if node.operation == "sub":
        return _Change(-second if a.delta is ZERO else a.delta - second, a.is_whole)
    return _Change(_plus(a.delta, second), a.is_whole)


def _plus(a: Expr, b: Expr) -> Expr:
    if a is ZERO or b is ZERO:
        return b if a is ZERO else a
    return a + b


def _is_one(node: Expr) -> bool:
    return node.operation == "constant" and node.value == 1


def _differs_from_one(scalar: Expr) -> bool:
    """Whether a scalar is written as 1 - s or 1 + s."""
    operands = scalar.operands
    return (scalar.operation == "sub" and _is_one(operands[0])) or (
        scalar.operation == "add" and any(map(_is_one, operands))
    )


def _less_one(scalar: Expr) -> Expr:
    """The scalar - 1, exact if it is written as 1 - s or 1 + s."""
    if not _differs_from_one(scalar):
        return scalar - 1
    a, b = scalar.operands
    if scalar.operation == "sub":
        return -b
    return b if _is_one(a) else a


def compensated(value: Expr, delta: Expr, lost: Expr, one: Expr) -> tuple[Expr, Expr]:
    """Return value + delta, rounded, and the rounding error, which is `lost` at the next step.

    Knuth's exact sum of two numbers (The Art of Computer Programming, volume 2, 4.2.2). one: a
    scalar that is 1. Compilers do not know that, so they cannot cancel the terms.
    """
    change = delta + lost
    total = (value + change) * one
    taken = (total - value) * one  # of the change, by the total
    kept = (total - taken) * one  # of the value, by the total
    return total, (value - kept) + (change - taken)
