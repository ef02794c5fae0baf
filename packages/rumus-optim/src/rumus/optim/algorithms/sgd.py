"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Unpack

from rumus.optim import rules
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import Claimable, M_co
from rumus.optim.options.hyperparameter import Hyper, checked
from rumus.optim.options.options import Options


class SGD(FusedOptimizer[M_co]):
    """Stochastic gradient descent, with or without momentum.

    parameters: to own; see `Optimizer`.
    lr: at least 0.
    momentum: in [0, 1); with 0 there is no state.
    dampening: reduces the weight of a new gradient in the momentum, from the second step on.
    weight_decay: at least 0, weight_decay p is added to the gradient.
    nesterov: look ahead; needs momentum, and no dampening.
    options: see `FusedOptimizer`.

    ValueError for a value out of range.

    The formulas are in `rumus.optim.rules`: `sgd`, `sgd_momentum`, `sgd_nesterov`.

    >>> from rumus.optim import SGD
    >>> from rumus.tensor import Parameter
    >>> w = Parameter([1.0, -1.0])
    >>> optimizer = SGD([w], 0.25)
    >>> optimizer.step((w * w).sum().backward())
    >>> w.tolist()
    [0.5, -0.5]
    """

    packs_state = True

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1e-3,
        *,
        momentum: Hyper = 0.0,
        dampening: Hyper = 0.0,
        weight_decay: Hyper = 0.0,
        nesterov: bool = False,
        **options: Unpack[Options],
    ) -> None:
        checked({"momentum": momentum, "dampening": dampening})  # the rule may not take either
        if nesterov and (momentum == 0 or dampening != 0):
            raise ValueError(
                f"nesterov needs momentum > 0 and dampening 0, not {momentum} and {dampening}"
            )
        hyper: dict[str, Hyper] = {"weight_decay": weight_decay}
        rule: rules.Rule = rules.sgd
        if nesterov:
            rule, hyper["momentum"] = rules.sgd_nesterov, momentum
        elif momentum != 0:
            rule = rules.sgd_momentum
            hyper |= {"momentum": momentum, "dampening": dampening}
        super().__init__(
            parameters,
            rule,
            lr,
            **options,
            running=None,  # explicit, or mypy would match it against **hyper
            **hyper,
        )
