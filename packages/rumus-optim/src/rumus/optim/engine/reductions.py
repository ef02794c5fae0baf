"""Reductions in a rule: numbers for a whole tensor, or for all of them, measured before the step.

Each is measured as a sum, by the segmented reduction that clipping uses, for all tensors of an
arena at once. The sum of x * x is measured as a sum of squares of x, so x need not be written first
if it is an array already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from rumus.tensor import Expr, sqrt
from rumus.tensor.expression.expr import REDUCTION, postorder
from rumus.tensor.memory.section import Sum

SIZE: Final = "tensor_size"  # the number of elements of the tensor that a row belongs to


@dataclass(slots=True)
class Reductions:
    """A rule's results with its reductions replaced, and the sums to measure for them.

    new: the results, reading sums where the rule had reductions. numbers: the new values of state
    parts that are one number for all parameters, because they depend only on scalars and global
    sums; they are not in `new`. measured: the expressions to write to arrays and then add up, by
    array name. of_tensors, of_all: the sums for each tensor and for all of them, by the name of the
    array that holds the sum.
    """

    new: dict[str, Expr]
    numbers: dict[str, Expr] = field(default_factory=dict)
    measured: dict[str, Expr] = field(default_factory=dict)
    of_tensors: dict[str, Sum] = field(default_factory=dict)
    of_all: dict[str, Sum] = field(default_factory=dict)
    has_sizes: bool = False

    @classmethod
    def of(cls, new: Mapping[str, Expr], rule: str) -> Reductions:
        """Replace a rule's reductions. TypeError for one of another reduction, or of scalars."""
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
        found._set_numbers_apart()
        return found

    @property
    def arrays(self) -> tuple[str, ...]:
        """The arrays that the update also reads: one value for each tensor, or for all."""
        return (*self.of_tensors, *((SIZE,) if self.has_sizes else ()), *self.of_all)

    def _reduced(self, kind: str, what: Expr, rule: str) -> Expr:
        leaves = [node for node in postorder([what]) if node.operation == "array"]
        if any(leaf.name in self.arrays for leaf in leaves):
            raise TypeError(
                f"the rule {rule}: the argument of {kind}() depends on another reduction, but "
                "one pass measures all of them"
            )
        if not leaves:
            raise TypeError(f"the rule {rule}: {kind}() needs an array, not only scalars")
        is_square = what.operation == "mul" and what.operands[0] is what.operands[1]
        if kind == "global_sum":
            return self._sum(what.operands[0] if is_square else what, is_square, self.of_all)
        if kind == "tensor_norm":
            return sqrt(self._sum(what, True, self.of_tensors))
        total = self._sum(what.operands[0] if is_square else what, is_square, self.of_tensors)
        if kind == "tensor_sum":
            return total
        self.has_sizes = True
        return total / Expr.array(SIZE)

    def _sum(self, what: Expr, squared: bool, sums: dict[str, Sum]) -> Expr:
        known = [name for name, expression in self.measured.items() if expression is what]
        name = known[0] if known else f"measured{len(self.measured)}"
        self.measured[name] = what
        scope = "global_" if sums is self.of_all else ""
        total = f"{scope}{name}_{'squares' if squared else 'sum'}"
        sums[total] = Sum(name, squared)
        return Expr.array(total)

    def _set_numbers_apart(self) -> None:
        """Move the largest set of parts that depend only on scalars, global sums and each other."""
        if not self.of_all:
            return
        parts = {name for name in self.new if name != "p"}
        while True:
            known = {*self.of_all, *parts}
            some = {name for name in parts if known.issuperset(arrays_of(self.new[name]))}
            if some == parts:
                break
            parts = some
        self.numbers = {name: self.new[name] for name in self.new if name in parts}
        self.new = {name: value for name, value in self.new.items() if name not in parts}


def arrays_of(*expressions: Expr) -> tuple[str, ...]:
    """Return the names of the arrays in expressions, each once."""
    leaves = postorder(expressions)
    return tuple(dict.fromkeys(node.name for node in leaves if node.operation == "array"))
