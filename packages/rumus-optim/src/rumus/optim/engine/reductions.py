"""Reductions in a rule: numbers of a whole tensor, measured for all tensors before the step.

What is measured is sums of squares, by the segmented reduction that clipping uses: all tensors of
an arena at once. A sum is the sum of its positive terms less that of its negative ones, and either
is the sum of the squares of their roots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from rumus.tensor import Expr, sqrt
from rumus.tensor.expression.expr import REDUCTION, postorder

SIZE: Final = "tensor_size"  # of the elements of the tensor that a row belongs to


@dataclass(slots=True)
class Reductions:
    """What a rule returns without its reductions, and what is to be measured for it.

    new: with sums of squares in their place, one value for each tensor. measured: by the name of an
    array what is written there, so that its squares can be summed up.
    """

    new: dict[str, Expr]
    measured: dict[str, Expr] = field(default_factory=dict)

    @classmethod
    def of(cls, new: Mapping[str, Expr], rule: str) -> Reductions:
        """Take the reductions out of a rule. TypeError for one of a reduction, or of scalars."""
        found = cls({})
        nodes: dict[Expr, Expr] = {}
        for node in postorder(new.values()):
            operands = tuple(nodes[operand] for operand in node.operands)
            if node.operation == REDUCTION:
                nodes[node] = found._reduced(node.name, operands[0], rule)
            elif operands == node.operands:
                nodes[node] = node
            else:
                nodes[node] = Expr(
                    node.operation, operands, node.name, node.value, node.uniform, node.height
                )
        found.new = {name: nodes[value] for name, value in new.items()}
        return found

    @property
    def arrays(self) -> tuple[str, ...]:
        """What the update reads besides, one value for each tensor."""
        return (*map(squares_of, self.measured), SIZE) if self.measured else ()

    def _reduced(self, kind: str, what: Expr, rule: str) -> Expr:
        leaves = [node for node in postorder([what]) if node.operation == "array"]
        if any(leaf.name in self.arrays for leaf in leaves):
            raise TypeError(
                f"the rule {rule}: {kind}() of what depends on another reduction; one pass "
                "measures all of them"
            )
        if not leaves:
            raise TypeError(f"the rule {rule}: {kind}() of scalars alone, which have no tensor")
        if kind == "tensor_norm":
            return sqrt(self._sum_of_squares(what))
        total = self._sum(what)
        return total / Expr.array(SIZE) if kind == "tensor_mean" else total

    def _sum(self, what: Expr) -> Expr:
        if what.operation == "mul" and what.operands[0] is what.operands[1]:
            return self._sum_of_squares(what.operands[0])
        positive, negative = (sqrt(part.maximum(0.0)) for part in (what, -what))
        return self._sum_of_squares(positive) - self._sum_of_squares(negative)

    def _sum_of_squares(self, what: Expr) -> Expr:
        known = [name for name, expression in self.measured.items() if expression is what]
        name = known[0] if known else f"measured{len(self.measured)}"
        self.measured[name] = what
        return Expr.array(squares_of(name))


def arrays_of(*expressions: Expr) -> tuple[str, ...]:
    """Return the names of the arrays in expressions, each once."""
    leaves = postorder(expressions)
    return tuple(dict.fromkeys(node.name for node in leaves if node.operation == "array"))


def squares_of(name: str) -> str:
    """Return the name of the sums of squares of what an array holds."""
    return f"{name}_squares"
