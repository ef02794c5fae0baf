"""`Ascent`: up instead of down."""

from __future__ import annotations

from collections.abc import Collection

from rumus.optim.engine.stage import Stage
from rumus.tensor import Expr


class Ascent(Stage):
    """-g takes the place of g."""

    def gradient(self, g: Expr, p: Expr, there: Collection[str]) -> Expr:
        """Return -g."""
        return -g
