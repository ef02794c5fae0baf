"""Adagrad."""

from __future__ import annotations

from typing import Unpack

from rumus.optim import rules
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import Claimable, M_co
from rumus.optim.options.hyperparameter import Hyper
from rumus.optim.options.options import Options


class Adagrad(FusedOptimizer[M_co]):
    """Adagrad: scales each element's step by the size of all its past gradients.

    s = s + g^2;  p = p - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)

    parameters: to own; see `Optimizer`.
    lr: at least 0.
    lr_decay: at least 0, how fast lr falls.
    weight_decay: at least 0, weight_decay p is added to the gradient.
    initial_accumulator_value: at least 0, the initial value of s.
    eps: at least 0.
    options: see `FusedOptimizer`.

    The defaults are PyTorch's. ValueError for a value out of range.

    `rumus.optim.rules.adagrad`. Duchi, Hazan, Singer, JMLR 2011.

    >>> from rumus.optim import Adagrad
    >>> from rumus.tensor import Parameter
    >>> w = Parameter([1.0, -4.0])
    >>> optimizer = Adagrad([w], 0.5)
    >>> optimizer.step((w * w).sum().backward())
    >>> w.tolist()
    [0.5, -3.5]
    """

    packs_state = True

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1e-2,
        *,
        lr_decay: Hyper = 0.0,
        weight_decay: Hyper = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: Hyper = 1e-10,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            parameters,
            rules.adagrad,
            lr,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
            **options,
        )
