"""Yogi."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

from rumus.optim import rules
from rumus.optim.engine.segments import Segment
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import Claimable, M_co
from rumus.optim.options.hyperparameter import Hyper
from rumus.optim.options.options import Options
from rumus.tensor import Backend, ParamId


class Yogi(FusedOptimizer[M_co]):
    """Yogi: Adam whose second moment changes by at most g^2, so that the step size does not jump.

    m = beta1 m + (1 - beta1) g;  v = v - (1 - beta2) sign(v - g^2) g^2;
    p = p - lr m_hat / (sqrt(v_hat) + eps)

    parameters: to own; see `Optimizer`.
    lr: at least 0.
    betas: each in [0, 1).
    eps: at least 0, outside the root.
    initial_accumulator_value: at least 0, the initial value of v.
    weight_decay: at least 0, weight_decay p is added to the gradient.
    options: see `FusedOptimizer`.

    The defaults are the paper's. ValueError for a value out of range.

    `rumus.optim.rules.yogi`. Zaheer et al., NeurIPS 2018.
    """

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1e-2,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: Hyper = 1e-3,
        initial_accumulator_value: float = 1e-6,
        weight_decay: Hyper = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            parameters,
            rules.yogi,
            lr,
            betas=betas,
            eps=eps,
            initial_accumulator_value=initial_accumulator_value,
            weight_decay=weight_decay,
            **options,
        )

    def _layout(self, places: Mapping[ParamId, Backend]) -> list[Segment]:
        segments = super()._layout(places)
        for segment in segments:
            # v - (1 - beta2) sign(v - g^2) g^2 stays at 0 or above, which its terms do not show.
            segment.never_negative = segment.never_negative | {"v"}
        return segments
