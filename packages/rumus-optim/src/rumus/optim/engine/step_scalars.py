"""`StepScalars`: the scalars of the kernels at each step, computed in float64."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rumus.optim.engine.segments import Segment
from rumus.optim.engine.stage import Stage
from rumus.optim.options.hyperparameter import Hyper, Ranges, at_step
from rumus.optim.options.running import Running

_KEPT: Final = 64  # steps whose scalars are kept, of each segment


@dataclass(slots=True, eq=False)
class StepScalars:
    """What the kernels of segments take as scalars, by the number of the segment and the step.

    kind: what errors call the optimizer. hyper: its hyper-parameters, where a group has none of its
    own; they may be replaced at any time. ranges: within which schedules must stay. own: scalars
    of each segment that are no hyper-parameters and the same at every step.
    """

    kind: str
    segments: Sequence[Segment]
    stages: Sequence[Stage]
    hyper: Mapping[str, Hyper]
    ranges: Ranges
    running: Running
    own: Sequence[Mapping[str, float]]
    _bound: dict[tuple[int, int], tuple[dict[str, float], tuple[float, ...]]] = field(
        default_factory=dict, init=False
    )

    def at(self, number: int, steps: Iterable[int]) -> Iterator[tuple[float, ...]]:
        """Yield the scalars of a segment at these steps.

        Most of what they are computed from is the same at every step, and asked for once.
        """
        own = self.segments[number].group.over(self.hyper)
        hyper: dict[str, Any] = {"weight_decay": 0.0, **own}
        schedules = [name for name, value in hyper.items() if callable(value)]
        for t in steps:
            given = hyper | {name: at_step(name, hyper[name], t, self.ranges) for name in schedules}
            given |= self.running.at(number, t, hyper)
            for stage in self.stages:
                given |= stage.scalars(number, t)
            kept = self._bound.get((number, t))  # a device is given those of many steps in advance
            if kept is None or kept[0] != given:
                kept = given, self._bind(number, t, given)
                self._bound[number, t] = kept
                self._bound.pop((number, t - _KEPT), None)
            yield kept[1]

    def _bind(self, number: int, t: int, given: Mapping[str, float]) -> tuple[float, ...]:
        """The kernel's scalars at step `t`, from all that they depend on besides."""
        segment = self.segments[number]
        assert segment.kernel is not None
        bound = segment.bind(segment.kernel, {**given, "t": t, **self.own[number]})
        if not all(map(math.isfinite, bound)):
            values = {name: given[name] for name in segment.group.over(self.hyper)}
            raise ValueError(f"{self.kind}: the scalars of step {t} are not finite: {values}")
        return bound
