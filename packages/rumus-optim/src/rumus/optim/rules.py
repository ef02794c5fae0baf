"""Update rules: each optimizer's mathematics, as one function of expressions.

A rule gets a parameter `p`, its gradient `g`, its state by name and, keyword-only, scalars; `t` is
the number of the step, 1 at the first. It returns the new values by the same names. What depends
on scalars alone, as `1 - beta2**t`, is computed on the host in float64 and costs nothing a
parameter. The letters are those of the papers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from rumus.tensor import Expr, maximum, sqrt, where

Update: TypeAlias = Mapping[str, Expr]
Rule: TypeAlias = Callable[..., Update]


def sgd(p: Expr, g: Expr, *, lr: Expr) -> Update:
    """p = p - lr g. Robbins, Monro: "A stochastic approximation method", 1951."""
    return {"p": p - lr * g}


def sgd_momentum(
    p: Expr, g: Expr, b: Expr, *, t: Expr, lr: Expr, momentum: Expr, dampening: Expr
) -> Update:
    """b = momentum b + (1 - dampening) g, at the first step b = g;  p = p - lr b.

    Polyak: "Some methods of speeding up the convergence of iteration methods", 1964, with the
    learning rate outside of the velocity as in Sutskever et al., ICML 2013, section 2.
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


def adam(
    p: Expr, g: Expr, m: Expr, v: Expr, *, t: Expr, lr: Expr, beta1: Expr, beta2: Expr, eps: Expr
) -> Update:
    """m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;

    p = p - lr m_hat / (sqrt(v_hat) + eps),  m_hat = m / (1 - beta1^t),  v_hat = v / (1 - beta2^t).

    Kingma, Ba: arXiv:1412.6980, algorithm 1. Numerator and denominator are multiplied by
    sqrt(1 - beta2^t), as section 2 suggests: the same number, with one division less.
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    return {"p": p - _adam_update(m, v, t, lr, beta1, beta2, eps), "m": m, "v": v}


def amsgrad(
    p: Expr,
    g: Expr,
    m: Expr,
    v: Expr,
    v_max: Expr,
    *,
    t: Expr,
    lr: Expr,
    beta1: Expr,
    beta2: Expr,
    eps: Expr,
) -> Update:
    """Adam with v_max = max(v_max, v) in the place of v.

    Reddi, Kale, Kumar: arXiv:1904.09237, algorithm 2, with Adam's bias corrections.
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    v_max = maximum(v_max, v)
    p = p - _adam_update(m, v_max, t, lr, beta1, beta2, eps)
    return {"p": p, "m": m, "v": v, "v_max": v_max}


def _adam_update(m: Expr, v: Expr, t: Expr, lr: Expr, beta1: Expr, beta2: Expr, eps: Expr) -> Expr:
    root = sqrt(1 - beta2**t)
    return lr * root / (1 - beta1**t) * (m / (sqrt(v) + eps * root))


def adamw(
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
) -> Update:
    """p = p (1 - lr weight_decay), then Adam.

    Loshchilov, Hutter: arXiv:1711.05101, algorithm 2, the decay multiplied by the learning rate.
    """
    return adam(p * (1 - lr * weight_decay), g, m, v, t=t, lr=lr, beta1=beta1, beta2=beta2, eps=eps)


def adamw_amsgrad(
    p: Expr,
    g: Expr,
    m: Expr,
    v: Expr,
    v_max: Expr,
    *,
    t: Expr,
    lr: Expr,
    beta1: Expr,
    beta2: Expr,
    eps: Expr,
    weight_decay: Expr,
) -> Update:
    """p = p (1 - lr weight_decay), then AMSGrad."""
    p = p * (1 - lr * weight_decay)
    return amsgrad(p, g, m, v, v_max, t=t, lr=lr, beta1=beta1, beta2=beta2, eps=eps)
