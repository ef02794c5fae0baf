"""Lookahead: slow weights that follow part of the way after every k fast steps."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from rumus.optim.engine.evaluated import EvaluatedOptimizer
from rumus.optim.engine.segments import Segment
from rumus.optim.engine.stage import Stage
from rumus.optim.fused.compensation import COMPENSATION
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.fused.kept_average import AVERAGE
from rumus.optim.fused.master_weights import MASTER
from rumus.optim.options.group import M_co
from rumus.optim.wrappers.wrapper import Wrapper
from rumus.tensor import DType, Expr, where
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.expression.whole_number import whole_number

_SLOW: Final = "slow"
_TOLD_AFTER: Final = 3  # steps in a row, if k is less


class Lookahead(Wrapper[M_co]):
    """k steps forward, one step back: every k steps of the base, parameters return partway.

    slow = slow + alpha (p - slow);  p = slow, after every k-th step that was applied

    base: any optimizer but the schedule-free ones and ASGD, not yet wrapped by a Lookahead; its
        averages continue unchanged. It still owns the parameters. The slow weights start as the
        current parameters; they are part of the base's state, saved by name and moved along, and
        its kernel updates them: a step is still one dispatch, reads nothing on a GPU, and takes 8
        more bytes per parameter. A skipped step leaves them unchanged. After every k-th step, p and
        slow are equal: evaluate then. Slow weights of a parameter that is assigned, as by loading
        weights, start again with its new value, except between loading a state and the next step:
        a state belongs to the weights loaded before or after it.
    k: 1 or more.
    alpha: in (0, 1].

    The defaults are the paper's. Raises ValueError for a value out of range, TypeError for another
    base. Zhang et al.: arXiv:1907.08610, algorithm 1.

    >>> from rumus.optim import SGD, Lookahead
    >>> from rumus.tensor import Parameter
    >>> w = Parameter([4.0], name="w")
    >>> optimizer = Lookahead(SGD([w], 0.25), k=2, alpha=0.5)
    >>> for _ in range(2):  # the fast weights would be 2, then 1; slow goes halfway from 4
    ...     optimizer.step((w * w).sum().backward())
    >>> w.tolist()
    [2.5]
    """

    def __init__(self, base: FusedOptimizer[M_co], k: int = 5, alpha: float = 0.5) -> None:
        k = whole_number("k", k)
        if k < 1:
            raise ValueError(f"k must be 1 or more, not {k}")
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha must be in (0, 1], not {alpha!r}")
        if isinstance(base, Wrapper):
            raise TypeError(
                f"Lookahead cannot wrap {base}: put it inside, as SAM(Lookahead(optimizer))"
            )
        super().__init__(base)
        self.k, self.alpha = k, float(alpha)
        self.fused.extend(_SlowWeights(k, self.alpha))

    def __str__(self) -> str:
        return f"Lookahead(k={self.k}, alpha={self.alpha:g}) of {self.base}"


class _SlowWeights(Stage):
    arrays: ClassVar[Sequence[str]] = (_SLOW,)
    follows: ClassVar[bool] = True
    wraps: ClassVar[str] = "Lookahead"

    def __init__(self, k: int, alpha: float) -> None:
        self.k, self.alpha = k, alpha
        self._optimizer: weakref.ref[EvaluatedOptimizer[Any]] | None = None
        self._assigned_at, self._in_a_row = -1, 0

    def attach(self, optimizer: EvaluatedOptimizer[Any]) -> None:
        """Note whose steps are counted."""
        self._optimizer = weakref.ref(optimizer)

    def state(self, dtype: DType) -> Mapping[str, DType]:
        return {_SLOW: dtype}

    def start(self, segment: Segment) -> None:
        """Start with the parameters' values."""
        segment.arena.backend.copy(segment.arena.values, segment.state[_SLOW])

    def follow(self, segment: Segment, assigned: Sequence[int]) -> None:
        """Start again with the values that parameters were assigned."""
        arena, slow, part = segment.arena, segment.state[_SLOW], segment.part
        first, end = (0, arena.size) if part is None else (part.start, part.stop)
        for number in assigned:
            slot = arena.slots[number]
            start, stop = max(first, slot.start), min(end, slot.start + slot.size)
            if start < stop:
                arena.backend.copy(arena.values[start:stop], slow[start - first : stop - first])
        if assigned:
            self._note_assignment()

    def _note_assignment(self) -> None:
        """Warn once of assignments after every step, as of clipped weights: they undo its work."""
        optimizer = None if self._optimizer is None else self._optimizer()
        if optimizer is None or (now := optimizer.steps_so_far) == self._assigned_at:
            return
        self._in_a_row = self._in_a_row + 1 if now == self._assigned_at + 1 else 1
        self._assigned_at = now
        if self._in_a_row == max(self.k, _TOLD_AFTER):
            warn_user(
                f"Lookahead(k={self.k}): parameters were assigned after each of the last "
                f"{self._in_a_row} steps, so that their slow weights started again each time, and "
                "Lookahead did nothing for them: assign after every k-th step, or leave it out",
            )

    def result(self, p: Expr, g: Expr, new: Mapping[str, Expr], rule: str) -> Mapping[str, Expr]:
        beside = sorted({MASTER, COMPENSATION, AVERAGE} & {p.name, *new})
        if beside:
            raise TypeError(
                f"Lookahead cannot wrap {rule}: it keeps {beside} in addition to p; use it without "
                "master weights, compensation and average"
            )
        is_due, slow, fast = Expr.scalar("lookahead_due") > 0.5, Expr.array(_SLOW), new["p"]
        moved = slow + Expr.scalar("lookahead_alpha") * (fast - slow)
        return {**new, "p": where(is_due, moved, fast), _SLOW: where(is_due, moved, slow)}

    def scalars(self, number: int, t: int) -> Mapping[str, float]:
        return {"lookahead_due": float(t % self.k == 0), "lookahead_alpha": self.alpha}
