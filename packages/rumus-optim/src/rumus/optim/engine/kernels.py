"""`Kernels`: what a rule and the stages become, in each segment by the arrays that it has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rumus.optim.engine.measuring import measure
from rumus.optim.engine.segments import Segment
from rumus.optim.engine.stage import Stage
from rumus.optim.engine.update_rule import UpdateRule, seen
from rumus.tensor import Expr, Kernel, float32


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

    def give(self, segments: Iterable[Segment]) -> None:
        """Give each segment its kernel, and what must be measured before it runs."""
        found = []
        for segment in segments:
            there = self._there(segment)
            rule = segment.rule or self.rule
            segment.kernel = self._of(rule, there)
            measured = rule.measured(self._stages, there)
            found += [(segment, measured)] if measured else []
        measure(self.rule.name, found)

    def seen(self, segment: Segment) -> tuple[Expr, Expr]:
        """Return the parameter and the gradient as the rule of a segment gets them."""
        return seen(self._stages, self._there(segment))

    def _there(self, segment: Segment) -> frozenset[str]:
        """The arrays of stages that a segment has."""
        arrays = {name for stage in self._stages for name in stage.arrays}
        return frozenset(arrays & {*segment.state, *segment.scratch})

    def _of(self, rule: UpdateRule, there: frozenset[str]) -> Kernel:
        found = self._made.get((rule, there))
        if found is None:
            found = self._made[rule, there] = rule.kernel(self._stages, there)
        return found
