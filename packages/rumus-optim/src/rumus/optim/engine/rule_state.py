"""`RuleState`: the state that a rule keeps, and how it is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from rumus.optim.engine.packed_state import Codes
from rumus.optim.engine.precision import computed_in
from rumus.optim.engine.segments import StateLayout
from rumus.optim.engine.stage import Stage
from rumus.optim.engine.update_rule import UpdateRule, squares
from rumus.tensor import DType


@dataclass(frozen=True, slots=True)
class RuleState:
    """The parts of a rule's state. squares: those that are made of squares of gradients."""

    names: tuple[str, ...]
    squares: frozenset[str]

    @classmethod
    def of(cls, rule: UpdateRule) -> Self:
        """Return that of a rule."""
        return cls(rule.state, squares(rule.kernel()))

    def layout(self, stages: Sequence[Stage]) -> StateLayout:
        """Return the dtypes in which stages have it stored, with what they keep themselves."""

        def dtypes(dtype: DType) -> dict[str, DType]:
            found: Mapping[str, DType] = dict.fromkeys(self.names, computed_in(dtype))
            for stage in stages:
                found = stage.stored(found, self.squares)
            return {**found, **{n: d for stage in stages for n, d in stage.state(dtype).items()}}

        return dtypes

    def codes(self, stages: Sequence[Stage]) -> Codes:
        """Return the codes of what large parameters have packed."""
        found = [stage.codes(self.names, self.squares) for stage in stages]
        return {name: code for codes in found for name, code in codes.items()}
