"""MARS."""

from __future__ import annotations

from typing import Unpack

from rumus.optim import rules
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import Claimable, M_co
from rumus.optim.options.hyperparameter import Hyper
from rumus.optim.options.options import Options


class MARS(FusedOptimizer[M_co]):
    """AdamW with gradients whose variance is reduced by means of the previous ones.

    c = g + gamma beta1 / (1 - beta1) (g - g_before), scaled to norm 1 in each tensor if above;
    then AdamW with c in place of g

    parameters: to own; see `Optimizer`.
    lr: at least 0.
    betas: the decay rates of m and v, each in [0, 1).
    gamma: the weight of the difference.
    eps: at least 0.
    weight_decay: at least 0, decoupled.
    options: see `FusedOptimizer`.

    All parameters are stepped like this; to use AdamW for vectors, as the authors do, add another
    optimizer. The defaults are those of the authors' code for AdamW. A step measures all tensors at
    once, with an array that `memory()` counts as state. ValueError for a value out of range.

    `rumus.optim.rules.mars`. Yuan et al.: arXiv:2411.10438.
    """

    packs_state = True

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 3e-3,
        *,
        betas: tuple[float, float] = (0.95, 0.99),
        gamma: Hyper = 0.025,
        eps: Hyper = 1e-8,
        weight_decay: Hyper = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            parameters,
            rules.mars,
            lr,
            betas=betas,
            gamma=gamma,
            eps=eps,
            weight_decay=weight_decay,
            **options,
        )
