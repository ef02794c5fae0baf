"""`Compensation`: what rounding takes from an update is kept, and added to the next one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from rumus.optim.engine.increment import compensated, known_increment
from rumus.optim.engine.master_weights import MASTER
from rumus.optim.engine.precision import computed_in
from rumus.optim.engine.stage import Stage
from rumus.tensor import DType, Expr, Kernel, where

if TYPE_CHECKING:
    from rumus.optim.engine.segments import Segment

COMPENSATION: Final = "compensation"
ONE: Final = "exactly_one"  # a scalar that no compiler knows: see `compensated`


def _follow_kernel() -> Kernel:
    value, lost = Expr.array("value"), Expr.array(COMPENSATION)
    kept = (value + lost) * Expr.scalar(ONE)
    same = value._apply("eq", kept, value)
    return Kernel("follow_compensation", {COMPENSATION: where(same, lost, 0.0)})


_FOLLOW: Final = _follow_kernel()


class Compensation(Stage):
    """An array more, of what p would be if it had more digits, less p."""

    arrays: ClassVar[Sequence[str]] = (COMPENSATION,)
    follows: ClassVar[bool] = True

    def state(self, dtype: DType) -> Mapping[str, DType]:
        """Return what is lost, in the dtype of the arithmetic."""
        return {COMPENSATION: computed_in(dtype)}

    def follow(self, segment: Segment) -> None:
        """Forget what was lost where it is too much to belong to the value there is now."""
        arena, lost = segment.arena, segment.state[COMPENSATION]
        by_name = {"value": segment.state.get(MASTER, segment.values), COMPENSATION: lost}
        inputs = [by_name[name] for name in _FOLLOW.arrays]
        arena.backend.elementwise(_FOLLOW, inputs, _FOLLOW.bind({ONE: 1.0}), [lost])

    def result(self, p: Expr, g: Expr, new: Mapping[str, Expr], rule: str) -> Mapping[str, Expr]:
        """Return the step with what was lost before. TypeError if the update cannot be told."""
        delta = known_increment("compensated", rule, new["p"], p)
        total, lost = compensated(p, delta, Expr.array(COMPENSATION), Expr.scalar(ONE))
        return {**new, "p": total, COMPENSATION: lost}

    def scalars(self, number: int, t: int) -> Mapping[str, float]:
        """Return the 1 that is no constant."""
        return {ONE: 1.0}

    def notes(self, layout: Mapping[str, DType]) -> Sequence[str]:
        """Say that updates are compensated."""
        return ["compensated updates"]
