"""RMSprop."""

from __future__ import annotations

from typing import Unpack

from rumus.optim import rules
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import Claimable, M_co
from rumus.optim.options.hyperparameter import Hyper, checked
from rumus.optim.options.options import Options


class RMSprop(FusedOptimizer[M_co]):
    """RMSprop: scales each element's step by the size of its recent gradients.

    v = alpha v + (1 - alpha) g^2;  p = p - lr g / (sqrt(v) + eps)

    parameters: to own; see `Optimizer`.
    lr: at least 0.
    alpha: the decay rate of the average, in [0, 1).
    eps: at least 0, outside the root.
    weight_decay: at least 0, weight_decay p is added to the gradient.
    momentum: in [0, 1): b = momentum b + g / (sqrt(v) + eps) replaces the quotient; b does not
        include lr.
    centered: divide by the deviation sqrt(v - m^2) from the average m of g.
    options: see `FusedOptimizer`.

    The defaults are PyTorch's. ValueError for a value out of range.

    `rumus.optim.rules`: `rmsprop`, `rmsprop_momentum`, `rmsprop_centered`,
    `rmsprop_centered_momentum`. Tieleman, Hinton, 2012; Graves: arXiv:1308.0850.
    """

    packs_state = True

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1e-2,
        *,
        alpha: Hyper = 0.99,
        eps: Hyper = 1e-8,
        weight_decay: Hyper = 0.0,
        momentum: Hyper = 0.0,
        centered: bool = False,
        **options: Unpack[Options],
    ) -> None:
        rule: rules.Rule = rules.rmsprop_centered if centered else rules.rmsprop
        given = {"alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        hyper = checked(given)
        if momentum == 0:
            del hyper["momentum"]
        else:
            rule = rules.rmsprop_centered_momentum if centered else rules.rmsprop_momentum
        super().__init__(
            parameters,
            rule,
            lr,
            **options,
            running=None,  # explicit, or mypy would match it against **hyper
            **hyper,
        )
