"""AdEMAMix."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Unpack

from rumus.optim import rules
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import Claimable, M_co
from rumus.optim.options.hyperparameter import RANGES, Hyper, Ranges
from rumus.optim.options.options import Options
from rumus.tensor.expression.declared_type import is_ordered


class AdEMAMix(FusedOptimizer[M_co]):
    """AdamW with a second average of gradients over tens of thousands of steps.

    slow = beta3 slow + (1 - beta3) g;
    p = p (1 - lr weight_decay) - lr (m_hat + alpha slow) / (sqrt(v_hat) + eps)

    parameters: to own; see `Optimizer`.
    lr: at least 0.
    betas: the decay rates of m, v and slow, each in [0, 1).
    alpha: at least 0, the weight of slow.
    t_alpha: the number of steps over which alpha rises linearly from 0.
    t_beta3: the number of steps over which beta3 rises from beta1, with a linearly rising half-life
        of slow. The paper uses the length of the training for both; None for no rise.
    eps: at least 0.
    weight_decay: at least 0, decoupled.
    options: see `FusedOptimizer`.

    The defaults are those of the authors' code, except for the decay, which is AdamW's. ValueError
    for a value out of range, TypeError unless there are three betas.

    `rumus.optim.rules.ademamix`. Pagliardini, Ablin, Grangier: arXiv:2409.03137.

    >>> from rumus.optim import AdEMAMix
    >>> from rumus.tensor import Parameter
    >>> w = Parameter([2.0, -8.0])
    >>> optimizer = AdEMAMix([w], 0.5, betas=(0.9, 0.999, 0.75), alpha=2.0, weight_decay=0.0)
    >>> optimizer.step((w * w).sum().backward())  # the step is 1 + 2 (1 - 0.75) of lr
    >>> [round(x, 6) for x in w.tolist()]
    [1.25, -7.25]
    """

    ranges: ClassVar[Ranges] = {**RANGES, "alpha": (0, math.inf, False)}

    packs_state = True

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1e-3,
        *,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        alpha: Hyper = 5.0,
        t_alpha: int | None = None,
        t_beta3: int | None = None,
        eps: Hyper = 1e-8,
        weight_decay: Hyper = 1e-2,
        **options: Unpack[Options],
    ) -> None:
        for name, steps in (("t_alpha", t_alpha), ("t_beta3", t_beta3)):
            if steps is not None and steps < 1:
                raise ValueError(f"{name} must be 1 step or more, or None, not {steps}")
        given = tuple(betas) if is_ordered(betas) else ()
        if len(given) != 3:
            raise TypeError(f"betas must be three numbers, beta3 the slowest, not {betas!r}")
        beta1, beta2, beta3 = given
        super().__init__(
            parameters,
            rules.ademamix,
            lr,
            beta1=beta1,
            beta2=beta2,
            beta3=beta3 if t_beta3 is None else _slowing(beta1, beta3, t_beta3),
            alpha=alpha if t_alpha is None else _rising(alpha, t_alpha),
            eps=eps,
            weight_decay=weight_decay,
            **options,
        )


def _rising(alpha: Hyper, steps: int) -> Callable[[int], float]:
    """alpha, rising from alpha / steps at the first step."""
    return lambda t: min(t / steps, 1.0) * (alpha(t) if callable(alpha) else alpha)


def _slowing(first: float, last: float, steps: int) -> Callable[[int], float]:
    """From beta1 to beta3 with a linearly rising half-life: the paper, section 3."""
    if not 0 < first <= last < 1:
        raise ValueError(f"t_beta3 needs 0 < beta1 <= beta3 < 1, not {first} and {last}")
    start, end = 1 / math.log(first), 1 / math.log(last)

    def beta3(t: int) -> float:
        share = min(t / steps, 1.0)
        return math.exp(1 / ((1 - share) * start + share * end))

    return beta3
