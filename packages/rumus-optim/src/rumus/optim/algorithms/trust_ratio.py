"""`TrustRatioOptimizer`: each tensor's step as large as its norm says, without a kernel for each.

What is measured of a tensor (a parameter, its gradient, the direction of its step) is its sum of
squares. All tensors of an arena are measured at once, and the update reads the sums as one value
for each tensor; see `Backend.slot_squares` and `rumus.tensor.memory.updater.Preparation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from rumus.optim.engine.fused import FusedOptimizer
from rumus.optim.engine.segments import Segment
from rumus.optim.options.group import M_co
from rumus.tensor import Backend, Kernel, ParamId
from rumus.tensor.memory.updater import Preparation


class TrustRatioOptimizer(FusedOptimizer[M_co]):
    """A rule that takes, after its state, sums of squares of each tensor.

    measured: from the name of such an array in the rule to the name of what is measured: `p`, `g`,
    a part of the state, or an output of `_direction`.
    """

    float16_remedy = ""  # it takes no master_weights
    measured: ClassVar[Mapping[str, str]] = {}

    def _direction(self) -> Kernel | None:
        """What writes something else to be measured before: its outputs are among its arrays."""
        return None

    def _layout(self, places: Mapping[ParamId, Backend]) -> list[Segment]:
        segments = super()._layout(places)
        kernel = self._direction()
        for segment in segments:
            arena = segment.arena
            for name in kernel.outputs if kernel is not None else ():
                segment.scratch[name] = arena.zeros()
            for name in self.measured:
                segment.scratch[name] = arena.backend.allocate((arena.table.rows, 1), arena.dtype)
            segment.preparation = Preparation(arena.table, self.measured, kernel)
        return segments
