"""ADOPT."""

from __future__ import annotations

from typing import Unpack

from rumus.optim import rules
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import Claimable, M_co
from rumus.optim.options.hyperparameter import Hyper
from rumus.optim.options.options import Options


class ADOPT(FusedOptimizer[M_co]):
    """ADOPT: Adam that divides by the previous step's second moment, for any beta2.

    c = (t - 1)^(1/4);  m = beta1 m + (1 - beta1) clip(g / max(sqrt(v), eps), -c, c);
    p = p - lr m;  v = beta2 v + (1 - beta2) g^2

    The first step changes only v: v = g^2.

    parameters: to own; see `Optimizer`.
    lr: at least 0.
    betas: each in [0, 1).
    eps: at least 0.
    weight_decay: at least 0: weight_decay p is added to the gradient or, with
        decoupled_weight_decay, p is multiplied by 1 - lr weight_decay.
    decoupled_weight_decay: see weight_decay.
    options: see `FusedOptimizer`.

    The defaults are the paper's. ValueError for a value out of range.

    `rumus.optim.rules.adopt`. Taniguchi et al.: arXiv:2411.02853.
    """

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.9999),
        eps: Hyper = 1e-6,
        weight_decay: Hyper = 0.0,
        decoupled_weight_decay: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            parameters,
            rules.adopt_decoupled if decoupled_weight_decay else rules.adopt,
            lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            **options,
        )
