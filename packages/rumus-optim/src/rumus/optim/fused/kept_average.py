"""`KeptAverage`: an average of the parameters, updated by the kernel that updates them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from rumus.optim.engine.evaluated import EvaluatedOptimizer
from rumus.optim.engine.precision import computed_in
from rumus.optim.engine.stage import Stage
from rumus.optim.options.average import Average
from rumus.tensor import DType, Expr, Kernel

AVERAGE: Final = "average"  # of the parameters, in the state
WEIGHT: Final = "average_weight"  # of the new parameters in it
_POINT: Final = Kernel("average", {"p": Expr.array(AVERAGE)}, ("p", AVERAGE))


class KeptAverage(Stage):
    """average = average + weight (p - average), with the weight of an `Average`."""

    arrays: ClassVar[Sequence[str]] = (AVERAGE,)

    def __init__(self, average: Average) -> None:
        if not isinstance(average, Average):
            raise TypeError(f"average must be EMA(...), SWA(...) or None, not {average!r}")
        self.average = average

    def attach(self, optimizer: EvaluatedOptimizer[Any]) -> None:
        """Become the optimizer's evaluation point. ValueError if it has its own average."""
        self.average.attach(optimizer)
        optimizer.evaluate_at(_POINT, self.average.has_begun)

    def detach(self, optimizer: EvaluatedOptimizer[Any]) -> None:
        """Allow another optimizer to keep the average."""
        self.average.detach(optimizer)

    def state(self, dtype: DType) -> Mapping[str, DType]:
        """Return the average, at least float32."""
        return {AVERAGE: computed_in(dtype)}

    def result(self, p: Expr, g: Expr, new: Mapping[str, Expr], rule: str) -> Mapping[str, Expr]:
        """Return the step with the new average."""
        average = Expr.array(AVERAGE)
        return {**new, AVERAGE: average + Expr.scalar(WEIGHT) * (new["p"] - average)}

    def scalars(self, number: int, t: int) -> Mapping[str, float]:
        """Return the weight of the new parameters."""
        return {WEIGHT: self.average.weight(t)}
