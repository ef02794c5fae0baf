"""Max pooling and average pooling over one or two axes: one dispatch forward, one backward.

Names and arguments are those of `rumus.tensor.operations.pooling`; everything is float32. In
backward, each element gathers from the windows that contain it, so there are no atomics. The sizes
of the window are compiled in, those of the arrays are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from rumus.gpu.device.array import GPUArray, Shape
from rumus.gpu.device.axes import check_coordinates, two
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.shaders import shader
from rumus.gpu.device.turns import check_turns
from rumus.gpu.elementwise.copying import contiguous
from rumus.tensor.memory.fused import FusedName
from rumus.tensor.memory.window import Window

WORKGROUP: Final = 256


def max_pool(gpu: Gpu, window: Window, x: GPUArray, out: GPUArray) -> None:
    """out: (batch, channels, *places) = the largest of each window of x; NaN wins."""
    _run(gpu, "max_pool", window, x.shape, out.shape, (x, out))


def max_pool_gradient(
    gpu: Gpu, window: Window, x: GPUArray, out: GPUArray, gradient: GPUArray, into: GPUArray
) -> None:
    """Give each place's gradient to the first element of its window that equals `out`."""
    arrays = x, out, gradient, into
    if _is_apart(window, x.shape, out.shape):
        _run(gpu, "max_pool_gradient_apart", window, x.shape, out.shape, arrays, out.size)
    else:
        _run(gpu, "max_pool_gradient", window, x.shape, out.shape, arrays)


def _is_apart(window: Window, lengths: Shape, places: Shape) -> bool:
    """Whether every element is in exactly one window."""
    sizes = two(window.kernel, 1), two(window.padding, 0), two(window.dilation, 1)
    axes = zip(*sizes, two(window.stride, 1), two(lengths[2:], 1), two(places[2:], 1), strict=True)
    return all(
        (kernel, padding, dilation) == (stride, 0, 1) and kernel * number == length
        for kernel, padding, dilation, stride, length, number in axes
    )


def avg_pool(gpu: Gpu, window: Window, x: GPUArray, out: GPUArray) -> None:
    """out: (batch, channels, *places) = the mean of each window of x, padded with zeros."""
    _run(gpu, "avg_pool", window, x.shape, out.shape, (x, out))


def avg_pool_gradient(gpu: Gpu, window: Window, gradient: GPUArray, into: GPUArray) -> None:
    """Share each place's gradient among the elements of its window."""
    _run(gpu, "avg_pool_gradient", window, into.shape, gradient.shape, (gradient, into))


POOLS: Final[Mapping[FusedName, Callable[..., None]]] = {
    "max_pool": max_pool,
    "max_pool_gradient": max_pool_gradient,
    "avg_pool": avg_pool,
    "avg_pool_gradient": avg_pool_gradient,
}


def _run(
    gpu: Gpu,
    name: str,
    window: Window,
    lengths: Shape,
    places: Shape,
    arrays: tuple[GPUArray, ...],
    invocations: int | None = None,
) -> None:
    """Dispatch a kernel. The last array is written, contiguous and in its own memory.

    invocations: by default one for each element that is written.
    """
    check_coordinates(name, window, lengths[2:])
    *inputs, out = arrays
    if out.size == 0:
        return
    # Each element of a window searches it again.
    looks = window.area if name == "max_pool_gradient" else 1
    shorter = "use a smaller window or the CPU"
    turns = (window.area + 2 * window.kernel[0]) * looks
    check_turns(out.backend, f"{name} of windows of {window.kernel}", turns, shorter)
    pipeline = gpu.pipeline((name, window), partial(pooling_program, name, window))
    bound = (*map(contiguous, inputs), out)
    sizes = (*two(lengths[2:], 1), *two(places[2:], 1))
    size = out.size if invocations is None else invocations
    gpu.dispatch(pipeline, bound, (size, *sizes, 1 / window.area), -(-size // WORKGROUP))


def pooling_program(name: str, window: Window) -> Program:
    """Return the WGSL of one of the kernels for a window of one or two axes."""
    sizes = {
        "KERNEL": two(window.kernel, 1), "STRIDE": two(window.stride, 1),
        "PADDING": two(window.padding, 0), "DILATION": two(window.dilation, 1),
    }  # fmt: skip
    constants = [f"const {size} = vec2<i32>({a}, {b});\n" for size, (a, b) in sizes.items()]
    inputs = 3 if name.startswith("max_pool_gradient") else 1
    start = f"const WORKGROUP = {WORKGROUP}u;\n" + "".join(constants)
    start += f"@group(0) @binding({inputs}) var<storage, read_write> written: array<f32>;\n"
    access = "r" * inputs + "w"
    entry = "" if name.endswith("_apart") else shader("window_elements")
    text = start + shader("windows") + shader(name) + entry
    return Program(name, text, access, "Iiiiif")
