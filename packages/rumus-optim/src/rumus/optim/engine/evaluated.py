"""`EvaluatedOptimizer`: an optimizer that may be evaluated at a point other than its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rumus.optim.engine.followed import FollowedOptimizer
from rumus.optim.engine.optimizer import names_of
from rumus.optim.engine.reductions import arrays_of
from rumus.optim.engine.segments import Segment
from rumus.optim.options.group import M_co
from rumus.optim.options.hyperparameter import Hyper, at_step
from rumus.tensor import Kernel, OwnershipError
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.uninterrupted import Uninterrupted


class EvaluatedOptimizer(FollowedOptimizer[M_co]):
    """An optimizer that may have an average to evaluate at, apart from its parameters.

    A subclass sets `_point`, a kernel that computes `p` from p and the state; or a stage calls
    `evaluate_at`.
    """

    hyper: dict[str, Hyper]
    _point: Kernel | None = None
    _has_begun: Callable[[int], bool] | None = None
    _evaluating = False

    @property
    def has_average(self) -> bool:
        """Whether it keeps an average of its parameters."""
        return self._point is not None

    def evaluate_at(self, point: Kernel, has_begun: Callable[[int], bool]) -> None:
        """Make `eval_params` swap in `point`.

        has_begun: whether the average exists after this many steps. ValueError if there is already
            another average.
        """
        if self._point is not None:
            raise ValueError(f"{self} has an average of its own: leave `average` out")
        self._point, self._has_begun = point, has_begun

    @contextmanager
    def eval_params(self) -> Iterator[None]:
        """Swap the average in for the parameters, which are restored afterwards, bit for bit.

        Weights that are loaded or assigned enter an average (but a schedule-free one) only with the
        steps after: until the next one, a UserWarning says so. Inside the block, stepping, saving,
        loading, moving or releasing raises OwnershipError, and assignments to parameters are lost.
        Parameters without an average do not change: before the average has begun, or in a part of a
        `MultiOptimizer` that keeps none. ValueError if no average is kept at all.
        """
        if not self.has_average:
            raise ValueError(f"{self} keeps no average: make it with average=EMA(...) or SWA(...)")
        self._check_training("eval_params() again")
        self._settle()
        averaging = self._averaging
        for each in averaging:
            each._warn_of_assigned()
        kept = [(s, each._copied(s)) for each in averaging for s in each.segments if each._has(s)]
        try:
            try:
                for each in averaging:
                    each._evaluating = True  # inside the try: a signal may arrive right after it
                for each in averaging:
                    for segment in filter(each._has, each.segments):
                        each._put(segment)
                yield
            finally:
                _put_back(kept, averaging)
        except BaseException:
            _put_back(kept, averaging)  # a signal may have arrived before the `finally` ran
            raise

    @property
    def _ignores_parameters(self) -> bool:
        """Whether it keeps an average that only steps change."""
        return self._point is not None and "p" not in arrays_of(*self._point.outputs.values())

    def _warn_of_assigned(self) -> None:
        """Warn if parameters were assigned since the last step, as by loading weights."""
        if not self._ignores_parameters:
            return
        assigned = [p for s in self.segments if s.seen and self._has(s) for p in s.assigned()]
        if assigned:
            warn_user(
                f"{type(self).__name__}: {names_of(assigned, self)[0]!r} was assigned after the "
                "last step, and what is evaluated is the average of the steps before: to evaluate "
                "the weights that were assigned, release() the optimizer and make another",
            )

    @property
    def _averaging(self) -> Sequence[EvaluatedOptimizer[M_co]]:
        """The optimizers that keep the averages."""
        return (self,)

    def _point_of(self, segment: Segment) -> Kernel | None:
        return self._point

    def _has(self, segment: Segment) -> bool:
        """Whether a segment's parameters have an average."""
        return segment.steps > 0 if self._has_begun is None else self._has_begun(segment.steps)

    def _copied(self, segment: Segment) -> Array:
        arena = segment.arena
        copy = arena.backend.allocate(arena.values.shape, arena.dtype)
        arena.backend.copy(arena.values, copy)
        return copy

    def _put(self, segment: Segment) -> None:
        point, arena = self._point_of(segment), segment.arena
        assert point is not None
        hyper: Mapping[str, Hyper] = segment.group.over(self.hyper)
        values = {n: at_step(n, hyper[n], segment.steps) for n in point.scalars}
        state = {name: segment.whole(name) for name in segment.state if name in point.arrays}
        by_name = {"p": arena.values, **state}
        arrays = [by_name[name] for name in point.arrays]
        arena.backend.elementwise(point, arrays, point.bind(values), [arena.values])
        arena.written()

    def _check_training(self, what: str) -> None:
        if self._evaluating:
            raise OwnershipError(
                f"{self}: {what} inside eval_params(), where the parameters hold the average "
                "instead of the trained values; leave the block first"
            )


def _put_back(
    kept: Sequence[tuple[Segment, Array]], averaging: Sequence[EvaluatedOptimizer[Any]]
) -> None:
    with Uninterrupted():
        for segment, values in kept:
            segment.arena.backend.copy(values, segment.arena.values)
            segment.arena.written()
        for each in averaging:
            each._evaluating = False
