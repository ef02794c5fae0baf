"""SOAP's step, given the gradient in the eigenbasis and the direction."""

from __future__ import annotations

from rumus.optim.rules.rule import Update
from rumus.tensor import Expr, sqrt, where


def soap(
    p: Expr,
    g: Expr,
    m: Expr,
    v: Expr,
    turned: Expr,
    o: Expr,
    *,
    t: Expr,
    lr: Expr,
    beta1: Expr,
    beta2: Expr,
    weight_decay: Expr,
) -> Update:
    """m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) turned^2;

    p = p (1 - lr weight_decay) - lr sqrt(1 - beta2^(t-1)) / (1 - beta1^(t-1)) o.

    turned: the gradient in the eigenbasis, Q_L^T g Q_R; o: the direction in the original basis.
    `rumus.optim.SOAP` computes both beforehand. The first step only finds the eigenbasis: both are
    0 then, and p and m do not change.

    Vyas et al.: arXiv:2409.11321, algorithm 3, with the bias correction of its authors' code, which
    is applied after eps is added to the root.
    """
    begun, after = where(t <= 1, 0.0, 1.0), (t - 1).maximum(1)
    m = m + begun * (1 - beta1) * (g - m)
    v = beta2 * v + (1 - beta2) * turned * turned
    step = begun * lr * sqrt(1 - beta2**after) / (1 - beta1**after)
    return {"p": p * (1 - begun * lr * weight_decay) - step * o, "m": m, "v": v}
