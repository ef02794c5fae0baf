"""Muon's step, given the orthogonalized momentum."""

from __future__ import annotations

from rumus.optim.rules.rule import Update
from rumus.tensor import Expr


def muon(
    p: Expr, g: Expr, b: Expr, o: Expr, *, lr: Expr, weight_decay: Expr, momentum: Expr
) -> Update:
    """b = momentum b + (1 - momentum) g;  p = p (1 - lr weight_decay) - lr o.

    o: the direction, computed beforehand by `rumus.optim.Muon`: the orthogonal matrix nearest to b,
    or to momentum b + (1 - momentum) g with Nesterov's momentum, times a factor for its shape.

    Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks", with weight
    decay as in Liu et al.: arXiv:2502.16982. The average b has the same direction as their sum
    b = momentum b + g, and Newton-Schulz iterations depend only on the direction.
    """
    b = momentum * b + (1 - momentum) * g
    return {"p": p * (1 - lr * weight_decay) - lr * o, "b": b}
