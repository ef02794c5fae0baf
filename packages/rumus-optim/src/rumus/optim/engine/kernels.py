"""`Kernels`: what a rule and the stages become, in each segment by the arrays that it has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from rumus.optim.engine.measuring import measure
from rumus.optim.engine.segments import Segment
from rumus.optim.engine.stage import Stage
from rumus.optim.engine.update_rule import UpdateRule, seen, squares
from rumus.tensor import DType, Expr, Kernel, float32, float64

# The square of twice as much is a number; float16 holds nothing whose square is none in float32.
TOO_LARGE: Final[Mapping[DType, float]] = {float32: 2.0**62, float64: 2.0**510}


class Kernels:
    """The kernels of an optimizer, each made once.

    What a stage reads lies in an array in some segments and is a scalar in others, so there is one
    for each set of arrays. rule: that of segments that have none of their own. usual: the kernel
    where only what every segment has is an array.
    """

    def __init__(self, rule: UpdateRule, stages: Sequence[Stage]) -> None:
        self.rule = rule
        self._stages = stages
        self._made: dict[tuple[UpdateRule, frozenset[str]], Kernel] = {}
        everywhere = frozenset(name for stage in stages for name in stage.state(float32))
        self.usual = self._of(rule, everywhere)

    def give(self, segments: Sequence[Segment]) -> None:
        """Give each segment its kernel, and what must be measured before it runs."""
        found = []
        for segment in segments:
            there = self._there(segment)
            rule = segment.rule or self.rule
            segment.kernel = self._of(rule, there)
            measured = rule.measured(self._stages, there)
            found += [(segment, measured)] if measured else []
        measure(self.rule.name, found)
        for segment in segments:
            segment.too_large = self._too_large(segment)

    def seen(self, segment: Segment) -> tuple[Expr, Expr]:
        """Return the parameter and the gradient as the rule of a segment gets them."""
        return seen(self._stages, self._there(segment))

    def _there(self, segment: Segment) -> frozenset[str]:
        """The arrays of stages that a segment has."""
        arrays = {name for stage in self._stages for name in stage.arrays}
        return frozenset(arrays & {*segment.state, *segment.scratch})

    def _too_large(self, segment: Segment) -> float:
        """The magnitude from which a gradient's square, or a sum of them, may be infinite."""
        kernel, arena = segment.kernel, segment.arena
        assert kernel is not None
        measures = segment.preparation is not None or bool((segment.rule or self.rule).given)
        if not measures and not squares(kernel):
            return math.inf
        terms = sum(p.size for p in arena.parameters) if measures else 1
        limit = TOO_LARGE.get(arena.dtype, math.inf) / math.sqrt(max(1, terms))
        bound = min([stage.bounds() for stage in self._stages], default=math.inf)
        return math.inf if bound < limit else limit

    def _of(self, rule: UpdateRule, there: frozenset[str]) -> Kernel:
        found = self._made.get((rule, there))
        if found is None:
            found = self._made[rule, there] = rule.kernel(self._stages, there)
        return found
