"""`LayerNorm`: normalizes each example to mean 0 and variance 1."""

from __future__ import annotations

import math

from numpy.typing import DTypeLike

from rumus.nn.module import Module
from rumus.tensor import Backend, Parameter, Tensor, float32, layer_norm, ones, zeros
from rumus.tensor.expression.real_number import positive_number


class LayerNorm(Module):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias. Ba, Kiros, Hinton: arXiv:1607.06450.

    weight and bias have the normalized shape and start as ones and zeros. float16 is computed in
    float32.

    normalized_shape: the last axes of x, over which mean and variance (divided by n) are taken; one
        number for the last axis.
    eps: positive, added to the variance.
    elementwise_affine: False for neither weight nor bias.
    bias: False for no bias.
    dtype: floating, of the parameters.
    backend: where the parameters are made, by default the CPU.

    ValueError for an empty shape, an eps that is not finite and positive, and for an input whose
    last axes differ; TypeError for an input that is not floating.

    >>> from rumus.nn import LayerNorm
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
        positive_number("LayerNorm: eps", eps)
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
        """Normalize over the last axes.

        x: (..., *normalized_shape).
        """
        shape, eps = self.normalized_shape, self.eps
        if x.shape[-len(shape) :] != shape:
            raise ValueError(f"LayerNorm over {shape}: the last axes of {x.shape} differ")
        if x.dtype.kind != "f":
            raise TypeError(f"LayerNorm: the input must be floating, not {x.dtype}")
        if len(shape) == 1:
            return layer_norm(x, self.weight, self.bias, eps)
        weight, bias = (None if p is None else p.reshape(-1) for p in (self.weight, self.bias))
        rows = x.reshape(*x.shape[: -len(shape)], math.prod(shape))
        return layer_norm(rows, weight, bias, eps).reshape(*x.shape)
