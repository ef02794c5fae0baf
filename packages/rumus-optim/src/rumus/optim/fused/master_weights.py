"""`MasterWeights`: a float32 copy of float16 parameters, which is updated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from rumus.optim.engine.stage import Stage
from rumus.tensor import DType, Expr, Kernel, float16, float32, where

if TYPE_CHECKING:
    from rumus.optim.engine.segments import Segment

MASTER: Final = "master"


def _follow_kernel() -> Kernel:
    p, rounded, master = map(Expr.array, ("p", "rounded", MASTER))
    same = p._apply("eq", rounded, p)
    return Kernel("follow_master", {MASTER: where(same, master, p)})


_FOLLOW: Final = _follow_kernel()


class MasterWeights(Stage):
    """p is the rounded value of an extra float32 array."""

    arrays: ClassVar[Sequence[str]] = (MASTER,)
    holds: ClassVar[str | None] = MASTER
    follows: ClassVar[bool] = True

    def state(self, dtype: DType) -> Mapping[str, DType]:
        """Return the copy for float16 parameters; others need none."""
        return {MASTER: float32} if dtype == float16 else {}

    def start(self, segment: Segment) -> None:
        """Start from the parameters."""
        if MASTER in segment.state:
            segment.arena.backend.copy(segment.values, segment.state[MASTER])

    def follow(self, segment: Segment, assigned: Sequence[int]) -> None:
        """Follow outside changes of the parameters.

        An element of the copy that rounds to its parameter is kept, so it does not matter which of
        the two is loaded first.
        """
        if MASTER not in segment.state:
            return
        arena, master = segment.arena, segment.state[MASTER]
        rounded = arena.backend.allocate(master.shape, arena.dtype)
        arena.backend.copy(master, rounded)
        by_name = {"p": segment.values, "rounded": rounded, MASTER: master}
        inputs = [by_name[name] for name in _FOLLOW.arrays]
        arena.backend.elementwise(_FOLLOW, inputs, (), [master])

    def notes(self, layout: Mapping[str, DType]) -> Sequence[str]:
        """Note that there is a copy."""
        return ["float32 master weights for float16 parameters"] if MASTER in layout else ()
