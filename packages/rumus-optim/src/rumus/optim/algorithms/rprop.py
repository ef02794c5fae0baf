"""Rprop."""

from __future__ import annotations

from typing import Unpack

from rumus.optim import rules
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import Claimable, M_co
from rumus.optim.options.hyperparameter import Hyper, checked
from rumus.optim.options.options import Options


class Rprop(FusedOptimizer[M_co]):
    """Resilient propagation: a step size per element; only the gradient's sign counts.

    s = sign(g) sign(g_before);  step = step (eta_plus, 1 or eta_minus for s = 1, 0 or -1);
    g = 0 where s = -1;  p = p - sign(g) step

    Use it for full-batch gradients; with small batches the signs are noise.

    parameters: to own; see `Optimizer`.
    lr: at least 0, the initial step size.
    etas: the factors by which a step shrinks, in [0, 1), and grows, at least 1.
    step_sizes: the smallest and the largest step, at least 0.
    options: see `FusedOptimizer`.

    The defaults are the paper's; lr is PyTorch's. ValueError for a value out of range.

    `rumus.optim.rules.rprop`. Riedmiller, Braun, ICNN 1993.
    """

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1e-2,
        *,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
        **options: Unpack[Options],
    ) -> None:
        sizes = checked({"step_sizes": step_sizes})
        if step_sizes[0] > step_sizes[1]:
            raise ValueError(f"step_sizes must be (smallest, largest), not {step_sizes}")
        super().__init__(
            parameters,
            rules.rprop,
            lr,
            etas=etas,
            step_min=sizes["step_min"],
            step_max=sizes["step_max"],
            **options,
        )
