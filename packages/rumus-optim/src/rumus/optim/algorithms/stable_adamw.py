"""StableAdamW."""

from __future__ import annotations

from typing import Unpack

from rumus.optim import rules
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import Claimable, M_co
from rumus.optim.options.hyperparameter import Hyper
from rumus.optim.options.options import Options


class StableAdamW(FusedOptimizer[M_co]):
    """AdamW that slows down if a tensor's gradients far exceed their average.

    r = lr / max(1, rms of g / sqrt(v) over the tensor);
    p = p - r (m_hat / (sqrt(v_hat) + eps) + weight_decay p)

    It needs no clipping of gradients.

    parameters: to own; see `Optimizer`.
    lr: at least 0.
    betas: the decay rates of m and v, each in [0, 1).
    eps: at least 0.
    weight_decay: at least 0, decoupled.
    options: see `FusedOptimizer`.

    The defaults are those of optimi. A step measures all tensors at once, with an array that
    `memory()` counts as state. ValueError for a value out of range.

    `rumus.optim.rules.stable_adamw`. Wortsman et al.: arXiv:2304.13013.

    >>> from rumus.optim import StableAdamW
    >>> from rumus.tensor import Parameter
    >>> w = Parameter([2.0, -8.0])
    >>> optimizer = StableAdamW([w], 0.5, weight_decay=0.0)
    >>> optimizer.step((w * w).sum().backward())
    >>> [round(x, 5) for x in w.tolist()]
    [1.5, -7.5]
    """

    packs_state = True

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: Hyper = 1e-6,
        weight_decay: Hyper = 1e-2,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            parameters,
            rules.stable_adamw,
            lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            **options,
        )
