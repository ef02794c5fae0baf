"""`Kernels`: what a rule and the stages become, in each segment by the arrays that it has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rumus.optim.engine.measuring import measure
from rumus.optim.engine.segments import Segment
from rumus.optim.engine.stage import Stage
from rumus.optim.engine.update_rule import UpdateRule
from rumus.tensor import Kernel, float32


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

    def check_packs(self, kind: str) -> None:
        """Refuse packed state of a rule that measures before it is unpacked. TypeError."""
        if self.rule.measurement(self._stages, ()) is not None:
            raise TypeError(
                f"{kind}: its rule has reductions, which are measured before the step, where "
                'state in 8 bits is not unpacked yet: leave state_dtype="8bit" out'
            )

    def give(self, segments: Iterable[Segment]) -> None:
        """Give each segment its kernel, and what must be measured before it runs."""
        arrays = {name for stage in self._stages for name in stage.arrays}
        for segment in segments:
            there = frozenset(arrays & {*segment.state, *segment.scratch})
            rule = segment.rule or self.rule
            segment.kernel = self._of(rule, there)
            measurement = rule.measurement(self._stages, there)
            if measurement is not None:
                measure(segment, measurement)

    def _of(self, rule: UpdateRule, there: frozenset[str]) -> Kernel:
        found = self._made.get((rule, there))
        if found is None:
            found = self._made[rule, there] = rule.kernel(self._stages, there)
        return found
