"""Schedule-free rules: an average of the points replaces a schedule.

There are three points: z, which takes the steps; x, the average of all z and the result; and y in
between, where the gradient is taken. The parameter is y, and the state is d = z - x, which starts
at 0; the other points follow from them: x = y - (1 - beta1) d, z = y + beta1 d.

Defazio et al.: "The road less scheduled", arXiv:2405.15682.
"""

from __future__ import annotations

from rumus.optim.rules.denominator import denominator
from rumus.optim.rules.rule import Update
from rumus.tensor import Expr, minimum, sqrt, where


def schedule_free_sgd(
    p: Expr,
    g: Expr,
    d: Expr,
    *,
    t: Expr,
    lr: Expr,
    beta1: Expr,
    weight_decay: Expr,
    warmup_steps: Expr,
    weight: Expr,
    weight_sum: Expr,
) -> Update:
    """z = z - lr (g + weight_decay y);  x = (1 - c) x + c z;  y = (1 - beta1) z + beta1 x;

    c = weight / weight_sum;  lr grows to its value during warmup_steps;  weight and weight_sum are
    those of `step_weight` and `step_weight_sum`.

    Defazio et al.: arXiv:2405.15682, equations 3 to 5.
    """
    lr = _warmed(lr, t, warmup_steps)
    c = _share(weight, weight_sum)
    return _stepped(p, d, lr * (g + weight_decay * p), beta1, c)


def schedule_free_adamw(
    p: Expr,
    g: Expr,
    d: Expr,
    v: Expr,
    *,
    t: Expr,
    lr: Expr,
    beta1: Expr,
    beta2: Expr,
    eps: Expr,
    weight_decay: Expr,
    warmup_steps: Expr,
    weight: Expr,
    weight_sum: Expr,
) -> Update:
    """v = beta2 v + (1 - beta2) g^2;  u = g / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay y;

    z = z - lr u;  x = (1 - c) x + c z;  y = (1 - beta1) z + beta1 x;
    c = weight / weight_sum;  lr grows to its value during warmup_steps;  weight and weight_sum are
    those of `step_weight` and `step_weight_sum`.

    Defazio et al.: arXiv:2405.15682, algorithm 1.
    """
    lr = _warmed(lr, t, warmup_steps)
    c = _share(weight, weight_sum)
    v = beta2 * v + (1 - beta2) * g * g
    root = sqrt(1 - beta2**t)
    step = lr * root * (g / denominator(v, eps * root)) + lr * weight_decay * p
    return {**_stepped(p, d, step, beta1, c), "v": v}


def _stepped(y: Expr, d: Expr, step: Expr, beta1: Expr, c: Expr) -> Update:
    """y and d = z - x after z = z - step;  x = (1 - c) x + c z."""
    ahead = d - step  # the new z - the old x
    p = y - (1 - beta1) * d + (1 - beta1 * (1 - c)) * ahead
    return {"p": p, "d": (1 - c) * ahead}


def _warmed(lr: Expr, t: Expr, warmup_steps: Expr) -> Expr:
    return lr * minimum(t / warmup_steps, 1.0)  # t / 0 is infinity


def _share(weight: Expr, weight_sum: Expr) -> Expr:
    return where(weight_sum > 0, weight / weight_sum, 0.0)


def largest_lr(before: float, *, t: float, lr: float, warmup_steps: float) -> float:
    """Return the largest learning rate so far."""
    return max(before, lr * min(1.0, t / warmup_steps if warmup_steps else 1.0))


def step_weight(
    before: float, *, t: float, largest_lr: float, r: float, weight_lr_power: float
) -> float:
    """Return the weight of step t's z in the average: t^r largest_lr^weight_lr_power."""
    return float(t**r * largest_lr**weight_lr_power)


def step_weight_sum(before: float, *, weight: float) -> float:
    """Return the sum of the weights so far."""
    return before + weight


def schedule_free_point(p: Expr, d: Expr, *, beta1: Expr) -> Expr:
    """Return the average x = y - (1 - beta1) d."""
    return p - (1 - beta1) * d
