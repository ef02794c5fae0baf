"""NAdam."""

from __future__ import annotations

from typing import Unpack

from rumus.optim import rules
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import Claimable, M_co
from rumus.optim.options.hyperparameter import Hyper
from rumus.optim.options.options import Options
from rumus.optim.options.running import Running


class NAdam(FusedOptimizer[M_co]):
    """Adam with Nesterov momentum, which grows during the first steps.

    mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2);  m, v, d as in Adam;
    p = p - lr (1 - mu_t) / (1 - mu_1 ... mu_t) g / d
          - lr mu_(t + 1) / (1 - mu_1 ... mu_(t + 1)) m / d

    parameters: to own; see `Optimizer`.
    lr: at least 0.
    betas: each in [0, 1).
    eps: at least 0, outside the root.
    weight_decay: at least 0: weight_decay p is added to the gradient or, with
        decoupled_weight_decay, p is multiplied by 1 - lr weight_decay.
    momentum_decay: at least 0.
    decoupled_weight_decay: see weight_decay.
    options: see `FusedOptimizer`.

    The defaults are PyTorch's. ValueError for a value out of range.

    `rumus.optim.rules.nadam`. Dozat, ICLR workshop 2016.
    """

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 2e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: Hyper = 1e-8,
        weight_decay: Hyper = 0.0,
        momentum_decay: Hyper = 4e-3,
        decoupled_weight_decay: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            parameters,
            rules.nadam_decoupled if decoupled_weight_decay else rules.nadam,
            lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            momentum_decay=momentum_decay,
            running=Running(mu_product=(1.0, rules.mu_product)),
            **options,
        )
