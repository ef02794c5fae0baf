"""Pooling: the largest element, or the mean, under a window that slides over the spatial axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.dtype import float16, float32, is_floating
from rumus.tensor.expression.expr import Expr
from rumus.tensor.expression.kernel import Kernel
from rumus.tensor.graph.autograd import ACCUMULATE
from rumus.tensor.graph.operators import cast, compute
from rumus.tensor.graph.shaping import pad
from rumus.tensor.graph.tensor import Tensor, ones, result_of
from rumus.tensor.memory.backend import Array, Backend, Shape
from rumus.tensor.memory.window import Sizes, Window, window

LARGE: Final = 1024  # from this many elements on, a window is an ordinary reduction
MANY: Final = 64  # the same on a backend that goes over the picture once for each of them
_X, _OUT, _G = (Expr.array(name) for name in ("x", "out", "g"))
_LARGER: Final = Kernel("larger", {"out": _OUT.maximum(_X)}, ("out", "x"))


def _first_largest(is_padded: bool) -> Kernel:
    """The gradient of the first of several equal elements in a window.

    taken: 1 where an earlier one in the window got it. With padding, which is -inf and would win
    where all others are, x is NaN there and +inf where it was NaN itself.
    """
    taken, share = Expr.array("taken"), Expr.array("share")
    is_it = _X._apply("eq", _X, _OUT)
    is_number = _X._apply("eq", _OUT, _OUT)
    free = is_number.where(0.0, 1 - taken)
    if is_padded:
        is_nan = _X._apply("eq", _X, math.inf).where(free, 0.0)
    else:
        is_nan = _X._apply("eq", _X, _X).where(0.0, free)
    mine = is_it.where(1 - taken, is_nan)
    given = is_number.where(_G, _OUT)  # a gradient of 0 or 1 would hide a NaN loss
    outputs = {"share": share + (mine > 0.0).where(given, 0.0), "taken": taken + mine}
    return Kernel("first_largest", outputs, ("share", "taken", "x", "out", "g"))


_FIRST_LARGEST: Final = _first_largest(is_padded=False)
_FIRST_LARGEST_INSIDE: Final = _first_largest(is_padded=True)
_MARKED: Final = Kernel("marked", {"out": _X._apply("eq", _X, _X).where(_X, math.inf)}, ("x",))
_SCALED: Final = Kernel("scaled", {"out": _X * Expr.scalar("factor")}, ("x",))
# A share of each element, as the sum of a window may overflow where its mean does not.
_ADD_SHARE: Final = Kernel("add_share", {"out": _OUT + _X * Expr.scalar("factor")}, ("out", "x"))


def _check(operation: str, x: Tensor) -> None:
    if x.ndim < 3:
        raise ValueError(f"{operation}: expected (batch, channels, *lengths), got {x.shape}")
    if not is_floating(x.dtype):
        raise TypeError(f"{operation}: x must be floating, not {x.dtype}")


def _check_padding(operation: str, found: Window) -> None:
    if any(2 * p > k for p, k in zip(found.padding, found.kernel, strict=True)):
        raise ValueError(
            f"{operation}: padding {found.padding} is more than half of the kernel {found.kernel}"
        )


@checked_arguments
def max_pool(
    x: Tensor, kernel: Sizes, *, stride: Sizes | None = None, padding: Sizes = 0,
    dilation: Sizes = 1, ceil_mode: bool = False,
) -> Tensor:  # fmt: skip
    """The largest element under the kernel at every place.

    The first of equal elements gets the gradient; the first NaN gets NaN.

    x: (batch, channels, *lengths), floating.
    kernel: the window size, one number or one per axis.
    stride: by default the kernel's size.
    padding: at most half the kernel; padded elements never win.
    dilation: the distance between elements of a window.
    ceil_mode: include a last window that only starts within the input or the padding before it.

    Result: (batch, channels, *places). ValueError for sizes that do not fit.

    >>> from rumus.tensor import max_pool, tensor
    >>> max_pool(tensor([[[1.0, 3.0, 2.0, 0.0]]]), 2)[0, 0].tolist()
    [3.0, 2.0]
    """
    _check("max_pool", x)
    lengths = x.shape[2:]
    found = window("max_pool", lengths, kernel, stride, padding, dilation)
    _check_padding("max_pool", found)
    if ceil_mode and any(extra := _beyond(found, lengths)):
        sides = [(p, p + e) for p, e in zip(found.padding, extra, strict=True)]
        wide = pad(x, [(0, 0), (0, 0), *sides], -math.inf)
        return max_pool(wide, found.kernel, stride=found.stride, dilation=found.dilation)
    backend, places, outer = x._backend, found.places(lengths), x.shape[:2]
    if found.axes <= 2 and x.dtype != float16 and backend.fused("max_pool") is not None:
        return _fused_max_pool(x, found)
    padded = _padded(backend, found, x._array, lengths, -math.inf)
    out = backend.allocate((*outer, *places), x.dtype)
    backend.fill(-math.inf, out)
    for _, view in found.views(places):
        part = padded[(slice(None), slice(None), *view)]
        backend.elementwise(_LARGER, (out, part), (), (out,))

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array | None]:
        shares = backend.allocate(padded.shape, gradient.dtype)
        taken = backend.allocate(out.shape, gradient.dtype)
        backend.fill(0, shares)
        backend.fill(0, taken)
        kernel, around = _FIRST_LARGEST, padded
        if any(found.padding):
            kernel = _FIRST_LARGEST_INSIDE
            around = _padded(
                backend, found, compute(backend, _MARKED, (x._array,)), lengths, math.nan
            )
        for _, view in found.views(places):
            at = (slice(None), slice(None), *view)
            arrays = (shares[at], taken, around[at], out, gradient)
            backend.elementwise(kernel, arrays, (), (shares[at], taken))
        return (_interior(backend, found, shares, lengths),)

    return result_of("max_pool", out, backend, (x,), vjp, saved=(x,), reads_result=True)


def _fused_max_pool(x: Tensor, found: Window) -> Tensor:
    """Run the backend's fused version: for one or two spatial axes, float32 and float64."""
    backend, array = x._backend, x._array
    forward, back = backend.fused("max_pool"), backend.fused("max_pool_gradient")
    assert forward is not None
    assert back is not None
    out = backend.allocate((*x.shape[:2], *found.places(x.shape[2:])), x.dtype)
    forward(found, array, out)

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array | None]:
        share = backend.allocate(array.shape, gradient.dtype)
        back(found, array, out, gradient, share)
        return (share,)

    return result_of("max_pool", out, backend, (x,), vjp, saved=(x,), reads_result=True)


