"""Rules with reductions over whole tensors."""

from __future__ import annotations

from rumus.optim.rules.adam import adamw
from rumus.optim.rules.denominator import at_least, denominator
from rumus.optim.rules.rule import Update
from rumus.tensor import Expr, sqrt


def stable_adamw(
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
    """b = beta (1 - beta^(t - 1)) / (1 - beta^t) for each beta, so that averages have no bias;

    m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
    rms = root of the mean of g^2 / max(v, eps^2) over the tensor;  r = lr / max(1, rms);
    p = p - r (m / (sqrt(v) + eps) + weight_decay p).

    Wortsman et al.: arXiv:2304.13013, algorithm 2: AdamW with Adafactor's clipping of updates.
    """
    b1 = beta1 * (1 - beta1 ** (t - 1)) / (1 - beta1**t)
    b2 = beta2 * (1 - beta2 ** (t - 1)) / (1 - beta2**t)
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    scaled = g / sqrt(v).maximum(at_least(eps))
    rate = lr / sqrt((scaled * scaled).tensor_mean()).maximum(1.0)
    return {"p": p - rate * (m / denominator(v, eps) + weight_decay * p), "m": m, "v": v}


def mars(
    p: Expr,
    g: Expr,
    m: Expr,
    v: Expr,
    g_before: Expr,
    *,
    t: Expr,
    lr: Expr,
    beta1: Expr,
    beta2: Expr,
    gamma: Expr,
    eps: Expr,
    weight_decay: Expr,
) -> Update:
    """c = g + gamma beta1 / (1 - beta1) (g - g_before);  c = c / max(1, norm of c in the tensor);

    then AdamW with c in place of g. g_before is 0 at first, as in the authors' code.

    Yuan et al.: arXiv:2411.10438, algorithm 2 (MARS-AdamW), in its approximate form.
    """
    c = g + gamma * beta1 / (1 - beta1) * (g - g_before)
    c = c / c.tensor_norm().maximum(1.0)
    options = {"t": t, "lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps}
    return {**adamw(p, c, m, v, **options, weight_decay=weight_decay), "g_before": g}
