"""Rules that scale each tensor's step by the tensor's norm."""

from __future__ import annotations

from rumus.optim.rules.denominator import denominator
from rumus.optim.rules.rule import Update
from rumus.tensor import Expr, sqrt, where


def lamb(
    p: Expr,
    g: Expr,
    m: Expr,
    v: Expr,
    *,
    t: Expr,
    lr: Expr,
    beta1: Expr,
    beta2: Expr,
    eps: Expr,
    weight_decay: Expr,
    adapt: Expr,
) -> Update:
    """m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;

    u = m_hat / (sqrt(v_hat) + eps) + weight_decay p,  with m_hat and v_hat as in `adam`;
    p = p - lr r u;  r = norm(p) / norm(u), 1 if one of them is 0.

    You et al.: arXiv:1904.00962, algorithm 2 with phi(x) = x. adapt: 1, or 0 for r = 1.
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    root = sqrt(1 - beta2**t)
    u = root / (1 - beta1**t) * (m / denominator(v, eps * root)) + weight_decay * p
    ratio = _ratio(p.tensor_norm(), u.tensor_norm())
    return {"p": p - lr * (adapt * ratio + (1 - adapt)) * u, "m": m, "v": v}


def lars(
    p: Expr,
    g: Expr,
    b: Expr,
    *,
    lr: Expr,
    momentum: Expr,
    weight_decay: Expr,
    trust_coefficient: Expr,
    adapt: Expr,
) -> Update:
    """b = momentum b + lr r (g + weight_decay p);  p = p - b;

    r = trust_coefficient norm(p) / (norm(g) + weight_decay norm(p)), 1 if one of the norms is 0.

    You, Gitman, Ginsburg: arXiv:1708.03888, algorithm 1. adapt: 1, or 0 for r = 1.
    """
    ratio = _ratio(p.tensor_norm(), g.tensor_norm(), trust_coefficient, weight_decay)
    b = momentum * b + lr * (adapt * ratio + (1 - adapt)) * (g + weight_decay * p)
    return {"p": p - b, "b": b}


def _ratio(
    p_norm: Expr, norm: Expr, coefficient: Expr | float = 1.0, decay: Expr | float = 0.0
) -> Expr:
    """coefficient p_norm / (norm + decay p_norm), 1 where one of the norms is 0."""
    ratio = coefficient * p_norm / (norm + decay * p_norm)
    return where(p_norm <= 0, 1.0, where(norm <= 0, 1.0, ratio))
