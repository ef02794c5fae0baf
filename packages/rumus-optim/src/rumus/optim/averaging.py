"""`AveragingOptimizer`: an optimizer whose result is not the point that it steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rumus.optim.fused import FusedOptimizer
from rumus.optim.group import Claimable, M_co
from rumus.optim.hyperparameter import Hyper, at_step
from rumus.optim.rules import Rule
from rumus.optim.running import Running
from rumus.optim.segments import Segment
from rumus.optim.uninterrupted import Uninterrupted
from rumus.tensor import Backend, Expr, GradientStore, Kernel, OwnershipError, Parameter
from rumus.tensor.backend import Array
from rumus.tensor.updater import NonFinite

Point = Callable[..., Expr]


class AveragingOptimizer(FusedOptimizer[M_co]):
    """A `FusedOptimizer` that also knows a better point than its parameters: an average.

    point: a function of `p`, parts of the state by their names, and scalars keyword-only, that
    returns the average. The rest is as in `FusedOptimizer`.
    """

    def __init__(
        self,
        parameters: Claimable[M_co],
        rule: Rule,
        lr: Hyper,
        *,
        point: Point,
        maximize: bool = False,
        nonfinite: NonFinite = "raise",
        running: Running | None = None,
        **hyper: Hyper | tuple[float, ...],
    ) -> None:
        self._evaluating = False
        named = inspect.signature(point).parameters.values()
        arrays = [p.name for p in named if p.kind is not p.KEYWORD_ONLY]
        scalars = {p.name: Expr.scalar(p.name) for p in named if p.kind is p.KEYWORD_ONLY}
        average = point(*map(Expr.array, arrays), **scalars)
        self._point = Kernel(point.__name__, {"p": average}, arrays)
        super().__init__(
            parameters,
            rule,
            lr,
            maximize=maximize,
            nonfinite=nonfinite,
            running=running,
            **hyper,
        )

    @contextmanager
    def eval_params(self) -> Iterator[None]:
        """Put the average in the parameters' place; what was there is back, bit by bit, after.

        In the block nothing may be stepped, saved, loaded, moved or released: OwnershipError. What
        is assigned to a parameter there is gone after it. Before the first step there is no average
        and nothing changes.
        """
        self._check_training("eval_params() again")
        self._settle()
        kept = [(segment, self._copied(segment)) for segment in self.segments if segment.steps]
        self._evaluating = True
        try:
            for segment, _ in kept:
                self._average(segment)
            yield
        finally:
            with Uninterrupted():
                for segment, values in kept:
                    segment.arena.backend.copy(values, segment.arena.values)
                    segment.arena.written()
                self._evaluating = False

    def _copied(self, segment: Segment) -> Array:
        arena = segment.arena
        copy = arena.backend.allocate(arena.values.shape, arena.dtype)
        arena.backend.copy(arena.values, copy)
        return copy

    def _average(self, segment: Segment) -> None:
        arena = segment.arena
        hyper = segment.group.over(self.hyper)
        values = {n: at_step(n, hyper[n], segment.steps) for n in self._point.scalars}
        by_name = {"p": arena.values, **segment.state}
        arrays = [by_name[name] for name in self._point.arrays]
        scalars = self._point.bind(values)
        arena.backend.elementwise(self._point, arrays, scalars, [arena.values])
        arena.written()

    def _check_training(self, what: str) -> None:
        if self._evaluating:
            raise OwnershipError(
                f"{self}: {what} inside of eval_params(): the parameters are the average there, "
                "not what is trained; leave the block first"
            )

    def step(self, grads: GradientStore) -> None:
        """Do a step; see `FusedOptimizer.step`. OwnershipError inside of `eval_params`."""
        self._check_training("a step")
        super().step(grads)

    def state_dict(self) -> dict[str, Any]:
        """Return the state; see `FusedOptimizer`. OwnershipError inside of `eval_params`."""
        self._check_training("state_dict()")
        return super().state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state; see `FusedOptimizer`. OwnershipError inside of `eval_params`."""
        self._check_training("load_state_dict()")
        super().load_state_dict(state)

    def move(self, parameters: Sequence[Parameter], backend: Backend) -> None:
        """Move parameters; see `FusedOptimizer`. OwnershipError inside of `eval_params`."""
        self._check_training("moving to another backend")
        super().move(parameters, backend)

    def release(self) -> None:
        """Give up the parameters. OwnershipError inside of `eval_params`."""
        self._check_training("release()")
        super().release()
