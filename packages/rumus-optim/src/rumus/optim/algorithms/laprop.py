"""LaProp."""

from __future__ import annotations

from typing import Unpack

from rumus.optim import rules
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import Claimable, M_co
from rumus.optim.options.hyperparameter import Hyper
from rumus.optim.options.options import Options


class LaProp(FusedOptimizer[M_co]):
    """LaProp: momentum of normalized gradients rather than of gradients.

    v = beta2 v + (1 - beta2) g^2;  m = beta1 m + (1 - beta1) g / (sqrt(v_hat) + eps);
    p = p (1 - lr weight_decay) - lr m_hat

    parameters: to own; see `Optimizer`.
    lr: at least 0.
    betas: the decay rates of m and v, each in [0, 1): beta1 may exceed the root of beta2, where
        Adam diverges.
    eps: at least 0, outside the root.
    weight_decay: at least 0, decoupled.
    options: see `FusedOptimizer`.

    The defaults are those of the authors' code. ValueError for a value out of range.

    `rumus.optim.rules.laprop`. Ziyin, Wang, Ueda: arXiv:2002.04839.

    >>> from rumus.optim import LaProp
    >>> from rumus.tensor import Parameter
    >>> w = Parameter([2.0, -8.0])
    >>> optimizer = LaProp([w], 0.5)
    >>> optimizer.step((w * w).sum().backward())
    >>> [round(x, 6) for x in w.tolist()]
    [1.5, -7.5]
    """

    packs_state = True

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 4e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: Hyper = 1e-15,
        weight_decay: Hyper = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            parameters,
            rules.laprop,
            lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            **options,
        )
