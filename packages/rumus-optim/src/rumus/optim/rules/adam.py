"""Adam, and its variants that change the average, the bound or the bias correction."""

from __future__ import annotations

from typing import TypeVar

from rumus.optim.rules.denominator import denominator
from rumus.optim.rules.rule import Update
from rumus.tensor import Expr, maximum, sqrt, where

N = TypeVar("N", float, Expr)


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
    return {"p": p - adam_update(m, v, t, lr, beta1, beta2, eps), "m": m, "v": v}


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
    """Adam with v_max = max(v_max, v) in place of v.

    Reddi, Kale, Kumar: arXiv:1904.09237, algorithm 2, with Adam's bias corrections.
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    v_max = maximum(v_max, v)
    p = p - adam_update(m, v_max, t, lr, beta1, beta2, eps)
    return {"p": p, "m": m, "v": v, "v_max": v_max}


def adam_update(m: Expr, v: Expr, t: Expr, lr: Expr, beta1: Expr, beta2: Expr, eps: Expr) -> Expr:
    """Return lr m_hat / (sqrt(v_hat) + eps) of `adam`."""
    root = sqrt(1 - beta2**t)
    return lr * root / (1 - beta1**t) * (m / denominator(v, eps * root))


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


def adamax(
    p: Expr, g: Expr, m: Expr, u: Expr, *, t: Expr, lr: Expr, beta1: Expr, beta2: Expr, eps: Expr
) -> Update:
    """m = beta1 m + (1 - beta1) g;  u = max(beta2 u, |g| + eps);  p = p - lr / (1 - beta1^t) m / u.

    Kingma, Ba: arXiv:1412.6980, algorithm 2; eps, which it lacks, keeps u from 0.
    """
    m = beta1 * m + (1 - beta1) * g
    u = maximum(beta2 * u, abs(g) + eps)
    return {"p": p - lr / (1 - beta1**t) * (m / u), "m": m, "u": u}


def nadam(
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
    momentum_decay: Expr,
    mu_product: Expr,
) -> Update:
    """mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2);  mu_product = mu_1 ... mu_t;

    m, v as in `adam`;  d = sqrt(v / (1 - beta2^t)) + eps;
    p = p - lr (1 - mu_t) / (1 - mu_product) g / d
          - lr mu_(t + 1) / (1 - mu_product mu_(t + 1)) m / d.

    Dozat: "Incorporating Nesterov momentum into Adam", ICLR workshop 2016, algorithm 2; 0.96 is the
    constant of Sutskever et al., ICML 2013.
    """
    mu, mu_next = _mu(t, beta1, momentum_decay), _mu(t + 1, beta1, momentum_decay)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    root = sqrt(1 - beta2**t)
    ahead = lr * root * (1 - mu) / (1 - mu_product) * g
    ahead = ahead + lr * root * mu_next / (1 - mu_product * mu_next) * m
    return {"p": p - ahead / denominator(v, eps * root), "m": m, "v": v}


def mu_product(before: float, *, t: float, beta1: float, momentum_decay: float) -> float:
    """Return the product of NAdam's mu up to step t; `before` is the product up to step t - 1."""
    return before * _mu(t, beta1, momentum_decay)


def _mu(t: N, beta1: N, momentum_decay: N) -> N:
    damped: N = 1 - 0.5 * 0.96 ** (t * momentum_decay)
    return beta1 * damped


def nadam_decoupled(
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
    momentum_decay: Expr,
    mu_product: Expr,
    weight_decay: Expr,
) -> Update:
    """p = p (1 - lr weight_decay), then NAdam."""
    p = p * (1 - lr * weight_decay)
    return nadam(
        p, g, m, v, t=t, lr=lr, beta1=beta1, beta2=beta2, eps=eps,
        momentum_decay=momentum_decay, mu_product=mu_product,
    )  # fmt: skip


def radam(
    p: Expr, g: Expr, m: Expr, v: Expr, *, t: Expr, lr: Expr, beta1: Expr, beta2: Expr, eps: Expr
) -> Update:
    """m, v as in `adam`;  m_hat = m / (1 - beta1^t);  rho_inf = 2 / (1 - beta2) - 1;

    rho = rho_inf - 2 t beta2^t / (1 - beta2^t): about the number of gradients in v.
    If rho > 5: p = p - lr r m_hat sqrt(1 - beta2^t) / (sqrt(v) + eps), with
        r = sqrt((rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho));
    else v is not reliable yet: p = p - lr m_hat.

    Liu et al.: arXiv:1908.03265, algorithm 2; where the paper has rho > 4, its authors' code and
    PyTorch have 5.
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
    r = sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
    adaptive = where(rho > 5, r * sqrt(1 - beta2**t), 0.0)
    plain = where(rho > 5, 0.0, 1.0)  # the branches differ only in scalars: no array is compared
    share = adaptive / denominator(v, eps + plain) + plain  # eps + 1, since eps and v may be 0
    return {"p": p - lr / (1 - beta1**t) * m * share, "m": m, "v": v}


def radam_decoupled(
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
    """p = p (1 - lr weight_decay), then RAdam."""
    p = p * (1 - lr * weight_decay)
    return radam(p, g, m, v, t=t, lr=lr, beta1=beta1, beta2=beta2, eps=eps)
