"""Rules that divide by the size of past gradients: Adagrad and its descendants."""

from __future__ import annotations

from rumus.optim.rules.denominator import at_least, denominator
from rumus.optim.rules.rule import Update
from rumus.tensor import Expr, maximum, sqrt, where


def adagrad(
    p: Expr,
    g: Expr,
    s: Expr,
    *,
    t: Expr,
    lr: Expr,
    lr_decay: Expr,
    initial_accumulator_value: Expr,
    eps: Expr,
) -> Update:
    """s = s + g^2, from initial_accumulator_value on;

    p = p - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps).

    Duchi, Hazan, Singer: "Adaptive subgradient methods for online learning and stochastic
    optimization", JMLR 2011, figure 1 (the diagonal version).
    """
    s = s + where(t <= 1, initial_accumulator_value, 0.0) + g * g
    return {"p": p - lr / (1 + (t - 1) * lr_decay) * (g / denominator(s, eps)), "s": s}


def rmsprop(p: Expr, g: Expr, v: Expr, *, lr: Expr, alpha: Expr, eps: Expr) -> Update:
    """v = alpha v + (1 - alpha) g^2;  p = p - lr g / (sqrt(v) + eps).

    Tieleman, Hinton: "Neural networks for machine learning", lecture 6.5, 2012.
    """
    v = alpha * v + (1 - alpha) * g * g
    return {"p": p - lr * (g / denominator(v, eps)), "v": v}


def rmsprop_momentum(
    p: Expr, g: Expr, v: Expr, b: Expr, *, lr: Expr, alpha: Expr, eps: Expr, momentum: Expr
) -> Update:
    """v = alpha v + (1 - alpha) g^2;  b = momentum b + g / (sqrt(v) + eps);  p = p - lr b."""
    v = alpha * v + (1 - alpha) * g * g
    b = momentum * b + g / denominator(v, eps)
    return {"p": p - lr * b, "v": v, "b": b}


def rmsprop_centered(
    p: Expr, g: Expr, v: Expr, m: Expr, *, lr: Expr, alpha: Expr, eps: Expr
) -> Update:
    """v = alpha v + (1 - alpha) g^2;  m = alpha m + (1 - alpha) g;

    p = p - lr g / (sqrt(v - m^2) + eps).

    Graves: arXiv:1308.0850, equations 38 to 41, with eps outside the root.
    """
    v = alpha * v + (1 - alpha) * g * g
    m = alpha * m + (1 - alpha) * g
    return {"p": p - lr * (g / (_deviation(v, m) + at_least(eps))), "v": v, "m": m}


def rmsprop_centered_momentum(
    p: Expr,
    g: Expr,
    v: Expr,
    m: Expr,
    b: Expr,
    *,
    lr: Expr,
    alpha: Expr,
    eps: Expr,
    momentum: Expr,
) -> Update:
    """v, m as in `rmsprop_centered`;  b = momentum b + g / (sqrt(v - m^2) + eps);  p = p - lr b."""
    v = alpha * v + (1 - alpha) * g * g
    m = alpha * m + (1 - alpha) * g
    b = momentum * b + g / (_deviation(v, m) + at_least(eps))
    return {"p": p - lr * b, "v": v, "m": m, "b": b}


def _deviation(v: Expr, m: Expr) -> Expr:
    """sqrt(v - m^2): a variance, which rounding may push below 0 if gradients hardly change."""
    return sqrt(maximum(v - m * m, 0.0))


def adadelta(p: Expr, g: Expr, v: Expr, u: Expr, *, lr: Expr, rho: Expr, eps: Expr) -> Update:
    """v = rho v + (1 - rho) g^2;  d = sqrt(u + eps) / sqrt(v + eps) g;

    u = rho u + (1 - rho) d^2;  p = p - lr d.

    Zeiler: arXiv:1212.5701, algorithm 1, which has no lr.
    """
    v = rho * v + (1 - rho) * g * g
    d = sqrt((u + eps) / (v + eps)) * g
    u = rho * u + (1 - rho) * d * d
    return {"p": p - lr * d, "v": v, "u": u}
