"""`Unscaling`: gradients of a scaled loss, divided by its scale first of all."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar, Final

from rumus.optim.engine.loss_scale import Scaling
from rumus.optim.engine.segments import Segment
from rumus.optim.engine.stage import Stage
from rumus.tensor import Expr

UNSCALE: Final = "unscale"  # what the gradients are multiplied by


class Unscaling(Stage):
    """g / scale takes the place of g; on a device that decides by itself the scale lies there."""

    arrays: ClassVar[Sequence[str]] = (UNSCALE,)

    def __init__(self, scaling: Scaling) -> None:
        self.scaling = scaling
        self._on_host: list[bool] = []

    def place(self, segments: Sequence[Segment], scaling: Scaling | None) -> None:
        """Lend devices that decide by themselves their inverse scale."""
        self._on_host = [not segment.arena.backend.runs_ahead for segment in segments]
        for segment in segments:
            if segment.arena.backend.runs_ahead:
                segment.scratch[UNSCALE] = self.scaling.inverse_on(segment.arena.backend)

    def gradient(self, g: Expr, p: Expr, there: Collection[str]) -> Expr:
        """Return g / scale, as a product."""
        return g * (Expr.array(UNSCALE) if UNSCALE in there else Expr.scalar(UNSCALE))

    def scalars(self, number: int, t: int) -> Mapping[str, float]:
        """Return the inverse scale, where the host knows it."""
        return {UNSCALE: 1 / self.scaling.scale} if self._on_host[number] else {}
