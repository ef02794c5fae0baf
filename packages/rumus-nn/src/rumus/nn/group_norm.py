"""`GroupNorm`: normalizes groups of channels of each example to mean 0 and variance 1."""

from __future__ import annotations

import math
from typing import ClassVar, TypeVar

from numpy.typing import DTypeLike

from rumus.nn.module import Module
from rumus.nn.norm_parameters import norm_bias, norm_weight
from rumus.nn.setting import Settings, positive
from rumus.tensor import (
    Backend,
    Expr,
    Tensor,
    elementwise,
    float32,
    layer_norm,
)

T = TypeVar("T", Tensor, Expr)


@elementwise
def _affine(x: T, weight: T, bias: T) -> T:
    return x * weight + bias


class GroupNorm(Module):
    """(x - mean) / sqrt(variance + eps) of each group of channels, then * weight + bias of each.

    Wu, He: arXiv:1803.08494. Input: (batch, channels, ...).

    groups: a divisor of channels; 1 gives a layer norm over all channels, channels gives an
        instance norm.
    channels: the length of axis 1.
    eps: positive, added to the variance.
    affine: False for no weight and bias, which have one number per channel.
    dtype: floating, of weight and bias.
    backend: where the parameters are made, by default the CPU.

    ValueError for sizes that do not fit.

    >>> from rumus.nn import GroupNorm
    >>> from rumus.tensor import ones
    >>> GroupNorm(2, 4)(ones((3, 4, 5))).shape
    (3, 4, 5)
    """

    _settings: ClassVar[Settings] = {"eps": positive}

    def __init__(
        self,
        groups: int,
        channels: int,
        *,
        eps: float = 1e-5,
        affine: bool = True,
        dtype: DTypeLike = float32,
        backend: Backend | None = None,
    ) -> None:
        if groups < 1 or channels < 1 or channels % groups:
            raise ValueError(f"GroupNorm: {channels} channels do not divide into {groups} groups")
        self.groups = groups
        self.channels = channels
        self.eps = eps
        self.weight = norm_weight((channels,), dtype, backend) if affine else None
        self.bias = norm_bias((channels,), dtype, backend) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each group of each example.

        x: (batch, channels, ...).
        """
        if x.ndim < 2 or x.shape[1] != self.channels:
            raise ValueError(
                f"GroupNorm: expected an input of (batch, {self.channels}, ...), got {x.shape}"
            )
        each = math.prod(x.shape[1:]) // self.groups  # -1 is ambiguous for an empty batch
        rows = x.reshape(x.shape[0], self.groups, each)
        normal = layer_norm(rows, eps=self.eps).reshape(*x.shape)
        if self.weight is None or self.bias is None:
            return normal
        column = (self.channels, *[1] * (x.ndim - 2))
        return _affine(normal, self.weight.reshape(*column), self.bias.reshape(*column))
