"""`CautiousUpdate`: an element moves only if its update opposes its gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rumus.optim.engine.evaluated import EvaluatedOptimizer
from rumus.optim.engine.stage import Stage
from rumus.optim.fused.increment import known_increment
from rumus.tensor import Expr, where


class CautiousUpdate(Stage):
    """p = p - lr u c / max(mean(c), 0.001), with the rule's step lr u; c = 1 where u g > 0, else 0.

    The mean is over the tensor, as in the authors' code and timm's, so that a tensor moves about as
    far as usual. The rule's own weight decay is set to 0; an unmasked decoupled one replaces it.
    decays: whether it is added here. Signs are compared rather than products, which may underflow.
    Liang et al.: Cautious Optimizers, arXiv:2411.16085, algorithm 1.
    """

    replaces: ClassVar[Mapping[str, float]] = {"weight_decay": 0.0}

    def __init__(self, *, decays: bool) -> None:
        self.decays = decays

    def attach(self, optimizer: EvaluatedOptimizer[Any]) -> None:
        """Raise TypeError for an optimizer whose average would miss the masking."""
        if optimizer.has_average:
            raise TypeError(
                f"{type(optimizer).__name__}: cautious would hold the parameters back but not the "
                "average that this optimizer keeps of them; leave it out"
            )

    def result(self, p: Expr, g: Expr, new: Mapping[str, Expr], rule: str) -> Mapping[str, Expr]:
        """Return the masked step. TypeError for a rule whose update cannot be derived."""
        step = known_increment("cautious", rule, new["p"], p)
        agrees = where(step.sign() * g.sign() < 0, 1.0, 0.0)  # the step is -lr u
        share = (agrees * agrees).tensor_mean()  # a square is measured without an extra kernel
        moved = p + step * (agrees / share.maximum(1e-3))
        rate = Expr.scalar("lr") * Expr.scalar("weight_decay")
        return {**new, "p": moved - rate * p if self.decays else moved}
