"""`CoupledDecay`: weight decay as part of the gradient, for rules without their own."""

from __future__ import annotations

from collections.abc import Collection

from rumus.optim.engine.stage import Stage
from rumus.tensor import Expr


class CoupledDecay(Stage):
    """Replaces g by g + weight_decay p, the gradient with an L2 penalty."""

    def gradient(self, g: Expr, p: Expr, there: Collection[str]) -> Expr:
        """Return g + weight_decay p."""
        return g + Expr.scalar("weight_decay") * p
