"""Convolutions over one or two spatial axes, and their gradients, without columns in memory.

Names and arguments are those of `rumus.tensor.operations.convolution`. float16 is read and written
directly, and accumulated in float32. The gradient of the input gathers: with a stride of s, every
s-th pixel along an axis meets the same taps, so there is one dispatch for each of the s (s x s)
kinds of pixels, and none multiplies by zeros. The kernels are in `convolution_program.py`, those
for one channel per group in `depthwise.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final, TypeAlias

from rumus.gpu.convolutions.convolution_loaders import ConvolutionVariant
from rumus.gpu.convolutions.convolution_program import ROLLED, convolution_program
from rumus.gpu.convolutions.depthwise import (
    depthwise,
    depthwise_input,
    depthwise_weight,
    is_depthwise,
)
from rumus.gpu.convolutions.unit_convolution_program import (
    UnitConvolution,
    unit_convolution_program,
)
from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.axes import check_coordinates, two
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.stored import in_fours
from rumus.gpu.device.turns import check_turns
from rumus.gpu.elementwise.copying import dense, writable
from rumus.gpu.products.parts import add_parts
from rumus.gpu.products.tiling import TILES as TILES_OF_PRODUCTS
from rumus.gpu.products.tiling import Tile, choose
from rumus.gpu.products.unit_product import UnitTile
from rumus.gpu.products.unit_tiles import Level, level_of
from rumus.gpu.rows.reduction import reduce
from rumus.tensor import float32, int32
from rumus.tensor.memory.fused import FusedName
from rumus.tensor.operations.convolution import Geometry

TILES: Final = (*TILES_OF_PRODUCTS, (Tile(64, 128, 16, 8, 8), 0.95), (Tile(32, 64, 16, 4, 8), 0.7))
SPLITS: Final = 264  # maximum parts of the depth of a weight's gradient
PARTS: Final = 1 << 26  # maximum bytes of the parts' results
LONGEST: Final = 16_384  # maximum depth of a part, which one invocation adds up


def convolution(
    gpu: Gpu,
    geometry: Geometry,
    x: GPUArray,
    weight: GPUArray,
    bias: GPUArray | None,
    out: GPUArray,
) -> None:
    """out = the convolution of x: (batch, outputs, *places)."""
    check_coordinates("convolution", geometry.window, geometry.lengths)
    if out.size == 0:
        return
    if x.size == 0:  # no channels
        _fill(out, bias)
        return
    x, weight, bias = dense(x), dense(weight), None if bias is None else dense(bias)
    with writable(out, x, weight, bias) as target:
        if is_depthwise(geometry):
            depthwise(gpu, geometry, x, weight, bias, target)
            return
        each = geometry.inputs // geometry.groups
        weights = _Weights(weight, geometry, geometry.outputs // geometry.groups, each,
                           each * geometry.window.area, geometry.window.area)  # fmt: skip
        _map(gpu, weights, x, target, _axes(geometry), bias)


def convolution_input(
    gpu: Gpu, geometry: Geometry, gradient: GPUArray, weight: GPUArray, out: GPUArray
) -> None:
    """out = the gradient of the input: (batch, inputs, *lengths)."""
    check_coordinates("convolution", geometry.window, geometry.lengths)
    if out.size == 0:
        return
    if gradient.size == 0:
        out.backend.fill(0, out)
        return
    gradient, weight = dense(gradient), dense(weight)
    with writable(out, gradient, weight) as target:
        if is_depthwise(geometry):
            depthwise_input(gpu, geometry, gradient, weight, target)
            return
        down, right = (list(_phases(geometry, axis)) for axis in range(2))
        each = geometry.inputs // geometry.groups
        weights = _Weights(weight, geometry, each, geometry.outputs // geometry.groups,
                           geometry.window.area, each * geometry.window.area)  # fmt: skip
        pairs = [(first, second) for first in down for second in right]
        if any(first.taps * second.taps == 0 for first, second in pairs):
            target.backend.fill(0, target)  # pixels that no tap meets
        for first, second in pairs:
            if first.taps * second.taps:
                _map(gpu, weights, gradient, target, (first, second), None)


def convolution_weight(
    gpu: Gpu, geometry: Geometry, x: GPUArray, gradient: GPUArray, out: GPUArray
) -> None:
    """out = the gradient of the weight: (outputs, inputs / groups, *kernel)."""
    check_coordinates("convolution", geometry.window, geometry.lengths)
    if out.size == 0:
        return
    if gradient.size == 0 or x.size == 0:
        out.backend.fill(0, out)
        return
    x, gradient = dense(x), dense(gradient)
    with writable(out, x, gradient) as target:
        if is_depthwise(geometry):
            depthwise_weight(gpu, geometry, x, gradient, target)
        else:
            _weight(gpu, geometry, x, gradient, target)


def convolution_bias(gpu: Gpu, gradient: GPUArray, out: GPUArray) -> None:
    """out = the sum of (batch, outputs, *places) for each of the outputs.

    Places are summed first: they are adjacent in memory, and few sums are left.
    """
    if gradient.size == 0:
        out.backend.fill(0, out)
        return
    batch, outputs = gradient.shape[:2]
    between = out.backend.allocate((batch, outputs), float32)
    reduce(gpu, "sum", dense(gradient).reshape(batch, outputs, -1), (2,), between)
    with writable(out) as target:
        reduce(gpu, "sum", between, (0,), target)


CONVOLUTIONS: Final[Mapping[FusedName, Callable[..., None]]] = {
    "convolution": convolution,
    "convolution_input": convolution_input,
    "convolution_weight": convolution_weight,
    "convolution_bias": convolution_bias,
}


@dataclass(frozen=True, slots=True)
class _Axis:
    """How a map walks one spatial axis: place n and tap t meet pixel n step + first + t gap.

    Tap t is that of the weight at tap_first + t tap_step; place n is written at out_first + n
    out_step.
    """

    step: int
    first: int
    gap: int
    taps: int
    tap_first: int
    tap_step: int
    places: int
    out_first: int
    out_step: int


_Axes: TypeAlias = tuple[_Axis, _Axis]


def _sizes(geometry: Geometry) -> Iterator[tuple[int, ...]]:
    """For each of two axes: stride, padding, dilation, kernel and places."""
    w = geometry.window
    sizes = (w.stride, 1), (w.padding, 0), (w.dilation, 1), (w.kernel, 1), (geometry.places, 1)
    return zip(*(two(given, other) for given, other in sizes), strict=True)


def _axes(geometry: Geometry) -> _Axes:
    """How the convolution itself walks its input."""
    down, right = (_Axis(s, -p, d, n, 0, 1, m, 0, 1) for s, p, d, n, m in _sizes(geometry))
    return down, right


def _phases(geometry: Geometry, axis: int) -> Iterator[_Axis]:
    """Group the pixels along an axis by the taps that they meet."""
    s, p, d, n, _ = list(_sizes(geometry))[axis]
    length = two(geometry.lengths, 1)[axis]
    tap_step = s // math.gcd(s, d)
    for start in range(min(s, length)):
        taps = [tap for tap in range(n) if (start + p - tap * d) % s == 0]
        first = (start + p - taps[0] * d) // s if taps else 0
        places = -(-(length - start) // s)
        yield _Axis(1, first, -(tap_step * d) // s, len(taps), taps[0] if taps else 0, tap_step,
                    places, start, s)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Weights:
    """Weights as the first operand of a map.

    rows, channels: of the result and of the source, in each group; row, channel: their strides.
    """

    array: GPUArray
    geometry: Geometry
    rows: int
    channels: int
    row: int
    channel: int

    @property
    def section(self) -> int:
        """The elements from one group to the next."""
        return self.array.size // self.geometry.groups


def _map(
    gpu: Gpu,
    weights: _Weights,
    source: GPUArray,
    out: GPUArray,
    axes: _Axes,
    bias: GPUArray | None,
) -> None:
    """Write the pixels of `out` that the axes select."""
    down, right = axes
    kernel = down.taps, right.taps
    places = down.places * right.places
    groups = weights.geometry.groups
    rows, columns = weights.rows, out.shape[0] * places
    depth = weights.channels * math.prod(kernel)
    line = two(weights.geometry.window.kernel, 1)[1]
    first_tap = down.tap_first * line + right.tap_first
    level = level_of(gpu, weights.array, source)
    tile, _, _ = _tile(gpu.is_software, rows, columns, depth, groups, level, 1)
    arrays = [weights.array, source, out, *(() if bias is None else (bias,))]
    fours = _fours_of_map(weights, source, out, axes)
    variant = ConvolutionVariant(
        "map",
        tile,
        kernel,
        fours,
        right.places % 4 == 0,
        depth % tile.depth == 0,
        (down.taps, right.taps) == two(weights.geometry.window.kernel, 1),
        tuple(array.stored for array in arrays),
    )
    tiles = -(-rows // tile.rows), -(-columns // tile.columns)
    count = tiles[0] * tiles[1] * groups
    height, width = two(out.shape[2:], 1)
    values = (
        rows, columns, depth, weights.array.rest + first_tap, weights.section, weights.row,
        weights.channel, down.tap_step * line, right.tap_step,
        *_pixels(axes, source),
        out.rest + down.out_first * width + right.out_first, out.shape[1] * height * width,
        height * width, down.out_step * width, right.out_step, 0 if bias is None else bias.rest,
        *tiles, count,
    )  # fmt: skip
    _dispatch(gpu, variant, arrays, values, count, depth, level)


def _fours_of_map(
    weights: _Weights, source: GPUArray, out: GPUArray, axes: _Axes
) -> tuple[bool, bool, bool]:
    """Which of the arrays can be accessed four elements at a time."""
    down, right = axes
    taps, places = down.taps * right.taps, down.places * right.places
    depth = weights.channels * taps
    is_dense = weights.row == depth and taps == weights.geometry.window.area
    is_all = two(out.shape[2:], 1) == (down.places, right.places)
    return (
        is_dense and in_fours(depth, weights.array.rest),
        _is_plain(axes, source) and in_fours(places, source.rest),
        is_all and in_fours(places, out.rest),
    )


def _pixels(axes: _Axes, source: GPUArray) -> tuple[int, ...]:
    """The scalars for the images that both kinds of kernels read, in their order."""
    down, right = axes
    height, width = two(source.shape[2:], 1)
    return (
        source.rest, source.shape[1] * height * width, height, width,
        down.step, right.step, down.first, right.first, down.gap, right.gap,
        down.places * right.places, right.places, down.taps * right.taps, right.taps,
    )  # fmt: skip


def _is_plain(axes: _Axes, source: GPUArray) -> bool:
    """Whether every place meets the pixel of the same number, and no other."""
    rows = zip(axes, two(source.shape[2:], 1), strict=True)
    return all((a.step, a.first, a.taps, a.places) == (1, 0, 1, n) for a, n in rows)


def _dispatch(
    gpu: Gpu,
    variant: ConvolutionVariant,
    arrays: Sequence[GPUArray],
    values: Sequence[int],
    groups: int,
    depth: int,
    level: Level | None,
) -> None:
    what = f"a convolution that adds up {depth:,} products"
    check_turns(arrays[0].backend, what, 2 * depth, "use the CPU")
    wrapped = tuple([value & 0xFFFFFFFF for value in values])
    multiplied = groups * variant.tile.rows * variant.tile.columns * depth
    if level is not None and isinstance(variant.tile, UnitTile):
        on_units = UnitConvolution(variant, variant.tile, level.units, level.is_high)
        scaled = [_exponent(gpu, arrays["ab".index(name)]) for name in on_units.scaled]
        make = partial(unit_convolution_program, on_units)
        pipeline = gpu.pipeline(("unit_convolution", on_units), make)
        gpu.dispatch(pipeline, (*arrays, *scaled), wrapped, groups, multiplied)
        return
    rolled = gpu.is_software
    if rolled:  # one program for all sizes
        variant = ConvolutionVariant(
            variant.kind, ROLLED, (0, 0), (False,) * 3, False, False, False, variant.stored
        )
    plain = partial(convolution_program, variant, rolled)
    pipeline = gpu.pipeline(("convolution", variant, rolled), plain)
    gpu.dispatch(pipeline, arrays, wrapped, groups, multiplied)


def _exponent(gpu: Gpu, array: GPUArray) -> GPUArray:
    """The exponent of the largest finite magnitude in an array, kept until it is written."""
    known = gpu.known(array.storage)
    place = array.offset, array.size if array.is_contiguous else (array.shape, array.strides)
    found: GPUArray | None = known.get(place)
    if found is None:
        found = array.backend.allocate((1,), int32)
        reduce(gpu, "exponent", array, tuple(range(array.ndim)), found)
        known[place] = found
    return found


@lru_cache(maxsize=1024)
def _tile(
    is_rolled: bool,
    rows: int,
    columns: int,
    depth: int,
    groups: int,
    level: Level | None,
    most: int,
) -> tuple[Tile | UnitTile, int, int]:
    """The tile, the number of parts of the depth, up to `most`, and the depth of each.

    Matrix units waste more on products with few rows, so tiles of float32 arithmetic compete.
    """
    tiles: Sequence[tuple[Tile | UnitTile, float]] = TILES
    if is_rolled:
        tiles = ((ROLLED, 1.0),)
    if level is not None:
        tiles = level.of_convolutions if is_rolled else (*tiles, *level.of_convolutions)
    return choose(rows, columns, depth, groups, tiles, range(1, most + 1))


def _weight(gpu: Gpu, geometry: Geometry, x: GPUArray, gradient: GPUArray, out: GPUArray) -> None:
    """The gradient of the weight as a product whose depth is the places of all images."""
    g, axes = geometry, _axes(geometry)
    rows, columns = g.outputs // g.groups, g.depth
    places = math.prod(g.places)
    depth = x.shape[0] * places
    most = max(1, min(SPLITS, min(PARTS, gpu.limits.binding) // (4 * out.size)))
    level = level_of(gpu, gradient, x)
    tile, splits, split_depth = _tile(gpu.is_software, rows, columns, depth, g.groups, level, most)
    fits = gpu.limits.binding // (4 * out.size)
    if split_depth > LONGEST and -(-depth // LONGEST) <= fits:
        splits, split_depth = -(-depth // LONGEST), LONGEST
    target = out
    if splits > 1:
        target = out.backend.allocate((splits, *out.shape), float32)
    fours = (
        in_fours(places, gradient.rest),
        _is_plain(axes, x) and in_fours(places, x.rest),
        in_fours(columns, target.rest),
    )
    arrays = gradient, x, target
    is_run, is_whole = axes[1].places % 4 == 0, depth % tile.depth == 0
    variant = ConvolutionVariant(
        "weight",
        tile,
        two(g.window.kernel, 1),
        fours,
        is_run,
        is_whole,
        False,
        tuple(array.stored for array in arrays),
    )
    tiles = -(-rows // tile.rows), -(-columns // tile.columns)
    count = tiles[0] * tiles[1] * g.groups * splits
    values = (
        rows, columns, depth, gradient.rest, g.outputs * places, *_pixels(axes, x),
        target.rest, g.groups, split_depth, *tiles, count,
    )  # fmt: skip
    _dispatch(gpu, variant, arrays, values, count, split_depth, level)
    if splits > 1:
        add_parts(gpu, target, out)


def _fill(out: GPUArray, bias: GPUArray | None) -> None:
    """The result of a convolution without products."""
    if bias is None:
        out.backend.fill(0, out)
    else:
        out.backend.copy(bias.reshape(bias.size, *[1] * (out.ndim - 2)), out)
