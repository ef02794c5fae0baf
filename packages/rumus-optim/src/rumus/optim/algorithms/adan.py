"""Adan."""

from __future__ import annotations

from typing import Unpack

from rumus.optim import rules
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import Claimable, M_co
from rumus.optim.options.hyperparameter import Hyper
from rumus.optim.options.options import Options


class Adan(FusedOptimizer[M_co]):
    """Adan: Adam with Nesterov momentum from the difference of successive gradients.

    delta = g - g_before;  m = beta1 m + (1 - beta1) g;  d = beta2 d + (1 - beta2) delta;
    n = beta3 n + (1 - beta3) (g + beta2 delta)^2;
    p = (p - lr (m_hat + beta2 d_hat) / (sqrt(n_hat) + eps)) / (1 + lr weight_decay)

    parameters: to own; see `Optimizer`.
    lr: at least 0.
    betas: the decay rates of m, d and n, each in [0, 1).
    eps: at least 0, outside the root.
    weight_decay: at least 0, by a proximal step.
    options: see `FusedOptimizer`.

    The defaults are those of the authors' code. ValueError for a value out of range, TypeError
    unless there are three betas.

    `rumus.optim.rules.adan`. Xie et al.: arXiv:2208.06677.
    """

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1e-3,
        *,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: Hyper = 1e-8,
        weight_decay: Hyper = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            parameters,
            rules.adan,
            lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            **options,
        )
