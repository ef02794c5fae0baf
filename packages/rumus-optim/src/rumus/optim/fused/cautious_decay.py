"""`CautiousDecay`: decoupled weight decay only where it agrees with the update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rumus.optim.engine.evaluated import EvaluatedOptimizer
from rumus.optim.engine.stage import Stage
from rumus.optim.fused.increment import known_increment
from rumus.tensor import Expr, where


class CautiousDecay(Stage):
    """p = p - lr (u + weight_decay p where u p >= 0, else u), with the rule's own step lr u.

    It replaces the rule's own weight decay, which is set to 0. An element whose update moves it
    away from 0 does not decay. Signs are compared rather than products, which may underflow. Chen
    et al.: Cautious Weight Decay, arXiv:2510.12402, algorithm 1.
    """

    replaces: ClassVar[Mapping[str, float]] = {"weight_decay": 0.0}

    def attach(self, optimizer: EvaluatedOptimizer[Any]) -> None:
        """Raise TypeError for an optimizer whose average would miss the decay."""
        if optimizer.has_average:
            raise TypeError(
                f"{type(optimizer).__name__}: cautious_weight_decay would move the parameters but "
                "not the average that this optimizer keeps of them; leave it out"
            )

    def result(self, p: Expr, g: Expr, new: Mapping[str, Expr], rule: str) -> Mapping[str, Expr]:
        """Return the step with the decay. TypeError for a rule whose update cannot be derived."""
        step = known_increment("cautious_weight_decay", rule, new["p"], p)
        agree = step.sign() * p.sign() <= 0  # the step is -lr u
        rate = Expr.scalar("lr") * Expr.scalar("weight_decay")
        return {**new, "p": new["p"] - rate * where(agree, p, 0.0)}
