"""Pooling layers: reduce windows to their largest element or their mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from rumus.nn.module import Module
from rumus.nn.setting import Settings, as_declared
from rumus.nn.unbatched import of_batch
from rumus.tensor import Tensor, avg_pool, concat, max_pool
from rumus.tensor.expression.declared_type import is_ordered
from rumus.tensor.memory.window import as_sizes, part_bounds
from rumus.tensor.operations.part_means import part_means


def _kernel(layer: _Pooling, name: str, value: Any) -> tuple[int, ...]:
    kernel = layer._sizes(name, value, 1)
    layer._padding(kernel, vars(layer).get("padding", 0))
    return kernel


def _spacing(layer: _Pooling, name: str, value: Any) -> tuple[int, ...]:
    return layer._sizes(name, layer.kernel if value is None else value, 1)


def _padding(layer: _Pooling, name: str, value: Any) -> tuple[int, ...]:
    return layer._padding(layer.kernel, value)


def _parts(layer: _AdaptiveAvgPool | _AdaptiveMaxPool, name: str, value: Any) -> Any:
    return layer._parts(value)


class _Pooling(Module):
    """The common base of pools: sizes, and inputs with and without a batch."""

    axes: ClassVar[int]
    kernel: tuple[int, ...]
    _settings: ClassVar[Settings] = {
        "kernel": _kernel, "stride": _spacing, "padding": _padding, "dilation": _spacing,
        "ceil_mode": as_declared, "count_include_pad": as_declared,
    }  # fmt: skip

    def _sizes(self, what: str, size: int | Sequence[int], lowest: int) -> tuple[int, ...]:
        sizes = as_sizes(f"{type(self).__name__}: {what}", size, self.axes)
        if len(sizes) != self.axes or min(sizes) < lowest:
            wanted = "one size" if self.axes == 1 else "one or two sizes"
            raise ValueError(
                f"{type(self).__name__}: {what} needs {wanted} of at least {lowest}, not {size!r}"
            )
        return sizes

    def _padding(self, kernel: tuple[int, ...], padding: int | Sequence[int]) -> tuple[int, ...]:
        """Check early that no window is in the padding alone."""
        sizes = self._sizes("padding", padding, 0)
        if any(2 * p > k for p, k in zip(sizes, kernel, strict=True)):
            raise ValueError(
                f"{type(self).__name__}: padding {sizes} is more than half of the kernel {kernel}"
            )
        return sizes

    def forward(self, x: Tensor) -> Tensor:
        """Pool (batch, channels, *lengths), or (channels, *lengths)."""
        return of_batch(type(self).__name__, x, self.axes, self._pool)

    def _pool(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class _MaxPool(_Pooling):
    def __init__(
        self,
        kernel: int | Sequence[int],
        *,
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        ceil_mode: bool = False,
    ) -> None:
        self.kernel = self._sizes("kernel", kernel, 1)
        self.stride = self.kernel if stride is None else self._sizes("stride", stride, 1)
        self.padding = self._padding(self.kernel, padding)
        self.dilation = self._sizes("dilation", dilation, 1)
        self.ceil_mode = ceil_mode

    def _pool(self, x: Tensor) -> Tensor:
        return max_pool(
            x, self.kernel, stride=self.stride, padding=self.padding, dilation=self.dilation,
            ceil_mode=self.ceil_mode,
        )  # fmt: skip


class MaxPool1d(_MaxPool):
    """`MaxPool2d` for sequences, (batch, channels, length).

    kernel, stride, padding, dilation, ceil_mode: as in `MaxPool2d`, for one axis.

    >>> from rumus.nn import MaxPool1d
    >>> from rumus.tensor import ones
    >>> MaxPool1d(3, stride=2)(ones((1, 3, 9))).shape
    (1, 3, 4)
    """

    axes = 1


class MaxPool2d(_MaxPool):
    """The largest element under the kernel at every place. See `rumus.tensor.max_pool`.

    Input: (batch, channels, height, width), or without the batch.

    kernel: the window size, one number or one per axis, like the next three.
    stride: the distance between windows, by default the kernel.
    padding: elements on both sides that never win, at most half the kernel.
    dilation: the distance between elements of a window.
    ceil_mode: include a last window that only starts within the input.

    >>> from rumus.nn import MaxPool2d
    >>> from rumus.tensor import ones
    >>> MaxPool2d(2)(ones((1, 3, 9, 8))).shape, MaxPool2d(2, ceil_mode=True)(ones((3, 9, 8))).shape
    ((1, 3, 4, 4), (3, 5, 4))
    """

    axes = 2


class _AvgPool(_Pooling):
    def __init__(
        self,
        kernel: int | Sequence[int],
        *,
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self.kernel = self._sizes("kernel", kernel, 1)
        self.stride = self.kernel if stride is None else self._sizes("stride", stride, 1)
        self.padding = self._padding(self.kernel, padding)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def _pool(self, x: Tensor) -> Tensor:
        return avg_pool(
            x, self.kernel, stride=self.stride, padding=self.padding, ceil_mode=self.ceil_mode,
            count_include_pad=self.count_include_pad,
        )  # fmt: skip


class AvgPool1d(_AvgPool):
    """`AvgPool2d` for sequences, (batch, channels, length).

    kernel: the length of a window.
    stride: the distance between windows, by default the kernel.
    padding: zeros on both sides, at most half the kernel.
    ceil_mode: include a last window that only starts within the input.
    count_include_pad: False to divide by the number of input elements only.

    >>> from rumus.nn import AvgPool1d
    >>> from rumus.tensor import ones
    >>> AvgPool1d(2)(ones((1, 3, 9))).shape
    (1, 3, 4)
    """

    axes = 1


class AvgPool2d(_AvgPool):
    """The mean under the kernel at every place. See `rumus.tensor.avg_pool`.

    Input: (batch, channels, height, width), or without the batch.

    kernel: the window size, one number or one per axis, like the next two.
    stride: the distance between windows, by default the kernel.
    padding: zeros on both sides, at most half the kernel.
    ceil_mode: include a last window that only starts within the input.
    count_include_pad: False to divide by the number of input elements only.

    >>> from rumus.nn import AvgPool2d
    >>> from rumus.tensor import ones
    >>> AvgPool2d(2)(ones((1, 3, 9, 8))).shape
    (1, 3, 4, 4)
    """

    axes = 2


class _AdaptivePooling(_Pooling):
    _settings: ClassVar[Settings] = {"size": _parts}

    def __init__(self, size: int | Sequence[int | None] | None) -> None:
        self.size = self._parts(size)

    def _parts(self, size: int | Sequence[int | None] | None) -> tuple[int | None, ...]:
        given = (None,) * self.axes if size is None else size
        if not is_ordered(given):
            return self._sizes("size", given, 1)  # type: ignore[arg-type]
        sizes = tuple(given)
        self._sizes("size", [1 if n is None else n for n in sizes], 1)
        return tuple(None if n is None else int(n) for n in sizes)

    def _counts(self, x: Tensor) -> list[tuple[int, int]]:
        """The length of each axis, and into how many parts it goes."""
        pairs = zip(x.shape[2:], self.size, strict=True)
        return [(n, n if count is None else count) for n, count in pairs]


class _AdaptiveAvgPool(_AdaptivePooling):
    def _pool(self, x: Tensor) -> Tensor:
        if not all(x.shape[2:]):
            raise ValueError(f"{type(self).__name__}: there is nothing to average in {x.shape}")
        if self.size == (1,) * self.axes:
            return x.mean(tuple(range(2, x.ndim)), keepdims=True)
        parts = self._counts(x)
        is_even = all(n % count == 0 for n, count in parts)
        if is_even and x.backend.fused("avg_pool") is not None:
            return avg_pool(x, [n // count for n, count in parts])
        for axis, (_, count) in enumerate(parts, 2):
            x = part_means(x, axis, count)
        return x


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """`AdaptiveAvgPool2d` for sequences, (batch, channels, length).

    size: the length of the result; None keeps the input's.

    >>> from rumus.nn import AdaptiveAvgPool1d
    >>> from rumus.tensor import ones
    >>> AdaptiveAvgPool1d(2)(ones((1, 3, 9))).shape
    (1, 3, 2)
    """

    axes = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Means over parts of an image, `size` of them on each axis.

    Part i of n starts at floor(i length / n) and ends at ceil((i + 1) length / n), as in PyTorch. A
    single part is the mean of everything.

    size: one number or one per axis; None keeps an axis unchanged.

    >>> from rumus.nn import AdaptiveAvgPool2d
    >>> from rumus.tensor import ones
    >>> AdaptiveAvgPool2d(1)(ones((1, 3, 9, 8))).shape
    (1, 3, 1, 1)
    """

    axes = 2


