"""Layers that resize images: interpolation, and channels to pixels."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, ClassVar

from rumus.nn.module import Module
from rumus.nn.setting import Settings, as_declared
from rumus.tensor import Tensor, interpolate
from rumus.tensor.operations.interpolation import (
    InterpolationMode,
    check_interpolation,
    check_options_together,
)


def _target(layer: Module, name: str, value: Any) -> Any:
    other = vars(layer).get("size" if name == "scale_factor" else "scale_factor")
    if value is not None and other is not None:
        raise ValueError("Upsample: give size or scale_factor, one of the two")
    given = {"size": None, "scale_factor": None, name: value}
    check_interpolation("Upsample", given["size"], given["scale_factor"], "nearest")
    return value


def _mode(layer: Module, name: str, value: Any) -> Any:
    check_interpolation("Upsample", None, None, value)
    return value


class Upsample(Module):
    """Interpolation to another size. See `rumus.tensor.interpolate`.

    size: the new length, one number or one per axis.
    scale_factor: the factor of each length, instead of size.
    mode: "nearest", or "linear", "bilinear", "trilinear" for one, two, three axes.
    align_corners: align the centers of the first and last elements.

    ValueError for an unknown mode, sizes and factors that are not positive, more or fewer of them
    than the mode has axes, and for align_corners with "nearest".

    >>> from rumus.nn import Upsample
    >>> from rumus.tensor import ones
    >>> Upsample(scale_factor=2, mode="bilinear")(ones((1, 3, 4, 5))).shape
    (1, 3, 8, 10)
    """

    _settings: ClassVar[Settings] = {
        "size": _target, "scale_factor": _target, "mode": _mode, "align_corners": as_declared,
    }  # fmt: skip

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        *,
        scale_factor: float | Sequence[float] | None = None,
        mode: InterpolationMode = "nearest",
        align_corners: bool = False,
    ) -> None:
        if size is None and scale_factor is None:
            raise ValueError("Upsample: give size or scale_factor, one of the two")
        self.size, self.scale_factor = size, scale_factor
        self.mode, self.align_corners = mode, align_corners
        check_options_together("Upsample", size, scale_factor, mode, align_corners)

    def forward(self, x: Tensor) -> Tensor:
        """Interpolate the spatial axes.

        x: (batch, channels, *lengths), floating.
        """
        return interpolate(
            x, self.size, scale_factor=self.scale_factor, mode=self.mode,
            align_corners=self.align_corners,
        )  # fmt: skip


def _factor(layer: Module, name: str, value: Any) -> int:
    if value < 1:
        raise ValueError(f"{type(layer).__name__}: the factor must be at least 1, not {value}")
    return operator.index(value)


class PixelShuffle(Module):
    """Moves channels to pixels: (batch, c factor^2, h, w) to (batch, c, h factor, w factor).

    Shi et al.: arXiv:1609.05158.

    factor: at least 1. ValueError for channels that are not divisible by its square.

    >>> from rumus.nn import PixelShuffle
    >>> from rumus.tensor import ones
    >>> PixelShuffle(2)(ones((1, 12, 4, 5))).shape
    (1, 3, 8, 10)
    """

    _settings: ClassVar[Settings] = {"factor": _factor}

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Move channels to pixels.

        x: (batch, channels, height, width).
        """
        r = self.factor
        if x.ndim < 3 or x.shape[-3] % (r * r):
            raise ValueError(f"PixelShuffle: expected channels that {r * r} divides, got {x.shape}")
        *lead, channels, height, width = x.shape
        apart = x.reshape(*lead, channels // (r * r), r, r, height, width)
        at = len(lead)
        turned = apart.permute(*range(at + 1), at + 3, at + 1, at + 4, at + 2)
        return turned.reshape(*lead, channels // (r * r), height * r, width * r)


class PixelUnshuffle(Module):
    """Moves pixels to channels: the inverse of a `PixelShuffle` with the same factor.

    factor: a divisor of height and width, ValueError otherwise.

    >>> from rumus.nn import PixelUnshuffle
    >>> from rumus.tensor import ones
    >>> PixelUnshuffle(2)(ones((1, 3, 8, 10))).shape
    (1, 12, 4, 5)
    """

    _settings: ClassVar[Settings] = {"factor": _factor}

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Move pixels to channels.

        x: (batch, channels, height, width).
        """
        r = self.factor
        if x.ndim < 3 or x.shape[-1] % r or x.shape[-2] % r:
            raise ValueError(f"PixelUnshuffle: expected sizes that {r} divides, got {x.shape}")
        *lead, channels, height, width = x.shape
        apart = x.reshape(*lead, channels, height // r, r, width // r, r)
        at = len(lead)
        turned = apart.permute(*range(at + 1), at + 2, at + 4, at + 1, at + 3)
        return turned.reshape(*lead, channels * r * r, height // r, width // r)
