"""LARS."""

from __future__ import annotations

from typing import Unpack

from rumus.optim import rules
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import Claimable, M_co
from rumus.optim.options.hyperparameter import Hyper
from rumus.optim.options.options import Options


class LARS(FusedOptimizer[M_co]):
    """SGD with momentum and a learning rate per tensor, for large batches.

    b = momentum b + lr r (g + weight_decay p);  p = p - b;
    r = trust_coefficient norm(p) / (norm(g) + weight_decay norm(p)), or 1 if one of the norms is 0

    parameters: to own; see `Optimizer`.
    lr: at least 0; since r includes the trust coefficient, useful values are large.
    momentum: in [0, 1).
    weight_decay: at least 0.
    trust_coefficient: at least 0, a tensor's step relative to its norm, divided by lr.
    adapt: 1, or 0 for r = 1, as is usual for biases and norms, with their own lr: pass
        [ParameterGroup(matrices), ParameterGroup(others, adapt=0, weight_decay=0, lr=0.1)].
    options: see `FusedOptimizer`.

    The defaults of trust_coefficient, momentum and weight_decay are those of the paper's
    experiments; its lr depends on the batch, and 1 is rumus's. ValueError for a value out of range.
    A step is the same few kernels for any number of tensors.

    `rumus.optim.rules.lars`. You, Gitman, Ginsburg: arXiv:1708.03888.

    >>> from rumus.optim import LARS
    >>> from rumus.tensor import Parameter
    >>> w = Parameter([3.0, -4.0])
    >>> optimizer = LARS([w], 1.0, weight_decay=0.0, trust_coefficient=0.1)
    >>> optimizer.step((w * w).sum().backward())  # norm(p) / norm(g) is 1 / 2
    >>> [round(x, 4) for x in w.tolist()]
    [2.7, -3.6]
    """

    packs_state = True

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1.0,
        *,
        momentum: Hyper = 0.9,
        weight_decay: Hyper = 5e-4,
        trust_coefficient: Hyper = 1e-3,
        adapt: float = 1.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            parameters,
            rules.lars,
            lr,
            momentum=momentum,
            weight_decay=weight_decay,
            trust_coefficient=trust_coefficient,
            adapt=adapt,
            **options,
        )
