"""Adafactor's step; see `Adafactor`."""

from __future__ import annotations

from rumus.optim.rules.rule import Update
from rumus.tensor import Expr, sqrt


def adafactor(
    p: Expr,
    g: Expr,
    v: Expr,
    *,
    t: Expr,
    lr: Expr,
    beta2_decay: Expr,
    eps1: Expr,
    eps2: Expr,
    d: Expr,
    weight_decay: Expr,
) -> Update:
    """v = v + w (g^2 - v),  w = t^beta2_decay;  u = g / sqrt(max(v, eps1^2));

    p = p (1 - lr weight_decay) - max(eps2, rms(p)) min(lr, 1 / sqrt(t)) / max(1, rms(u) / d) u.

    Shazeer, Stern: arXiv:1804.04235, algorithm 5, with the constants where PyTorch has them.
    rms is the root of the mean square over the tensor.
    """
    v = averaged(v, g * g, t=t, beta2_decay=beta2_decay)
    u = scaled(g, v, eps1=eps1)
    options = {"t": t, "lr": lr, "eps2": eps2, "d": d, "weight_decay": weight_decay}
    return {"p": _moved(p, u, **options), "v": v}


def adafactor_factored(
    p: Expr,
    g: Expr,
    r: Expr,
    c: Expr,
    mean: Expr,
    *,
    t: Expr,
    lr: Expr,
    eps1: Expr,
    eps2: Expr,
    d: Expr,
    weight_decay: Expr,
) -> Update:
    """`adafactor` with v = r c / max(mean, eps1), for tensors with two or more axes.

    r, c: averages of g^2 over each row and each column, including this step's; mean: that of r.
    """
    u = scaled(g, outer(r, c, mean, eps1=eps1), eps1=eps1)
    options = {"t": t, "lr": lr, "eps2": eps2, "d": d, "weight_decay": weight_decay}
    return {"p": _moved(p, u, **options)}


def averaged(average: Expr, value: Expr, *, t: Expr, beta2_decay: Expr) -> Expr:
    """average + w (value - average), w = t^beta2_decay, which is 1 at the first step.

    So the average has no bias to correct.
    """
    return average + t**beta2_decay * (value - average)


def outer(r: Expr, c: Expr, mean: Expr, *, eps1: Expr) -> Expr:
    """r c / max(mean, eps1)."""
    return r * c / mean.maximum(eps1)


def scaled(g: Expr, v: Expr, *, eps1: Expr) -> Expr:
    """g / sqrt(max(v, eps1^2)), without squaring eps1, since a small square may be flushed to 0."""
    return g / sqrt(v).maximum(eps1)


def _moved(
    p: Expr,
    u: Expr,
    *,
    t: Expr,
    lr: Expr,
    eps2: Expr,
    d: Expr,
    weight_decay: Expr,
) -> Expr:
    rate = _rms(p).maximum(eps2) * lr.minimum(t**-0.5)
    return p * (1 - lr * weight_decay) - rate / (_rms(u) / d).maximum(1.0) * u


def _rms(x: Expr) -> Expr:
    """The root of the mean square over a tensor."""
    return sqrt((x * x).tensor_mean())
