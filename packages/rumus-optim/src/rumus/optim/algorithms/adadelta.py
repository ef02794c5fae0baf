"""Adadelta."""

from __future__ import annotations

from typing import Unpack

from rumus.optim import rules
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import Claimable, M_co
from rumus.optim.options.hyperparameter import Hyper
from rumus.optim.options.options import Options


class Adadelta(FusedOptimizer[M_co]):
    """Adadelta: RMSprop whose learning rate is the size of the recent updates.

    v = rho v + (1 - rho) g^2;  d = sqrt(u + eps) / sqrt(v + eps) g;
    u = rho u + (1 - rho) d^2;  p = p - lr d

    parameters: to own; see `Optimizer`.
    lr: at least 0.
    rho: the decay rate of the averages, in [0, 1).
    eps: at least 0, inside both roots; it determines the first steps.
    weight_decay: at least 0, weight_decay p is added to the gradient.
    options: see `FusedOptimizer`.

    The defaults are PyTorch's. ValueError for a value out of range.

    `rumus.optim.rules.adadelta`. Zeiler: arXiv:1212.5701.
    """

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1.0,
        *,
        rho: Hyper = 0.9,
        eps: Hyper = 1e-6,
        weight_decay: Hyper = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            parameters,
            rules.adadelta,
            lr,
            rho=rho,
            eps=eps,
            weight_decay=weight_decay,
            **options,
        )
