"""`ClipElements`: limits each element of a gradient."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from rumus.optim.engine.stage import Stage
from rumus.optim.options.clip import ClipValue
from rumus.tensor import Expr

_LIMIT: Final = "clip_limit"


class ClipElements(Stage):
    """Limits g to [-limit, limit]; NaN stays NaN."""

    def __init__(self, clip: ClipValue) -> None:
        self.clip = clip

    def gradient(self, g: Expr, p: Expr, there: Collection[str]) -> Expr:
        """Return the limited gradient."""
        limit = Expr.scalar(_LIMIT)
        return g.maximum(-limit).minimum(limit)

    def bounds(self) -> float:
        """Return the limit."""
        return self.clip.max_value

    def scalars(self, number: int, t: int) -> Mapping[str, float]:
        """Return the limit."""
        return {_LIMIT: self.clip.max_value}
