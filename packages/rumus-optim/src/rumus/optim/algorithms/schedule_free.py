"""Schedule-free optimizers."""

from __future__ import annotations

from typing import Unpack

from rumus.optim import rules
from rumus.optim.fused.averaging_optimizer import AveragingOptimizer
from rumus.optim.options.group import Claimable, M_co
from rumus.optim.options.hyperparameter import Hyper
from rumus.optim.options.options import Options
from rumus.optim.options.running import Running


class ScheduleFreeSGD(AveragingOptimizer[M_co]):
    """Stochastic gradient descent with an average in place of a schedule.

    z = z - lr (g + weight_decay y);  x = (1 - c) x + c z;  y = (1 - beta1) z + beta1 x

    The parameters are y, where the gradient is taken; the result is the average x, which
    `with optimizer.eval_params():` swaps in for its block. Evaluate, and save the model for
    deployment, inside it.

    parameters: to own; see `Optimizer`.
    lr: at least 0.
    beta1: the position of y between z and x, in [0, 1); it replaces momentum.
    weight_decay: at least 0.
    warmup_steps: the number of steps over which lr grows from 0.
    r: at least 0, see weight_lr_power.
    weight_lr_power: at least 0; a step has the weight t^r lr^weight_lr_power in the average, with
        the largest lr so far. If `set` changes lr, earlier steps count as if it had always been so;
        a schedule avoids that.
    options: see `FusedOptimizer`.

    The defaults are those of the authors' code. ValueError for a value out of range.

    `rumus.optim.rules.schedule_free_sgd`. Defazio et al.: arXiv:2405.15682.
    """

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1.0,
        *,
        beta1: float = 0.9,
        weight_decay: Hyper = 0.0,
        warmup_steps: float = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            parameters,
            rules.schedule_free_sgd,
            lr,
            beta1=beta1,
            weight_decay=weight_decay,
            warmup_steps=warmup_steps,
            r=r,
            weight_lr_power=weight_lr_power,
            running=_weights(),
            point=rules.schedule_free_point,
            **options,
        )


class ScheduleFreeAdamW(AveragingOptimizer[M_co]):
    """AdamW with an average in place of a schedule.

    v = beta2 v + (1 - beta2) g^2;  z = z - lr (g / (sqrt(v_hat) + eps) + weight_decay y);
    x = (1 - c) x + c z;  y = (1 - beta1) z + beta1 x

    The parameters are y, where the gradient is taken; the result is the average x, which
    `with optimizer.eval_params():` swaps in for its block. Evaluate, and save the model for
    deployment, inside it.

    parameters: to own; see `Optimizer`.
    lr: at least 0.
    betas: the position of y between z and x, and the decay rate of v, each in [0, 1).
    eps: at least 0, outside the root.
    weight_decay: at least 0.
    warmup_steps: the number of steps over which lr grows from 0.
    r: at least 0, see weight_lr_power.
    weight_lr_power: at least 0; a step has the weight t^r lr^weight_lr_power in the average, with
        the largest lr so far. If `set` changes lr, earlier steps count as if it had always been so;
        a schedule avoids that.
    options: see `FusedOptimizer`.

    The defaults are those of the authors' code. ValueError for a value out of range.

    `rumus.optim.rules.schedule_free_adamw`. Defazio et al.: arXiv:2405.15682.
    """

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 2.5e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: Hyper = 1e-8,
        weight_decay: Hyper = 0.0,
        warmup_steps: float = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            parameters,
            rules.schedule_free_adamw,
            lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            warmup_steps=warmup_steps,
            r=r,
            weight_lr_power=weight_lr_power,
            running=_weights(),
            point=rules.schedule_free_point,
            **options,
        )


def _weights() -> Running:
    return Running(
        largest_lr=(0.0, rules.largest_lr),
        weight=(0.0, rules.step_weight),
        weight_sum=(0.0, rules.step_weight_sum),
    )
