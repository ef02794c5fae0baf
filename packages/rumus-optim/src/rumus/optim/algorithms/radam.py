"""RAdam."""

from __future__ import annotations

from typing import Unpack

from rumus.optim import rules
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import Claimable, M_co
from rumus.optim.options.hyperparameter import Hyper
from rumus.optim.options.options import Options


class RAdam(FusedOptimizer[M_co]):
    """Adam that ignores its second moment until it has seen enough gradients.

    m, v as in Adam;  rho_inf = 2 / (1 - beta2) - 1; rho = rho_inf - 2 t beta2^t / (1 - beta2^t);
    rho > 5: p = p - lr r m_hat sqrt(1 - beta2^t) / (sqrt(v) + eps), with r = sqrt((rho - 4) (rho -
    2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho));
    before: p = p - lr m_hat

    parameters: to own; see `Optimizer`.
    lr: at least 0.
    betas: each in [0, 1).
    eps: at least 0, before the bias correction.
    weight_decay: at least 0: weight_decay p is added to the gradient or, with
        decoupled_weight_decay, p is multiplied by 1 - lr weight_decay.
    decoupled_weight_decay: see weight_decay.
    options: see `FusedOptimizer`.

    The defaults are PyTorch's. ValueError for a value out of range.

    `rumus.optim.rules.radam`. Liu et al.: arXiv:1908.03265.
    """

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: Hyper = 1e-8,
        weight_decay: Hyper = 0.0,
        decoupled_weight_decay: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            parameters,
            rules.radam_decoupled if decoupled_weight_decay else rules.radam,
            lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            **options,
        )
