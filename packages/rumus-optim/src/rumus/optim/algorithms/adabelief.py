"""AdaBelief."""

from __future__ import annotations

from typing import Unpack

from rumus.optim import rules
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import Claimable, M_co
from rumus.optim.options.hyperparameter import Hyper
from rumus.optim.options.options import Options


class AdaBelief(FusedOptimizer[M_co]):
    """AdaBelief: Adam scaled by how far gradients are from their average.

    m = beta1 m + (1 - beta1) g;  s = beta2 s + (1 - beta2) (g - m)^2 + eps;
    p = p (1 - lr weight_decay) - lr m_hat / (sqrt(s_hat) + eps)

    parameters: to own; see `Optimizer`.
    lr: at least 0.
    betas: each in [0, 1).
    eps: at least 0.
    weight_decay: at least 0, decoupled.
    options: see `FusedOptimizer`.

    The defaults are those of the authors' code, without its rectification. ValueError for a value
    out of range.

    `rumus.optim.rules.adabelief`. Zhuang et al.: arXiv:2010.07468.
    """

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: Hyper = 1e-16,
        weight_decay: Hyper = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            parameters,
            rules.adabelief,
            lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            **options,
        )
