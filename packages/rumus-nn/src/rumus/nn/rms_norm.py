"""`RMSNorm`: normalizes each example to mean square 1."""

from __future__ import annotations

from typing import ClassVar

from numpy.typing import DTypeLike

from rumus.nn.last_axes import checked_axes, over_last_axes
from rumus.nn.module import Module
from rumus.nn.norm_parameters import norm_weight
from rumus.nn.setting import Settings, positive
from rumus.tensor import Backend, Tensor, float32, rms_norm


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

    _settings: ClassVar[Settings] = {"eps": positive}

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        *,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        dtype: DTypeLike = float32,
        backend: Backend | None = None,
    ) -> None:
        shape = checked_axes(normalized_shape)
        self.normalized_shape = shape
        self.eps = eps
        self.weight = norm_weight(shape, dtype, backend) if elementwise_affine else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalize over the last axes.

        x: (..., *normalized_shape).
        """
        shape, parameters = self.normalized_shape, (self.weight,)
        return over_last_axes("RMSNorm", x, shape, parameters, self.eps, rms_norm)
