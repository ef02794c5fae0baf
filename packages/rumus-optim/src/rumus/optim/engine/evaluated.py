"""`EvaluatedOptimizer`: an optimizer that knows a better point than the one it steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rumus.optim.engine.followed import FollowedOptimizer
from rumus.optim.engine.segments import Segment
from rumus.optim.options.group import M_co
from rumus.optim.options.hyperparameter import Hyper, at_step
from rumus.tensor import Kernel, OwnershipError
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.uninterrupted import Uninterrupted


class EvaluatedOptimizer(FollowedOptimizer[M_co]):
    """An optimizer that may have an average to evaluate at, which is not what it steps.

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
        """Have `eval_params` put `point` in the parameters' place.

        has_begun: whether there is one after so many steps. ValueError if there is another.
        """
        if self._point is not None:
            raise ValueError(f"{self} has an average of its own: leave `average` out")
        self._point, self._has_begun = point, has_begun

    @contextmanager
    def eval_params(self) -> Iterator[None]:
        """Put the average in the parameters' place; what was there is back, bit by bit, after.

        In the block nothing may be stepped, saved, loaded, moved or released: OwnershipError. What
        is assigned to a parameter there is gone after it. Before there is an average nothing
        changes. ValueError from an optimizer that keeps none.
        """
        if self._point is None:
            raise ValueError(f"{self} keeps no average: make it with average=EMA(...) or SWA(...)")
        self._check_training("eval_params() again")
        self._settle()
        kept = [(segment, self._copied(segment)) for segment in self.segments if self._has(segment)]
        try:
            self._evaluating = True  # in here, for a signal may come right behind it
            for segment, _ in kept:
                self._put(segment)
            yield
        finally:
            try:
                self._put_back(kept)
            except BaseException:
                self._put_back(kept)  # a signal may have come before it began
                raise

    def _put_back(self, kept: Sequence[tuple[Segment, Array]]) -> None:
        with Uninterrupted():
            for segment, values in kept:
                segment.arena.backend.copy(values, segment.arena.values)
                segment.arena.written()
            self._evaluating = False

    def _point_of(self, segment: Segment) -> Kernel | None:
        return self._point

    def _has(self, segment: Segment) -> bool:
        """Whether there is an average of a segment's parameters."""
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
                f"{self}: {what} inside of eval_params(): the parameters are the average there, "
                "not what is trained; leave the block first"
            )
