"""Instance norm: normalizes each channel of each example to mean 0 and variance 1."""

from __future__ import annotations

import math
from typing import ClassVar

from numpy.typing import DTypeLike

from rumus.nn.group_norm import GroupNorm
from rumus.nn.unbatched import of_batch
from rumus.tensor import Backend, Tensor, float32


class _InstanceNorm(GroupNorm):
    """A group norm with as many groups as channels."""

    axes: ClassVar[int]

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        affine: bool = False,
        dtype: DTypeLike = float32,
        backend: Backend | None = None,
    ) -> None:
        if channels < 1:
            raise ValueError(f"{type(self).__name__} needs at least 1 channel, not {channels}")
        super().__init__(channels, channels, eps=eps, affine=affine, dtype=dtype, backend=backend)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each channel of each example, with or without a batch."""
        name = type(self).__name__
        if x.ndim in (self.axes + 1, self.axes + 2):
            if x.shape[-self.axes - 1] != self.channels:
                raise ValueError(f"{name}: expected {self.channels} channels, got {x.shape}")
            if x.size and math.prod(x.shape[-self.axes :]) == 1:
                raise ValueError(f"{name}: one value in each channel is nothing to normalize by")
        return of_batch(name, x, self.axes, super().forward)


class InstanceNorm1d(_InstanceNorm):
    """`InstanceNorm2d` for sequences, (batch, channels, length).

    channels, eps, affine, dtype, backend: as in `InstanceNorm2d`.

    >>> from rumus.nn import InstanceNorm1d
    >>> from rumus.tensor import tensor
    >>> [round(v, 3) for v in InstanceNorm1d(1)(tensor([[[1.0, 3.0]]])).flatten().tolist()]
    [-1.0, 1.0]
    """

    axes = 1


class InstanceNorm2d(_InstanceNorm):
    """(x - mean) / sqrt(variance + eps) of each channel of each example.

    Ulyanov, Vedaldi, Lempitsky: arXiv:1607.08022. Input: (batch, channels, height, width), or
        without the batch. The statistics are always the input's: there are no running statistics.

    channels: the length of the channels' axis.
    eps: positive, added to the variance.
    affine: True for a weight and a bias per channel.
    dtype: floating, of weight and bias.
    backend: where the parameters are made, by default the CPU.

    ValueError for a wrong number of channels, and for a single value per channel.

    >>> from rumus.nn import InstanceNorm2d
    >>> from rumus.tensor import ones
    >>> InstanceNorm2d(3)(ones((2, 3, 4, 4))).shape
    (2, 3, 4, 4)
    """

    axes = 2
