"""Optimizers that estimate their step size: Prodigy and D-Adaptation."""

from __future__ import annotations

import math
from typing import Any, Final, Unpack

from rumus.optim import rules
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import Claimable, M_co
from rumus.optim.options.hyperparameter import Hyper
from rumus.optim.options.options import Options
from rumus.tensor import Tensor
from rumus.tensor.expression.declared_type import is_ordered
from rumus.tensor.expression.real_number import real_number

_UNLIMITED: Final = 1e30  # d never grows by more


class DistanceOptimizer(FusedOptimizer[M_co]):
    """A `FusedOptimizer` whose rule multiplies the learning rate by its own estimate `d`."""

    packs_state = True

    def __init__(
        self,
        parameters: Claimable[M_co],
        rule: rules.Rule,
        lr: Hyper,
        *,
        d0: float,
        growth_rate: float,
        bias_correction: bool,
        **options: Any,
    ) -> None:
        if options.get("cautious_weight_decay"):
            raise TypeError(
                f"{type(self).__name__}: cautious_weight_decay decays by lr weight_decay, but the "
                "learning rate is d lr here; leave it out"
            )
        if not 0 < d0 < math.inf:
            raise ValueError(f"d0 must be finite and above 0, not {d0}")
        self._d0 = d0
        super().__init__(
            parameters,
            rule,
            lr,
            d0=d0,
            growth_rate=min(growth_rate, _UNLIMITED),
            bias_correction=float(bias_correction),
            **options,
        )

    @property
    def d(self) -> Tensor:
        """The factor of the learning rate in the next step: a scalar tensor.

        It stays on the GPU until you read it. OwnershipError if this was released.
        """
        self.check_owning()
        first = self.segments[0]
        found = Tensor(first.state["d"][:1].reshape(()), first.arena.backend).detach()
        return (found > 0).where(found, self._d0)


class Prodigy(DistanceOptimizer[M_co]):
    """Adam without a learning rate: it is estimated from the distance to the solution.

    m = beta1 m + d (1 - beta1) g;  v = beta2 v + d^2 (1 - beta2) g^2;
    p = p - d lr (m / (sqrt(v) + d eps) + weight_decay p)

    and d, one number for all parameters, is the largest estimate so far of their distance to the
    solution, computed from how far they have moved along their gradients.

    parameters: to own; see `Optimizer`.
    lr: at least 0, a factor usually left at 1; a schedule from 1 down to 0 is common. It must be
        the same in all groups.
    betas: the decay rates of m and v, each in [0, 1).
    beta3: the decay rate of the estimate, in [0, 1); None for sqrt(beta2).
    eps: at least 0.
    weight_decay: at least 0, decoupled.
    d0: above 0, the initial d, which should be too small.
    d_coef: above 0, a factor of the estimate: 0.5 or 2 for smaller or larger steps.
    growth_rate: the largest factor by which d may grow per step, at least 1.
    bias_correction: correct Adam's averages.
    safeguard_warmup: omit lr from the estimate's denominator, for a long warmup of lr.
    options: see `FusedOptimizer`, except cautious and cautious_weight_decay.

    The defaults are those of the authors' code. ValueError for a value out of range, for groups
    with different learning rates, and for optional parameters; BackendMismatchError for parameters
    on several backends; TypeError for cautious_weight_decay, for cautious, and for a mix of float32
    and float64. A step measures all tensors at once, with two arrays that `memory()` counts as
    state.

    `rumus.optim.rules.prodigy`. Mishchenko, Defazio: arXiv:2306.06101.

    >>> from rumus.optim import Prodigy
    >>> from rumus.tensor import Parameter
    >>> w = Parameter([1.0, -2.0])
    >>> optimizer = Prodigy([w])
    >>> for _ in range(100):
    ...     optimizer.step((w * w).sum().backward())
    >>> 0.1 < optimizer.d.item() < 10.0
    True
    """

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1.0,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        beta3: float | None = None,
        eps: float = 1e-8,
        weight_decay: Hyper = 0.0,
        d0: float = 1e-6,
        d_coef: float = 1.0,
        growth_rate: float = math.inf,
        bias_correction: bool = False,
        safeguard_warmup: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            parameters,
            rules.prodigy,
            lr,
            betas=_with_third(betas, beta3),
            eps=eps,
            weight_decay=weight_decay,
            d0=d0,
            d_coef=d_coef,
            growth_rate=growth_rate,
            bias_correction=bias_correction,
            safeguard_warmup=float(safeguard_warmup),
            **options,
        )


def _with_third(betas: Any, beta3: float | None) -> tuple[float, float, float]:
    """Prodigy's beta1, beta2 and beta3, by default the root of beta2."""
    given = tuple(betas) if is_ordered(betas) else ()
    if len(given) != 2:
        raise TypeError(f"betas must be two numbers, not {betas!r}")
    beta1, beta2 = given
    return beta1, beta2, math.sqrt(abs(real_number("beta2", beta2))) if beta3 is None else beta3


class DAdaptAdam(DistanceOptimizer[M_co]):
    """Adam whose learning rate is a growing lower bound of the distance to the solution.

    m = beta1 m + d lr (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;  p = p - m / (sqrt(v) + eps)

    parameters: to own; see `Optimizer`.
    lr: at least 0, a factor usually left at 1, the same in all groups.
    betas: the decay rates of the averages, each in [0, 1).
    eps: at least 0.
    weight_decay: at least 0: weight_decay p is added to the gradient.
    decoupled_weight_decay: p is multiplied by 1 - d lr weight_decay instead.
    d0: above 0, the initial d, which should be too small.
    growth_rate: the largest factor by which d may grow per step, at least 1.
    bias_correction: correct Adam's averages.
    options: see `FusedOptimizer`, except cautious and cautious_weight_decay.

    The defaults are those of the authors' code. Memory and errors are as for `Prodigy`, which
    adapts faster.

    `rumus.optim.rules.dadapt_adam`. Defazio, Mishchenko: arXiv:2301.07733.

    >>> from rumus.optim import DAdaptAdam
    >>> from rumus.tensor import Parameter
    >>> w = Parameter([1.0, -2.0])
    >>> optimizer = DAdaptAdam([w])
    >>> optimizer.step((w * w).sum().backward())
    >>> f"{optimizer.d.item():.0e}"
    '1e-06'
    """

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1.0,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: Hyper = 0.0,
        decoupled_weight_decay: bool = False,
        d0: float = 1e-6,
        growth_rate: float = math.inf,
        bias_correction: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            parameters,
            rules.dadapt_adam_decoupled if decoupled_weight_decay else rules.dadapt_adam,
            lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            d0=d0,
            growth_rate=growth_rate,
            bias_correction=bias_correction,
            **options,
        )
