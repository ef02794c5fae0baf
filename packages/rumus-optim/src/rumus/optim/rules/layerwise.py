"""Rules whose step for each tensor is as large as its norm says.

The sums of squares are given: one value for each tensor, measured before the step. See
`rumus.optim.algorithms.trust_ratio`.
"""

from __future__ import annotations

from rumus.optim.rules.rule import Update
from rumus.tensor import Expr, sqrt, where


def lamb(
    p: Expr,
    g: Expr,
    m: Expr,
    v: Expr,
    p_squares: Expr,
    u_squares: Expr,
    *,
    t: Expr,
    lr: Expr,
    beta1: Expr,
    beta2: Expr,
    eps: Expr,
    weight_decay: Expr,
    adapt: Expr,
) -> Update:
    """p = p - lr r u, u as in `lamb_direction`;  r = norm(p) / norm(u), 1 if one of them is 0.

    You et al.: arXiv:1904.00962, algorithm 2 with phi(x) = x. adapt: 1; 0 has r = 1.
    """
    u, m, v = _direction(p, g, m, v, t, beta1, beta2, eps, weight_decay)
    ratio = _ratio(sqrt(p_squares), sqrt(u_squares))
    return {"p": p - lr * (adapt * ratio + (1 - adapt)) * u, "m": m, "v": v}


def lamb_direction(
    p: Expr,
    g: Expr,
    m: Expr,
    v: Expr,
    *,
    t: Expr,
    beta1: Expr,
    beta2: Expr,
    eps: Expr,
    weight_decay: Expr,
) -> Expr:
    """m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;

    u = m_hat / (sqrt(v_hat) + eps) + weight_decay p,  with m_hat and v_hat as in `adam`.
    """
    return _direction(p, g, m, v, t, beta1, beta2, eps, weight_decay)[0]


def _direction(
    p: Expr,
    g: Expr,
    m: Expr,
    v: Expr,
    t: Expr,
    beta1: Expr,
    beta2: Expr,
    eps: Expr,
    weight_decay: Expr,
) -> tuple[Expr, Expr, Expr]:
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    root = sqrt(1 - beta2**t)
    u = root / (1 - beta1**t) * (m / (sqrt(v) + eps * root)) + weight_decay * p
    return u, m, v


def lars(
    p: Expr,
    g: Expr,
    b: Expr,
    p_squares: Expr,
    g_squares: Expr,
    *,
    lr: Expr,
    momentum: Expr,
    weight_decay: Expr,
    trust_coefficient: Expr,
    adapt: Expr,
) -> Update:
    """b = momentum b + lr r (g + weight_decay p);  p = p - b;

    r = trust_coefficient norm(p) / (norm(g) + weight_decay norm(p)), 1 if one of the norms is 0.

    You, Gitman, Ginsburg: arXiv:1708.03888, algorithm 1. adapt: 1; 0 has r = 1.
    """
    p_norm, g_norm = sqrt(p_squares), sqrt(g_squares)
    ratio = _ratio(p_norm, g_norm, trust_coefficient, weight_decay)
    b = momentum * b + lr * (adapt * ratio + (1 - adapt)) * (g + weight_decay * p)
    return {"p": p - b, "b": b}


def _ratio(
    p_norm: Expr, norm: Expr, coefficient: Expr | float = 1.0, decay: Expr | float = 0.0
) -> Expr:
    """coefficient p_norm / (norm + decay p_norm), 1 where one of the norms is 0."""
    ratio = coefficient * p_norm / (norm + decay * p_norm)
    return where(p_norm <= 0, 1.0, where(norm <= 0, 1.0, ratio))
