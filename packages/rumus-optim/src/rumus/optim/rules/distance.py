"""Rules that estimate their step size: d grows toward the distance from start to solution.

All parameters share d and the numbers that it is computed from. d starts at d0.
"""

from __future__ import annotations

from rumus.optim.rules.denominator import denominator
from rumus.optim.rules.rule import Update
from rumus.tensor import Expr, minimum, sqrt, where


def prodigy(
    p: Expr,
    g: Expr,
    m: Expr,
    v: Expr,
    s: Expr,
    p0: Expr,
    d: Expr,
    d_max: Expr,
    numerator: Expr,
    *,
    t: Expr,
    lr: Expr,
    beta1: Expr,
    beta2: Expr,
    beta3: Expr,
    eps: Expr,
    weight_decay: Expr,
    d0: Expr,
    d_coef: Expr,
    growth_rate: Expr,
    bias_correction: Expr,
    safeguard_warmup: Expr,
) -> Update:
    """r = d lr;  numerator = beta3 numerator + (d / d0) r <g, p0 - p>;

    m = beta1 m + d (1 - beta1) g;  v = beta2 v + d^2 (1 - beta2) g^2;
    s = beta3 s + (d / d0) r g;  d_hat = d_coef numerator / norm1(s);
    d_max = max(d_max, d_hat);  while d = d0, d = max(d, d_hat);  d = min(d_max, d growth_rate);
    p = p - r (m / (sqrt(v) + d eps) + weight_decay p), with r before and d after this step.

    p0: the initial p. <,> and norm1 are over all parameters. bias_correction: 1 multiplies lr by
    sqrt(1 - beta2^t) / (1 - beta1^t), 0 does not. safeguard_warmup: 1 leaves lr out of s.

    Mishchenko, Defazio: arXiv:2306.06101, algorithm 4, as in the authors' code.
    """
    lr = _corrected(lr, t, beta1, beta2, bias_correction)
    d, d_max, p0 = where(t > 1, d, d0), where(t > 1, d_max, d0), where(t > 1, p0, p)
    rate, relative = d * lr, d / d0
    numerator = beta3 * numerator + relative * rate * (g * (p0 - p)).global_sum()
    m = beta1 * m + d * (1 - beta1) * g
    v = beta2 * v + d * d * (1 - beta2) * g * g
    s = beta3 * s + relative * d * where(safeguard_warmup > 0, 1.0, lr) * g
    norm = s.abs().global_sum()
    d_hat = where(norm <= 0, d, d_coef * numerator / norm)  # NaN propagates to d
    d_max = d_max.maximum(d_hat)
    d = minimum(d_max, where(d <= d0, d.maximum(d_hat), d) * growth_rate)
    p = p - rate * (m / denominator(v, d * eps) + weight_decay * p)
    numbers = {"d": d, "d_max": d_max, "numerator": numerator}
    return {"p": p, "m": m, "v": v, "s": s, "p0": p0, **numbers}


def dadapt_adam(
    p: Expr,
    g: Expr,
    m: Expr,
    v: Expr,
    s: Expr,
    d: Expr,
    numerator: Expr,
    *,
    t: Expr,
    lr: Expr,
    beta1: Expr,
    beta2: Expr,
    eps: Expr,
    d0: Expr,
    growth_rate: Expr,
    bias_correction: Expr,
) -> Update:
    """r = d lr;  b = sqrt(beta2);

    numerator = b numerator + (1 - b) r <g, s / (sqrt(v) + eps)>, with s and v before this step;
    m = beta1 m + r (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;  s = b s + (1 - b) r g;
    d_hat = numerator / ((1 - b) norm1(s));  d = max(d, min(d_hat, d growth_rate));
    p = p - m / (sqrt(v) + eps).

    <,> and norm1 are over all parameters. bias_correction: see `prodigy`.

    Defazio, Mishchenko: arXiv:2301.07733, algorithm 5, as in the authors' code.
    """
    b = sqrt(beta2)
    d = where(t > 1, d, d0)
    rate = d * _corrected(lr, t, beta1, beta2, bias_correction)
    slope = (g * (s / denominator(v, eps))).global_sum()
    numerator = b * numerator + (1 - b) * rate * slope
    m = beta1 * m + (1 - beta1) * rate * g
    v = beta2 * v + (1 - beta2) * g * g
    s = b * s + (1 - b) * rate * g
    norm = s.abs().global_sum()
    d_hat = where(norm <= 0, d, numerator / ((1 - b) * norm))  # NaN propagates to d
    d = d.maximum(minimum(d_hat, d * growth_rate))
    p = p - m / denominator(v, eps)
    return {"p": p, "m": m, "v": v, "s": s, "d": d, "numerator": numerator}


def dadapt_adam_decoupled(
    p: Expr,
    g: Expr,
    m: Expr,
    v: Expr,
    s: Expr,
    d: Expr,
    numerator: Expr,
    *,
    t: Expr,
    lr: Expr,
    beta1: Expr,
    beta2: Expr,
    eps: Expr,
    weight_decay: Expr,
    d0: Expr,
    growth_rate: Expr,
    bias_correction: Expr,
) -> Update:
    """p = p (1 - d lr weight_decay), then D-Adaptation."""
    rate = where(t > 1, d, d0) * _corrected(lr, t, beta1, beta2, bias_correction)
    state = (m, v, s, d, numerator)
    options = {"t": t, "lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "d0": d0}
    options |= {"growth_rate": growth_rate, "bias_correction": bias_correction}
    return dadapt_adam(p - rate * weight_decay * p, g, *state, **options)


def _corrected(lr: Expr, t: Expr, beta1: Expr, beta2: Expr, bias_correction: Expr) -> Expr:
    return lr * where(bias_correction > 0, sqrt(1 - beta2**t) / (1 - beta1**t), 1.0)
