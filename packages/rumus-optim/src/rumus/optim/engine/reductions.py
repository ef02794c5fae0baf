"""Reductions in a rule: numbers of a whole tensor, or of all, measured before the step.

What is measured is sums, by the segmented reduction that clipping uses: all tensors of an arena at
once. A sum of a product of something with itself is measured as a sum of squares, of what may lie
in an array already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from rumus.tensor import Expr, sqrt
from rumus.tensor.expression.expr import REDUCTION, postorder
from rumus.tensor.memory.updater import Sum

SIZE: Final = "tensor_size"  # of the elements of the tensor that a row belongs to


@dataclass(slots=True)
class Reductions:
    """What a rule returns without its reductions, and what is to be measured for it.

    new: with sums in their place. numbers: the new values of parts of the state that are one number
    for all parameters, as they are made of scalars and global sums alone; they are not in `new`.
    measured: by the name of an array what is written there, to be added up. of_tensors, of_all: by
    the name of an array what is added up in it, for each tensor or for all of them.
    """

    new: dict[str, Expr]
    numbers: dict[str, Expr] = field(default_factory=dict)
    measured: dict[str, Expr] = field(default_factory=dict)
    of_tensors: dict[str, Sum] = field(default_factory=dict)
    of_all: dict[str, Sum] = field(default_factory=dict)
    has_sizes: bool = False

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
        found._set_numbers_apart()
        return found

    @property
    def arrays(self) -> tuple[str, ...]:
        """What the update reads besides: one value for each tensor, or for all."""
        return (*self.of_tensors, *((SIZE,) if self.has_sizes else ()), *self.of_all)

    def _reduced(self, kind: str, what: Expr, rule: str) -> Expr:
        leaves = [node for node in postorder([what]) if node.operation == "array"]
        if any(leaf.name in self.arrays for leaf in leaves):
            raise TypeError(
                f"the rule {rule}: {kind}() of what depends on another reduction; one pass "
                "measures all of them"
            )
        if not leaves:
            raise TypeError(f"the rule {rule}: {kind}() of scalars alone, which have no tensor")
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
        """Find the largest set of parts that are made of scalars, global sums and one another."""
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
