"""`AveragingOptimizer`: an optimizer whose result is not the point that it steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rumus.optim.fused import FusedOptimizer
from rumus.optim.group import Claimable, M_co
from rumus.optim.hyperparameter import Hyper, at_step
from rumus.optim.precision import MASTER
from rumus.optim.rules import Rule
from rumus.optim.segments import Segment
from rumus.optim.uninterrupted import Uninterrupted
from rumus.tensor import (
    Backend,
    Expr,
    GradientStore,
    Kernel,
    OwnershipError,
    Parameter,
    PrecisionError,
)
from rumus.tensor.backend import Array

Point = Callable[..., Expr]


def _kernel(point: Point, weights: str) -> Kernel:
    """The kernel that writes the average into p. weights: the array in which p's values are."""
    named = inspect.signature(point).parameters.values()
    names = [p.name for p in named if p.kind is not p.KEYWORD_ONLY]
    scalars = {p.name: Expr.scalar(p.name) for p in named if p.kind is p.KEYWORD_ONLY}
    arrays = [weights if name == "p" else name for name in names]
    average = point(*map(Expr.array, arrays), **scalars)
    return Kernel(point.__name__, {"p": average}, ("p", *(name for name in arrays if name != "p")))


class AveragingOptimizer(FusedOptimizer[M_co]):
    """A `FusedOptimizer` that also knows a better point than its parameters: an average.

    point: a function of `p`, parts of the state by their names, and scalars keyword-only, that
    returns the average. options: what `FusedOptimizer` takes besides. PrecisionError for a state
    of float16: an average of parameters is no place for it.
    """

    def __init__(
        self,
        parameters: Claimable[M_co],
        rule: Rule,
        lr: Hyper,
        *,
        point: Point,
        **options: Any,
    ) -> None:
        self._evaluating = False
        self._point, self._master_point = _kernel(point, "p"), _kernel(point, MASTER)
        if options.get("state_dtype") == "float16":
            raise PrecisionError(
                f"{type(self).__name__}: its state holds an average of the parameters, to which "
                'small steps are added: with state_dtype="float16" they would vanish in rounding'
            )
        super().__init__(parameters, rule, lr, **options)

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
        point = self._master_point if MASTER in segment.state else self._point
        values = {n: at_step(n, hyper[n], segment.steps) for n in point.scalars}
        by_name = {"p": arena.values, **segment.state}
        arrays = [by_name[name] for name in point.arrays]
        arena.backend.elementwise(point, arrays, point.bind(values), [arena.values])
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
