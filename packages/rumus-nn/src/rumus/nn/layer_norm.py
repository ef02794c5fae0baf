"""`LayerNorm`: each example brought to mean 0 and variance 1 by itself."""

from __future__ import annotations

import math
from typing import TypeVar

from numpy.typing import DTypeLike

from rumus.nn.module import Module
from rumus.tensor import (
    Backend,
    Expr,
    Parameter,
    Tensor,
    elementwise,
    float16,
    float32,
    ones,
    zeros,
)

T = TypeVar("T", Tensor, Expr)


@elementwise
def _centred(x: T, total: T, *, share: float) -> T:
    return x - share * total


@elementwise
def _normalized(centred: T, squares: T, *, share: float, eps: float) -> T:
    return centred / (share * squares + eps).sqrt()


@elementwise
def _scaled(centred: T, squares: T, weight: T, *, share: float, eps: float) -> T:
    return centred / (share * squares + eps).sqrt() * weight


@elementwise
def _affine(centred: T, squares: T, weight: T, bias: T, *, share: float, eps: float) -> T:
    return centred / (share * squares + eps).sqrt() * weight + bias


class LayerNorm(Module):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias. Ba, Kiros, Hinton: arXiv:1607.06450.

    normalized_shape: the last axes of x, over which mean and variance (divided by n) are taken; a
    number means the last axis. weight and bias have this shape and start as ones and zeros.
    elementwise_affine: False for neither of them; bias: False for no bias. float16 is computed in
    float32. ValueError for an empty shape, eps <= 0, and for an input whose last axes differ;
    TypeError for an input that is not floating.

    >>> from rumus.tensor import tensor
    >>> [round(v, 3) for v in LayerNorm(2)(tensor([1.0, 3.0])).tolist()]
    [-1.0, 1.0]
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        *,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        dtype: DTypeLike = float32,
        backend: Backend | None = None,
    ) -> None:
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
        if not shape or min(shape) < 1:
            raise ValueError(f"normalized_shape needs lengths of at least 1, not {shape}")
        if not eps > 0:
            raise ValueError(f"eps must be positive, not {eps}")
        self.normalized_shape = tuple(shape)
        self.eps = eps
        self.weight: Parameter | None = None
        self.bias: Parameter | None = None
        if elementwise_affine:
            start = ones(shape, dtype=dtype, backend=backend)
            self.weight = Parameter(start, name="weight", role="norm")
            if bias:
                start = zeros(shape, dtype=dtype, backend=backend)
                self.bias = Parameter(start, name="bias", role="norm")

    def forward(self, x: Tensor) -> Tensor:
        """Normalize over the last axes."""
        shape, eps = self.normalized_shape, self.eps
        if x.shape[-len(shape) :] != shape:
            raise ValueError(f"LayerNorm over {shape}: the last axes of {x.shape} differ")
        if x.dtype.kind != "f":
            raise TypeError(f"LayerNorm: the input must be floating, not {x.dtype}")
        if x.dtype == float16:
            return self.forward(x.astype(float32)).astype(float16)
        axes = tuple(range(x.ndim - len(shape), x.ndim))
        share = 1 / math.prod(shape)  # sums become means inside the kernels that read them
        centred = _centred(x, x.sum(axes, keepdims=True), share=share)
        squares = (centred * centred).sum(axes, keepdims=True)
        if self.weight is None:
            return _normalized(centred, squares, share=share, eps=eps)
        if self.bias is None:
            return _scaled(centred, squares, self.weight, share=share, eps=eps)
        return _affine(centred, squares, self.weight, self.bias, share=share, eps=eps)
