"""`Unscaling`: divides the gradients of a scaled loss by its scale, before all other stages."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar, Final

from rumus.optim.engine.loss_scale import Scaling
from rumus.optim.engine.segments import Segment
from rumus.optim.engine.stage import Stage
from rumus.tensor import Expr

UNSCALE: Final = "unscale"  # the inverse scale


class Unscaling(Stage):
    """Replaces g by g / scale; a device that decides about steps has the scale in its memory."""

    arrays: ClassVar[Sequence[str]] = (UNSCALE,)

    def __init__(self, scaling: Scaling) -> None:
        self.scaling = scaling
        self._on_host: list[bool] = []

    def place(self, segments: Sequence[Segment], scaling: Scaling | None) -> None:
        """Bind the inverse scale on devices that decide about steps."""
        self._on_host = [not segment.arena.backend.runs_ahead for segment in segments]
        for segment in segments:
            if segment.arena.backend.runs_ahead:
                segment.scratch[UNSCALE] = self.scaling.inverse_on(segment.arena.backend)

    def gradient(self, g: Expr, p: Expr, there: Collection[str]) -> Expr:
        """Return g / scale, as a product."""
        return g * (Expr.array(UNSCALE) if UNSCALE in there else Expr.scalar(UNSCALE))

    def scalars(self, number: int, t: int) -> Mapping[str, float]:
        """Return the inverse scale if the host knows it."""
        return {UNSCALE: self.scaling.inverse} if self._on_host[number] else {}
