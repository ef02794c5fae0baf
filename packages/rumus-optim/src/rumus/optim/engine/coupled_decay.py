"""`CoupledDecay`: weight decay for rules that know of none, as a part of the gradient."""

from __future__ import annotations

from collections.abc import Collection

from rumus.optim.engine.stage import Stage
from rumus.tensor import Expr


class CoupledDecay(Stage):
    """g + weight_decay p takes the place of g: the gradient of an L2 penalty on top."""

    def gradient(self, g: Expr, p: Expr, there: Collection[str]) -> Expr:
        """Return g + weight_decay p."""
        return g + Expr.scalar("weight_decay") * p
