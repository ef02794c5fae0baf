"""LAMB."""

from __future__ import annotations

from typing import Unpack

from rumus.optim import rules
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import Claimable, M_co
from rumus.optim.options.hyperparameter import Hyper
from rumus.optim.options.options import Options


class LAMB(FusedOptimizer[M_co]):
    """AdamW with each tensor's step scaled to the tensor's norm, for large batches.

    u = m_hat / (sqrt(v_hat) + eps) + weight_decay p;
    p = p - lr r u,  r = norm(p) / norm(u), or 1 if one of them is 0

    parameters: to own; see `Optimizer`.
    lr: at least 0, a tensor's step relative to its norm.
    betas: each in [0, 1).
    eps: at least 0.
    weight_decay: at least 0.
    adapt: 1, or 0 for r = 1, as is usual for biases and norms: pass
        [ParameterGroup(matrices), ParameterGroup(others, adapt=0, weight_decay=0)].
    options: see `FusedOptimizer`.

    The defaults are the paper's. ValueError for a value out of range. A step is the same few
    kernels for any number of tensors. In addition to the state it keeps one array as large as the
    largest group, for the measurement.

    `rumus.optim.rules.lamb`. You et al.: arXiv:1904.00962.

    >>> from rumus.optim import LAMB
    >>> from rumus.tensor import Parameter
    >>> w = Parameter([3.0, -4.0])
    >>> optimizer = LAMB([w], 0.1, eps=0.0, weight_decay=0.0)
    >>> optimizer.step((w * w).sum().backward())  # u = (1, -1), r = 5 / sqrt(2)
    >>> [round(x, 4) for x in w.tolist()]
    [2.6464, -3.6464]
    """

    packs_state = True

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: Hyper = 0.01,
        adapt: float = 1.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            parameters,
            rules.lamb,
            lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            adapt=adapt,
            **options,
        )