def _beyond(found: Window, lengths: Shape) -> Shape:
    """How far the last window extends past the padded input if it only has to start inside.

    It must start within the input or the padding before it, as in PyTorch.
    """
    result = []
    rows = zip(lengths, found.kernel, found.stride, found.padding, found.dilation, strict=True)
    for length, kernel, stride, padding, dilation in rows:
        span = (kernel - 1) * dilation + 1
        places = -(-(length + 2 * padding - span) // stride) + 1
        if (places - 1) * stride >= length + padding:
            places -= 1
        result.append(max(0, (places - 1) * stride + span - length - 2 * padding))
    return tuple(result)


def _counted_avg_pool(x: Tensor, found: Window, extra: Shape, count_include_pad: bool) -> Tensor:
    """The mean over the elements that count: sums, divided by their fraction of each window."""
    sides = [(p, p + e) for p, e in zip(found.padding, extra, strict=True)]
    lengths = x.shape[2:]
    counted, around = lengths, sides
    if count_include_pad:
        counted, around = found.padded(lengths), [(0, e) for e in extra]
    mask = ones((1, 1, *counted), dtype=x.dtype, backend=x._backend)
    both = pad(x, [(0, 0), (0, 0), *sides]), pad(mask, [(0, 0), (0, 0), *around])
    means, shares = (avg_pool(each, found.kernel, stride=found.stride) for each in both)
    return means / shares


@checked_arguments
def avg_pool(
    x: Tensor,
    kernel: Sizes,
    *,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean under the kernel at every place; padding zeros count by default.

    x: (batch, channels, *lengths), floating.
    kernel: the window size, one number or one per axis.
    stride: by default the kernel's size.
    padding: zeros on both sides, at most half the kernel.
    ceil_mode: a last place that only begins within the input, or the padding before it, counts as
        well; what lies behind the padding never does.
    count_include_pad: False to divide by the number of elements of the input alone. float16 is
        added up in float32.

    Result: (batch, channels, *places). ValueError for sizes that do not fit.

    >>> from rumus.tensor import avg_pool, tensor
    >>> avg_pool(tensor([[[1.0, 3.0, 2.0, 0.0]]]), 2)[0, 0].tolist()
    [2.0, 1.0]
    """
    _check("avg_pool", x)
    if x.dtype == float16:
        options: dict[str, Any] = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
        wide = avg_pool(cast(x, float32), kernel, stride=stride, padding=padding, **options)
        return cast(wide, float16)
    lengths = x.shape[2:]
    found = window("avg_pool", lengths, kernel, stride, padding)
    _check_padding("avg_pool", found)
    extra = _beyond(found, lengths) if ceil_mode else (0,) * found.axes
    if any(extra) or (not count_include_pad and any(found.padding)):
        return _counted_avg_pool(x, found, extra, count_include_pad)
    is_fused = found.axes <= 2 and x._backend.fused("avg_pool") is not None
    is_tiled = found.stride == found.kernel and not any(found.padding)
    if is_tiled and found.area > (LARGE if is_fused else MANY):
        return _mean_of_tiles(x, found)
    if is_fused:
        return _fused_avg_pool(x, found)
    backend, places, outer = x._backend, found.places(lengths), x.shape[:2]
    factor = 1 / found.area
    padded = _padded(backend, found, x._array, lengths, 0.0)
    out = backend.allocate((*outer, *places), x.dtype)
    backend.fill(0, out)
    for _, view in found.views(places):
        part = padded[(slice(None), slice(None), *view)]
        backend.elementwise(_ADD_SHARE, (out, part), (factor,), (out,))

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array | None]:
        scaled = backend.allocate(gradient.shape, gradient.dtype)
        backend.elementwise(_SCALED, (gradient,), (factor,), (scaled,))
        shares = backend.allocate((*outer, *found.padded(lengths)), gradient.dtype)
        backend.fill(0, shares)
        for _, view in found.views(places):
            part = shares[(slice(None), slice(None), *view)]
            backend.elementwise(ACCUMULATE, (part, scaled), (), (part,))
        return (_interior(backend, found, shares, lengths),)

    return result_of("avg_pool", out, backend, (x,), vjp)


def _mean_of_tiles(x: Tensor, found: Window) -> Tensor:
    """The means of windows that lie side by side: of a whole picture, there may be a million."""
    places = found.places(x.shape[2:])
    inside = tuple(slice(0, n * k) for n, k in zip(places, found.kernel, strict=True))
    tiles = tuple(n for pair in zip(places, found.kernel, strict=True) for n in pair)
    across = tuple(range(3, 3 + 2 * found.axes, 2))
    shares = x[(slice(None), slice(None), *inside)] * (1 / found.area)
    return shares.reshape(*x.shape[:2], *tiles).sum(across)


def _fused_avg_pool(x: Tensor, found: Window) -> Tensor:
    """Run the backend's fused version: for one or two spatial axes."""
    backend, shape = x._backend, x.shape
    forward, back = backend.fused("avg_pool"), backend.fused("avg_pool_gradient")
    assert forward is not None
    assert back is not None
    out = backend.allocate((*shape[:2], *found.places(shape[2:])), x.dtype)
    forward(found, x._array, out)

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array | None]:
        share = backend.allocate(shape, gradient.dtype)
        back(found, gradient, share)
        return (share,)

    return result_of("avg_pool", out, backend, (x,), vjp)


def _padded(backend: Backend, found: Window, x: Array, lengths: Shape, value: float) -> Array:
    if not any(found.padding):
        return x
    padded = backend.allocate((*x.shape[:2], *found.padded(lengths)), x.dtype)
    backend.fill(value, padded)
    backend.copy(x, padded[(slice(None), slice(None), *found.interior(lengths))])
    return padded


def _interior(backend: Backend, found: Window, shares: Array, lengths: Shape) -> Array:
    if not any(found.padding):
        return shares
    share = backend.allocate((*shares.shape[:2], *lengths), shares.dtype)
    backend.copy(shares[(slice(None), slice(None), *found.interior(lengths))], share)
    return share