class _AdaptiveMaxPool(_AdaptivePooling):
    def _pool(self, x: Tensor) -> Tensor:
        if not all(x.shape[2:]):
            raise ValueError(f"{type(self).__name__}: there is nothing to take in {x.shape}")
        parts = self._counts(x)
        if all(n % count == 0 for n, count in parts):
            return max_pool(x, [n // count for n, count in parts])
        # The last axis first: among equal elements, the first in memory gets the gradient.
        for axis, (length, count) in reversed(list(enumerate(parts))):
            found = []
            for start, stop in part_bounds(count, length):
                part = x[(slice(None),) * (axis + 2) + (slice(start, stop),)]
                kernel = [stop - start if other == axis else 1 for other in range(self.axes)]
                found.append(max_pool(part, kernel))
            x = concat(found, axis + 2)
        return x


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """`AdaptiveMaxPool2d` for sequences, (batch, channels, length).

    size: the length of the result; None keeps the input's.

    >>> from rumus.nn import AdaptiveMaxPool1d
    >>> from rumus.tensor import ones
    >>> AdaptiveMaxPool1d(2)(ones((1, 3, 9))).shape
    (1, 3, 2)
    """

    axes = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """The largest element of each part of an image, split as in `AdaptiveAvgPool2d`.

    size: one number or one per axis; None keeps an axis unchanged.

    >>> from rumus.nn import AdaptiveMaxPool2d
    >>> from rumus.tensor import ones
    >>> AdaptiveMaxPool2d((2, 3))(ones((1, 3, 9, 8))).shape
    (1, 3, 2, 3)
    """

    axes = 2


class _GlobalPool(Module):
    """The common base of global pools."""

    _settings: ClassVar[Settings] = {"keepdims": as_declared}
    take: ClassVar[Callable[..., Tensor]]

    def __init__(self, *, keepdims: bool = False) -> None:
        self.keepdims = keepdims

    def forward(self, x: Tensor) -> Tensor:
        """Pool (batch, channels, *lengths) to (batch, channels)."""
        if x.ndim < 3 or not all(x.shape[2:]):
            raise ValueError(
                f"{type(self).__name__}: expected (batch, channels, *lengths), got {x.shape}"
            )
        return type(self).take(x, tuple(range(2, x.ndim)), self.keepdims)


class GlobalAvgPool(_GlobalPool):
    """The mean of each channel: (batch, channels, *lengths) to (batch, channels).

    keepdims: keep axes of length 1.

    >>> from rumus.nn import GlobalAvgPool
    >>> from rumus.tensor import ones
    >>> GlobalAvgPool()(ones((2, 3, 9, 8))).shape
    (2, 3)
    """

    take = Tensor.mean


class GlobalMaxPool(_GlobalPool):
    """The largest element of each channel; see `GlobalAvgPool`.

    keepdims: keep axes of length 1.

    >>> from rumus.nn import GlobalMaxPool
    >>> from rumus.tensor import ones
    >>> GlobalMaxPool(keepdims=True)(ones((2, 3, 9))).shape
    (2, 3, 1)
    """

    take = Tensor.max
