"""Rules that step along the gradient, its average, or its sign."""

from __future__ import annotations

from rumus.optim.rules.rule import Update
from rumus.tensor import Expr, clip, maximum, sign, where


def sgd(p: Expr, g: Expr, *, lr: Expr) -> Update:
    """p = p - lr g. Robbins, Monro: "A stochastic approximation method", 1951."""
    return {"p": p - lr * g}


def sgd_momentum(
    p: Expr, g: Expr, b: Expr, *, t: Expr, lr: Expr, momentum: Expr, dampening: Expr
) -> Update:
    """b = momentum b + (1 - dampening) g, at the first step b = g;  p = p - lr b.

    Polyak: "Some methods of speeding up the convergence of iteration methods", 1964, with the
    learning rate outside the velocity as in Sutskever et al., ICML 2013, section 2.
    """
    b = momentum * b + where(t <= 1, 1.0, 1 - dampening) * g
    return {"p": p - lr * b, "b": b}


def sgd_nesterov(p: Expr, g: Expr, b: Expr, *, lr: Expr, momentum: Expr) -> Update:
    """b = momentum b + g;  p = p - lr (g + momentum b).

    Sutskever, Martens, Dahl, Hinton: "On the importance of initialization and momentum in deep
    learning", ICML 2013, section 2.
    """
    b = momentum * b + g
    return {"p": p - lr * (g + momentum * b), "b": b}


def asgd(
    p: Expr, g: Expr, ax: Expr, *, t: Expr, lr: Expr, lambd: Expr, alpha: Expr, t0: Expr
) -> Update:
    """eta = lr / (1 + lambd lr (t - 1))^alpha;  p = p (1 - lambd eta) - eta g;

    mu = 1 / max(1, t - 1 - t0);  ax = (1 - mu) ax + mu p: the average of p from step t0 + 1 on.

    Polyak, Juditsky: "Acceleration of stochastic approximation by averaging", 1992, with the decay
    of the learning rate of Bottou: "Stochastic gradient descent tricks", 2012, section 5.
    """
    eta = lr / (1 + lambd * lr * (t - 1)) ** alpha
    mu = 1 / maximum(t - 1 - t0, 1.0)
    p = p * (1 - lambd * eta) - eta * g
    return {"p": p, "ax": (1 - mu) * ax + mu * p}


def average(p: Expr, ax: Expr) -> Expr:
    """Return the average of `asgd`."""
    return ax


def rprop(
    p: Expr,
    g: Expr,
    g_before: Expr,
    step: Expr,
    *,
    t: Expr,
    lr: Expr,
    eta_minus: Expr,
    eta_plus: Expr,
    step_min: Expr,
    step_max: Expr,
) -> Update:
    """s = sign(g) sign(g_before);  step = step (eta_plus, 1 or eta_minus for s = 1, 0 or -1),

    kept in [step_min, step_max], lr at first;  g = 0 where s = -1;  p = p - sign(g) step.

    Riedmiller, Braun: "A direct adaptive method for faster backpropagation learning: the RPROP
    algorithm", ICNN 1993, without its backtracking: the iRprop- of Igel, Huesken, 2000.
    """
    s = sign(g) * sign(g_before)
    step = step + where(t <= 1, lr, 0.0)
    step = clip(step * where(s > 0, eta_plus, where(s < 0, eta_minus, 1.0)), step_min, step_max)
    g = where(s < 0, 0.0, g)
    return {"p": p - sign(g) * step, "g_before": g, "step": step}


def lion(
    p: Expr, g: Expr, m: Expr, *, lr: Expr, beta1: Expr, beta2: Expr, weight_decay: Expr
) -> Update:
    """c = beta1 m + (1 - beta1) g;  p = p - lr (sign(c) + weight_decay p);

    m = beta2 m + (1 - beta2) g.

    Chen et al.: arXiv:2302.06675, algorithm 2.
    """
    c = beta1 * m + (1 - beta1) * g
    p = p - lr * sign(c) - lr * weight_decay * p
    return {"p": p, "m": beta2 * m + (1 - beta2) * g}
