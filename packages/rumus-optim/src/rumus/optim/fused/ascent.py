"""`Ascent`: maximize instead of minimize."""

from __future__ import annotations

from collections.abc import Collection

from rumus.optim.engine.stage import Stage
from rumus.tensor import Expr


class Ascent(Stage):
    """Replaces g by -g."""

    def gradient(self, g: Expr, p: Expr, there: Collection[str]) -> Expr:
        """Return -g."""
        return -g
