"""Averaged stochastic gradient descent."""

from __future__ import annotations

import math
from typing import ClassVar, Unpack

from rumus.optim import rules
from rumus.optim.fused.averaging_optimizer import AveragingOptimizer
from rumus.optim.options.group import Claimable, M_co
from rumus.optim.options.hyperparameter import RANGES, Hyper, Ranges
from rumus.optim.options.options import Options


class ASGD(AveragingOptimizer[M_co]):
    """Stochastic gradient descent whose result is the average of its iterates.

    eta = lr / (1 + lambd lr (t - 1))^alpha;  p = p (1 - lambd eta) - eta g;
    ax = p up to step t0 + 1, then the average of all p since

    `with optimizer.eval_params():` swaps the average in for the parameters.

    parameters: to own; see `Optimizer`.
    lr: at least 0.
    lambd: at least 0, an extra decay of p and of lr.
    alpha: at least 0, how fast lr falls.
    t0: at least 0.
    weight_decay: at least 0, weight_decay p is added to the gradient.
    options: see `FusedOptimizer`.

    The defaults are PyTorch's: with its t0, averaging starts after a million steps. ValueError for
    a value out of range.

    `rumus.optim.rules.asgd`. Polyak, Juditsky, 1992.
    """

    ranges: ClassVar[Ranges] = {**RANGES, "alpha": (0, math.inf, False)}

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1e-2,
        *,
        lambd: Hyper = 1e-4,
        alpha: Hyper = 0.75,
        t0: float = 1e6,
        weight_decay: Hyper = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            parameters,
            rules.asgd,
            lr,
            lambd=lambd,
            alpha=alpha,
            t0=t0,
            weight_decay=weight_decay,
            point=rules.average,
            **options,
        )
