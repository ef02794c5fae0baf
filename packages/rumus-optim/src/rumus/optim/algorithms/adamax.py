"""Adamax."""

from __future__ import annotations

from typing import Unpack

from rumus.optim import rules
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import Claimable, M_co
from rumus.optim.options.hyperparameter import Hyper
from rumus.optim.options.options import Options


class Adamax(FusedOptimizer[M_co]):
    """Adamax: Adam with the largest recent gradient in place of the root mean square.

    m = beta1 m + (1 - beta1) g;  u = max(beta2 u, |g| + eps);  p = p - lr / (1 - beta1^t) m / u

    parameters: to own; see `Optimizer`.
    lr: at least 0.
    betas: the decay rates of m and u, each in [0, 1).
    eps: at least 0, inside the maximum.
    weight_decay: at least 0, weight_decay p is added to the gradient.
    options: see `FusedOptimizer`.

    The defaults are the paper's; eps is PyTorch's. ValueError for a value out of range.

    `rumus.optim.rules.adamax`. Kingma, Ba: arXiv:1412.6980, algorithm 2.
    """

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 2e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: Hyper = 1e-8,
        weight_decay: Hyper = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            parameters,
            rules.adamax,
            lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            **options,
        )
