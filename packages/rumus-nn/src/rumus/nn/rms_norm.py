"""`RMSNorm`: normalizes each example to mean square 1."""

from __future__ import annotations

import math

from numpy.typing import DTypeLike

from rumus.nn.module import Module
from rumus.tensor import Backend, Parameter, Tensor, float32, ones, rms_norm
from rumus.tensor.expression.real_number import positive_number


class RMSNorm(Module):
    """y = x / sqrt(mean(x^2) + eps) * weight. Zhang, Sennrich: arXiv:1910.07467.

    weight has the normalized shape and is initialized with ones. float16 is computed in float32.

    normalized_shape: the last axes of x, over which the mean is taken; one number for the last
        axis.
    eps: positive, added to the mean of the squares.
    elementwise_affine: False for no weight.
    dtype: floating, of the weight.
    backend: that holds the weight, by default the CPU.

    ValueError for an empty shape, an eps that is not finite and positive, and for an input whose
    last axes differ; TypeError for an input that is not floating.

    >>> from rumus.nn import RMSNorm
    >>> from rumus.tensor import tensor
    >>> [round(v, 3) for v in RMSNorm(2)(tensor([3.0, 4.0])).tolist()]
    [0.849, 1.131]
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        *,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        dtype: DTypeLike = float32,
        backend: Backend | None = None,
    ) -> None:
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
        if not shape or min(shape) < 1:
            raise ValueError(f"normalized_shape needs lengths of at least 1, not {shape}")
        positive_number("RMSNorm: eps", eps)
        self.normalized_shape = tuple(shape)
        self.eps = eps
        self.weight: Parameter | None = None
        if elementwise_affine:
            start = ones(shape, dtype=dtype, backend=backend)
            self.weight = Parameter(start, name="weight", role="norm")

    def forward(self, x: Tensor) -> Tensor:
        """Normalize over the last axes.

        x: (..., *normalized_shape).
        """
        shape, eps = self.normalized_shape, self.eps
        if x.shape[-len(shape) :] != shape:
            raise ValueError(f"RMSNorm over {shape}: the last axes of {x.shape} differ")
        if x.dtype.kind != "f":
            raise TypeError(f"RMSNorm: the input must be floating, not {x.dtype}")
        if len(shape) == 1:
            return rms_norm(x, self.weight, eps)
        weight = None if self.weight is None else self.weight.reshape(-1)
        rows = x.reshape(*x.shape[: -len(shape)], math.prod(shape))
        return rms_norm(rows, weight, eps).reshape(*x.shape)
