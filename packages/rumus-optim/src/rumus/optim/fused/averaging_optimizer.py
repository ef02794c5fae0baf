"""`AveragingOptimizer`: an optimizer whose result is not the point it steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rumus.optim.engine.segments import Segment
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.fused.master_weights import MASTER
from rumus.optim.options.group import Claimable, M_co
from rumus.optim.options.hyperparameter import Hyper
from rumus.tensor import Expr, Kernel, PrecisionError

if TYPE_CHECKING:
    from rumus.optim.rules import Rule

Point = Callable[..., Expr]


def _kernel(point: Point, weights: str) -> Kernel:
    """The kernel that writes the average into p. weights: the array with p's values."""
    named = inspect.signature(point).parameters.values()
    names = [p.name for p in named if p.kind is not p.KEYWORD_ONLY]
    scalars = {p.name: Expr.scalar(p.name) for p in named if p.kind is p.KEYWORD_ONLY}
    arrays = [weights if name == "p" else name for name in names]
    average = point(*map(Expr.array, arrays), **scalars)
    return Kernel(point.__name__, {"p": average}, ("p", *(name for name in arrays if name != "p")))


class AveragingOptimizer(FusedOptimizer[M_co]):
    """A `FusedOptimizer` whose result is an average rather than its parameters.

    parameters: to own; see `Optimizer`.
    rule: see `FusedOptimizer`.
    lr: see `FusedOptimizer`.
    point: a function of `p`, parts of the state by their names, and scalars keyword-only, that
        returns the average.
    options: see `FusedOptimizer`.

    PrecisionError for a state of float16 or 8 bits, which is too coarse for an average of
    parameters.
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
        self._point, self._master_point = _kernel(point, "p"), _kernel(point, MASTER)
        if (narrow := options.get("state_dtype")) in ("float16", "8bit"):
            raise PrecisionError(
                f"{type(self).__name__}: its state holds an average of the parameters, to which "
                f'small steps are added: with state_dtype="{narrow}" they would vanish in rounding'
            )
        super().__init__(parameters, rule, lr, **options)

    def _point_of(self, segment: Segment) -> Kernel | None:
        return self._master_point if MASTER in segment.state else self._point
