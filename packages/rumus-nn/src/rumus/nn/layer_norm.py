"""`LayerNorm`: normalizes each example to mean 0 and variance 1."""

from __future__ import annotations

from typing import ClassVar

from numpy.typing import DTypeLike

from rumus.nn.last_axes import checked_axes, over_last_axes
from rumus.nn.module import Module
from rumus.nn.norm_parameters import norm_bias, norm_weight
from rumus.nn.setting import Settings, positive
from rumus.tensor import Backend, Tensor, float32, layer_norm


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

    _settings: ClassVar[Settings] = {"eps": positive}

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
        shape = checked_axes(normalized_shape)
        self.normalized_shape = shape
        self.eps = eps
        has_bias = elementwise_affine and bias
        self.weight = norm_weight(shape, dtype, backend) if elementwise_affine else None
        self.bias = norm_bias(shape, dtype, backend) if has_bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalize over the last axes.

        x: (..., *normalized_shape).
        """
        shape, parameters = self.normalized_shape, (self.weight, self.bias)
        return over_last_axes("LayerNorm", x, shape, parameters, self.eps, layer_norm)
