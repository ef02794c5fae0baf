"""Pooling layers: fewer places, each the largest element or the mean of several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rumus.nn.module import Module
from rumus.tensor import Tensor, avg_pool, max_pool, tensor


def _pair(name: str, what: str, size: int | Sequence[int], lowest: int) -> tuple[int, int]:
    sizes = (size, size) if isinstance(size, int) else tuple(size)
    if len(sizes) != 2 or min(sizes) < lowest:
        raise ValueError(f"{name}: {what} needs one or two sizes of at least {lowest}, not {size}")
    return sizes[0], sizes[1]


def _check(name: str, x: Tensor) -> None:
    if x.ndim != 4:
        raise ValueError(f"{name}: (batch, channels, height, width) is needed, not {x.shape}")


class MaxPool2d(Module):
    """The largest element under the kernel at every place. See `rumus.tensor.max_pool`.

    kernel, stride (by default the kernel), padding, dilation: a number or one for each axis.

    >>> from rumus.tensor import ones
    >>> MaxPool2d(2)(ones((1, 3, 9, 8))).shape
    (1, 3, 4, 4)
    """

    def __init__(
        self,
        kernel: int | Sequence[int],
        *,
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
    ) -> None:
        self.kernel = _pair("MaxPool2d", "kernel", kernel, 1)
        self.stride = self.kernel if stride is None else _pair("MaxPool2d", "stride", stride, 1)
        self.padding = _pair("MaxPool2d", "padding", padding, 0)
        self.dilation = _pair("MaxPool2d", "dilation", dilation, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Pool (batch, channels, height, width)."""
        _check("MaxPool2d", x)
        return max_pool(
            x, self.kernel, stride=self.stride, padding=self.padding, dilation=self.dilation
        )


class AvgPool2d(Module):
    """The mean under the kernel at every place, padding counted. See `rumus.tensor.avg_pool`.

    kernel, stride (by default the kernel), padding: a number or one for each axis.

    >>> from rumus.tensor import ones
    >>> AvgPool2d(2)(ones((1, 3, 9, 8))).shape
    (1, 3, 4, 4)
    """

    def __init__(
        self,
        kernel: int | Sequence[int],
        *,
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
    ) -> None:
        self.kernel = _pair("AvgPool2d", "kernel", kernel, 1)
        self.stride = self.kernel if stride is None else _pair("AvgPool2d", "stride", stride, 1)
        self.padding = _pair("AvgPool2d", "padding", padding, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Pool (batch, channels, height, width)."""
        _check("AvgPool2d", x)
        return avg_pool(x, self.kernel, stride=self.stride, padding=self.padding)


class AdaptiveAvgPool2d(Module):
    """Means over parts of a picture that are cut so that `size` of them remain on each axis.

    size: a number or one for each axis; None keeps the axis as it is. Part i of n begins at
    floor(i length / n) and ends at ceil((i + 1) length / n), as in PyTorch. For one part it is the
    mean of everything.

    >>> from rumus.tensor import ones
    >>> AdaptiveAvgPool2d(1)(ones((1, 3, 9, 8))).shape
    (1, 3, 1, 1)
    """

    def __init__(self, size: int | Sequence[int | None] | None) -> None:
        sizes = (size, size) if size is None or isinstance(size, int) else tuple(size)
        known = [1 if n is None else n for n in sizes]
        _pair("AdaptiveAvgPool2d", "size", known, 1)
        self.size = sizes[0], sizes[1]
        self._shares: dict[object, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Pool (batch, channels, height, width)."""
        _check("AdaptiveAvgPool2d", x)
        if not all(x.shape[2:]):
            raise ValueError(f"AdaptiveAvgPool2d: there is nothing to average in {x.shape}")
        if self.size == (1, 1):
            return x.mean((2, 3), keepdims=True)
        lengths = x.shape[2:]
        sizes = [n if size is None else size for n, size in zip(lengths, self.size, strict=True)]
        parts = list(zip(lengths, sizes, strict=True))
        if all(n % count == 0 for n, count in parts):
            return avg_pool(x, [n // count for n, count in parts])
        height, width = (self._share(x, length, count) for length, count in parts)
        return height @ x @ width.T

    def _share(self, x: Tensor, length: int, parts: int) -> Tensor:
        """The matrix that takes means along an axis: (parts, length)."""
        key = (x.backend, x.dtype, parts, length)
        if key not in self._shares:
            self._shares[key] = tensor(_means(parts, length), dtype=x.dtype, backend=x.backend)
        return self._shares[key]


def _means(parts: int, length: int) -> NDArray[np.float64]:
    matrix = np.zeros((parts, length))
    for i in range(parts):
        start, stop = i * length // parts, -(-(i + 1) * length // parts)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix
