"""Rules that estimate Adam's second moment differently."""

from __future__ import annotations

from rumus.optim.rules.adam import adam_update
from rumus.optim.rules.denominator import denominator
from rumus.optim.rules.rule import Update
from rumus.tensor import Expr, clip, maximum, sign, sqrt, where


def adabelief(
    p: Expr,
    g: Expr,
    m: Expr,
    s: Expr,
    *,
    t: Expr,
    lr: Expr,
    beta1: Expr,
    beta2: Expr,
    eps: Expr,
    weight_decay: Expr,
) -> Update:
    """p = p (1 - lr weight_decay);  m = beta1 m + (1 - beta1) g;

    s = beta2 s + (1 - beta2) (g - m)^2 + eps;  then Adam with s in place of v.

    Zhuang et al.: arXiv:2010.07468, algorithm 2.
    """
    m = beta1 * m + (1 - beta1) * g
    apart = g - m
    s = beta2 * s + (1 - beta2) * apart * apart + eps
    p = p - lr * weight_decay * p - adam_update(m, s, t, lr, beta1, beta2, eps)
    return {"p": p, "m": m, "s": s}


def yogi(
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
    initial_accumulator_value: Expr,
) -> Update:
    """Adam with v = v - (1 - beta2) sign(v - g^2) g^2, from initial_accumulator_value on.

    Zaheer et al.: "Adaptive methods for nonconvex optimization", NeurIPS 2018, algorithm 2, with
    Adam's bias corrections, which the paper omits and TensorFlow Addons and optax include; optax
    also starts m at initial_accumulator_value.
    """
    v = v + where(t <= 1, initial_accumulator_value, 0.0)
    m = beta1 * m + (1 - beta1) * g
    v = v - (1 - beta2) * sign(v - g * g) * (g * g)
    return {"p": p - adam_update(m, v, t, lr, beta1, beta2, eps), "m": m, "v": v}


def adan(
    p: Expr,
    g: Expr,
    m: Expr,
    d: Expr,
    n: Expr,
    g_before: Expr,
    *,
    t: Expr,
    lr: Expr,
    beta1: Expr,
    beta2: Expr,
    beta3: Expr,
    eps: Expr,
    weight_decay: Expr,
) -> Update:
    """delta = g - g_before, 0 at the first step;  m = beta1 m + (1 - beta1) g;

    d = beta2 d + (1 - beta2) delta;  n = beta3 n + (1 - beta3) (g + beta2 delta)^2;
    p = (p - lr (m_hat + beta2 d_hat) / (sqrt(n_hat) + eps)) / (1 + lr weight_decay),
    where m_hat = m / (1 - beta1^t), and d_hat and n_hat likewise.

    Xie et al.: arXiv:2208.06677, algorithm 1; its betas are 1 minus these. The bias corrections are
    those of the authors' code.
    """
    delta = where(t <= 1, 0.0, 1.0) * (g - g_before)
    m = beta1 * m + (1 - beta1) * g
    d = beta2 * d + (1 - beta2) * delta
    ahead = g + beta2 * delta
    n = beta3 * n + (1 - beta3) * ahead * ahead
    root = sqrt(1 - beta3**t)
    step = lr * root / (1 - beta1**t) * m + lr * root * beta2 / (1 - beta2**t) * d
    p = p - step / denominator(n, eps * root)
    decay = lr * weight_decay
    p = p - decay / (1 + decay) * p  # p / (1 + decay), but a tiny decay survives float32
    return {"p": p, "m": m, "d": d, "n": n, "g_before": g}


def adopt(
    p: Expr, g: Expr, m: Expr, v: Expr, *, t: Expr, lr: Expr, beta1: Expr, beta2: Expr, eps: Expr
) -> Update:
    """c = (t - 1)^(1/4);  m = beta1 m + (1 - beta1) clip(g / max(sqrt(v), eps), -c, c);

    p = p - lr m;  v = beta2 v + (1 - beta2) g^2, at the first step v = g^2.
    The divisor is the previous step's v; the first step changes only v, since c is 0 there.

    Taniguchi et al.: arXiv:2411.02853, algorithm 2, which counts from 0.
    """
    c = (t - 1) ** 0.25
    m = beta1 * m + (1 - beta1) * clip(g / maximum(sqrt(v), eps), -c, c)
    v = beta2 * v + where(t <= 1, 1.0, 1 - beta2) * g * g
    return {"p": p - lr * m, "m": m, "v": v}


def adopt_decoupled(
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
    """p = p (1 - lr weight_decay) from the second step on, then ADOPT."""
    p = p - lr * weight_decay * where(t <= 1, 0.0, 1.0) * p
    return adopt(p, g, m, v, t=t, lr=lr, beta1=beta1, beta2=beta2, eps=eps)


def laprop(
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
    """v = beta2 v + (1 - beta2) g^2;  m = beta1 m + (1 - beta1) g / (sqrt(v_hat) + eps);

    p = p (1 - lr weight_decay) - lr m / (1 - beta1^t),  v_hat = v / (1 - beta2^t).

    Ziyin, Wang, Ueda: arXiv:2002.04839, algorithm 1; the decay is decoupled as in AdamW.
    """
    root = sqrt(1 - beta2**t)
    v = beta2 * v + (1 - beta2) * g * g
    m = beta1 * m + (1 - beta1) * root * (g / denominator(v, eps * root))
    return {"p": p * (1 - lr * weight_decay) - lr / (1 - beta1**t) * m, "m": m, "v": v}


def ademamix(
    p: Expr,
    g: Expr,
    m: Expr,
    v: Expr,
    slow: Expr,
    *,
    t: Expr,
    lr: Expr,
    beta1: Expr,
    beta2: Expr,
    beta3: Expr,
    alpha: Expr,
    eps: Expr,
    weight_decay: Expr,
) -> Update:
    """m, v as in `adam`;  slow = beta3 slow + (1 - beta3) g, without a bias correction;

    p = p (1 - lr weight_decay) - lr (m_hat + alpha slow) / (sqrt(v_hat) + eps).

    Pagliardini, Ablin, Grangier: arXiv:2409.03137, algorithm 1.
    """
    m = beta1 * m + (1 - beta1) * g
    slow = beta3 * slow + (1 - beta3) * g
    v = beta2 * v + (1 - beta2) * g * g
    root = sqrt(1 - beta2**t)
    mixed = root / (1 - beta1**t) * m + root * alpha * slow
    step = lr * mixed / denominator(v, eps * root)
    return {"p": p * (1 - lr * weight_decay) - step, "m": m, "v": v, "slow": slow}
