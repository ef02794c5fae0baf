"""Distances and angles between rows."""

from __future__ import annotations

from typing import TypeVar

from rumus.tensor import Expr, Tensor, elementwise
from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.real_number import finite_number
from rumus.tensor.graph.operators import broadcast_shape
from rumus.tensor.operations.cosine import cosine

T = TypeVar("T", Tensor, Expr)


@elementwise
def _apart(x: T, y: T, *, eps: float) -> T:
    return x - y + eps


@checked_arguments
def pairwise_distance(
    x: Tensor, y: Tensor, *, p: float = 2.0, eps: float = 1e-6, keepdims: bool = False
) -> Tensor:
    """(sum |x - y + eps|^p)^(1 / p) over the last axis.

    x, y: (..., features), broadcast together.
    p: of the norm; infinity for the largest difference.
    eps: finite; avoids a root of 0 for equal rows, as in PyTorch; with 0 the gradient of a distance
        of 0 is 0.
    keepdims: keep the last axis, with length 1.

    ValueError for an eps that is NaN or infinite.

    >>> from rumus.nn import pairwise_distance
    >>> from rumus.tensor import tensor
    >>> pairwise_distance(tensor([[3.0, 4.0]]), tensor([[0.0, 0.0]]), eps=0.0).tolist()
    [5.0]
    """
    finite_number("pairwise_distance: eps", eps)
    broadcast_shape("pairwise_distance", [x.shape, y.shape])
    return _apart(x, y, eps=eps).norm(p, axis=-1, keepdims=keepdims)


@checked_arguments
def cosine_similarity(x: Tensor, y: Tensor, *, axis: int = -1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between x and y: x y / (max(|x|, eps) max(|y|, eps)) along an axis.

    x, y: floating, broadcast together.
    axis: of the components.
    eps: the lower bound of the norms, finite.

    >>> from rumus.nn import cosine_similarity
    >>> from rumus.tensor import tensor
    >>> cosine_similarity(tensor([[1.0, 0.0]]), tensor([[2.0, 0.0]])).tolist()
    [1.0]
    """
    finite_number("cosine_similarity: eps", eps)
    return cosine(x, y, axis, eps)
