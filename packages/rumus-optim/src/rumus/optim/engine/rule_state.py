"""`RuleState`: the parts of a rule's state, and how they are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from rumus.optim.engine.packed_state import Codes
from rumus.optim.engine.precision import computed_in
from rumus.optim.engine.segments import StateLayout
from rumus.optim.engine.stage import Stage
from rumus.optim.engine.update_rule import UpdateRule, copies, never_negative, squares
from rumus.tensor import DType


@dataclass(frozen=True, slots=True)
class RuleState:
    """The parts of a rule's state.

    names: the parts with one element per parameter element. squares: those of them computed from
    squares of gradients. copies: those that hold earlier values of the parameters. numbers: the
    parts that are one number for all parameters. never_negative: those of the squares that no step
    makes negative.
    """

    names: tuple[str, ...]
    squares: frozenset[str]
    copies: frozenset[str]
    numbers: tuple[str, ...] = ()
    never_negative: frozenset[str] = frozenset()

    @classmethod
    def of(cls, rule: UpdateRule) -> Self:
        """Return the parts of a rule's state."""
        kernel = rule.kernel()
        numbers = tuple(name for name in rule.state if name not in kernel.outputs)
        names = tuple(name for name in rule.state if name in kernel.outputs)
        return cls(names, squares(kernel), copies(kernel), numbers, never_negative(kernel))

    def layout(self, stages: Sequence[Stage]) -> StateLayout:
        """Return the dtypes in which stages store it, and those of the stages' own arrays."""

        def dtypes(dtype: DType) -> dict[str, DType]:
            found: Mapping[str, DType] = dict.fromkeys(self.names, computed_in(dtype))
            for stage in stages:
                found = stage.stored(found, self.squares | self.copies)
            return {**found, **{n: d for stage in stages for n, d in stage.state(dtype).items()}}

        return dtypes

    def codes(self, stages: Sequence[Stage]) -> Codes:
        """Return the codes of the parts that large parameters keep packed."""
        names = [name for name in self.names if name not in self.copies]
        found = [stage.codes(names, self.squares) for stage in stages]
        return {name: code for codes in found for name, code in codes.items()}
