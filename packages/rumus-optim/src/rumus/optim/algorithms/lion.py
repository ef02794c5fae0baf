"""Lion."""

from __future__ import annotations

from typing import Unpack

from rumus.optim import rules
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import Claimable, M_co
from rumus.optim.options.hyperparameter import Hyper
from rumus.optim.options.options import Options


class Lion(FusedOptimizer[M_co]):
    """Lion: steps by the sign of an average. Each element moves by lr, whatever its gradient.

    c = beta1 m + (1 - beta1) g;  p = p - lr (sign(c) + weight_decay p);
    m = beta2 m + (1 - beta2) g

    parameters: to own; see `Optimizer`.
    lr: at least 0; a third to a tenth of AdamW's, with a correspondingly larger weight_decay.
    betas: each in [0, 1).
    weight_decay: at least 0, decoupled.
    options: see `FusedOptimizer`.

    The defaults are those of the authors' code. ValueError for a value out of range.

    `rumus.optim.rules.lion`. Chen et al.: arXiv:2302.06675.

    >>> from rumus.optim import Lion
    >>> from rumus.tensor import Parameter
    >>> w = Parameter([1.0, -4.0])
    >>> optimizer = Lion([w], 0.25)
    >>> optimizer.step((w * w).sum().backward())
    >>> w.tolist()
    [0.75, -3.75]
    """

    packs_state = True

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: Hyper = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            parameters,
            rules.lion,
            lr,
            betas=betas,
            weight_decay=weight_decay,
            **options,
        )
