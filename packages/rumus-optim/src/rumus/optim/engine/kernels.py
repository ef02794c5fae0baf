"""`Kernels`: the kernels of a rule with its stages, for the arrays of each segment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from rumus.optim.engine.measuring import measure
from rumus.optim.engine.segments import Segment
from rumus.optim.engine.stage import Stage
from rumus.optim.engine.update_rule import UpdateRule, seen, squares
from rumus.tensor import DType, Expr, Kernel, float32, float64

# The square of twice as much is finite; float16 numbers always have a finite square in float32.
TOO_LARGE: Final[Mapping[DType, float]] = {float32: 2.0**62, float64: 2.0**510}


class Kernels:
    """The kernels of an optimizer, each made once.

    A stage's input is an array in some segments and a scalar in others, so there is one kernel per
    set of arrays. rule: for segments without their own. usual: the kernel with only the arrays that
    every segment has. common: the scalars from which shared numbers are computed.
    """

    def __init__(self, rule: UpdateRule, stages: Sequence[Stage]) -> None:
        self.rule = rule
        self._stages = stages
        self._made: dict[tuple[UpdateRule, frozenset[str]], Kernel] = {}
        everywhere = frozenset(name for stage in stages for name in stage.state(float32))
        self.usual = self._of(rule, everywhere)
        reductions = rule.reduced(stages, everywhere)
        self.is_joint = bool(reductions.of_all)  # whether sums over all parameters are measured
        numbers = rule.numbers(reductions)
        self.common = numbers.kernel.scalars - {"t"} if numbers is not None else frozenset[str]()

    def give(self, segments: Sequence[Segment]) -> None:
        """Give each segment its kernel, and the measurements it needs."""
        found = []
        for segment in segments:
            there = self._there(segment)
            rule = segment.rule or self.rule
            segment.kernel = self._of(rule, there)
            reductions = rule.reduced(self._stages, there)
            segment.numbers = rule.numbers(reductions)
            found += [(segment, reductions)] if reductions.measured else []
        measure(self.rule.name, found)
        elements = [sum(p.size for p in segment.arena.parameters) for segment in segments]
        for segment, own in zip(segments, elements, strict=True):
            segment.too_large = self._too_large(segment, sum(elements) if self.is_joint else own)

    def seen(self, segment: Segment) -> tuple[Expr, Expr]:
        """Return the parameter and the gradient that a segment's rule gets."""
        return seen(self._stages, self._there(segment))

    def _there(self, segment: Segment) -> frozenset[str]:
        """The stage arrays that a segment has."""
        arrays = {name for stage in self._stages for name in stage.arrays}
        return frozenset(arrays & {*segment.state, *segment.scratch})

    def _too_large(self, segment: Segment, elements: int) -> float:
        """The magnitude from which a gradient's square, or a sum of them, may be infinite."""
        kernel, arena = segment.kernel, segment.arena
        assert kernel is not None
        measures = segment.preparation is not None or bool((segment.rule or self.rule).given)
        if not measures and not squares(kernel):
            return math.inf
        terms = elements if measures else 1
        limit = TOO_LARGE.get(arena.dtype, math.inf) / math.sqrt(max(1, terms))
        bound = min([stage.bounds() for stage in self._stages], default=math.inf)
        return math.inf if bound < limit else limit

    def _of(self, rule: UpdateRule, there: frozenset[str]) -> Kernel:
        found = self._made.get((rule, there))
        if found is None:
            found = self._made[rule, there] = rule.kernel(self._stages, there)
        return found
