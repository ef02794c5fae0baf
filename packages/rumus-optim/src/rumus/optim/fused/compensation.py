"""`Compensation`: keeps the rounding error of an update and adds it to the next one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from rumus.optim.engine.precision import computed_in
from rumus.optim.engine.stage import Stage
from rumus.optim.fused.increment import compensated, known_increment
from rumus.optim.fused.master_weights import MASTER
from rumus.tensor import DType, Expr, Kernel, where

if TYPE_CHECKING:
    from rumus.optim.engine.segments import Segment

COMPENSATION: Final = "compensation"
ONE: Final = "exactly_one"  # a scalar that compilers cannot see through: see `compensated`


def _follow_kernel() -> Kernel:
    value, lost = Expr.array("value"), Expr.array(COMPENSATION)
    kept = (value + lost) * Expr.scalar(ONE)
    same = value._apply("eq", kept, value)
    return Kernel("follow_compensation", {COMPENSATION: where(same, lost, 0.0)})


_FOLLOW: Final = _follow_kernel()


class Compensation(Stage):
    """An extra array: p with more digits, minus p."""

    arrays: ClassVar[Sequence[str]] = (COMPENSATION,)
    follows: ClassVar[bool] = True

    def state(self, dtype: DType) -> Mapping[str, DType]:
        """Return the rounding error, in the dtype of the arithmetic."""
        return {COMPENSATION: computed_in(dtype)}

    def follow(self, segment: Segment, assigned: Sequence[int]) -> None:
        """Reset the error where it is too large to belong to the current value."""
        arena, lost = segment.arena, segment.state[COMPENSATION]
        by_name = {"value": segment.state.get(MASTER, segment.values), COMPENSATION: lost}
        inputs = [by_name[name] for name in _FOLLOW.arrays]
        arena.backend.elementwise(_FOLLOW, inputs, _FOLLOW.bind({ONE: 1.0}), [lost])

    def result(self, p: Expr, g: Expr, new: Mapping[str, Expr], rule: str) -> Mapping[str, Expr]:
        """Return the step with the earlier error added. TypeError if there is no increment."""
        delta = known_increment("compensated", rule, new["p"], p)
        total, lost = compensated(p, delta, Expr.array(COMPENSATION), Expr.scalar(ONE))
        return {**new, "p": total, COMPENSATION: lost}

    def scalars(self, number: int, t: int) -> Mapping[str, float]:
        """Return the 1 that is not a constant."""
        return {ONE: 1.0}

    def notes(self, layout: Mapping[str, DType]) -> Sequence[str]:
        """Say that updates are compensated."""
        return ["compensated updates"]
