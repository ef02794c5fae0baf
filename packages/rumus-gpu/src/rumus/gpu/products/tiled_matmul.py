"""Matrix products at the speed of float32 arithmetic; the text is in `tiled_matmul_program.py`.

The shape determines the tile (`tiling.py`). If there are too few tiles to fill the device, the
depth is split as well: each part writes its own matrix, and a second kernel adds them in order.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.pipelines import Pipeline
from rumus.gpu.device.stored import FLOAT32, Stored, in_fours
from rumus.gpu.products.epilogue import Finish, finish_of
from rumus.gpu.products.line_exponents import Lines, line_exponents
from rumus.gpu.products.tiled_matmul_program import (
    SUM_GROUP,
    Addition,
    Kinds,
    TiledVariant,
    sum_program,
    tiled_program,
)
from rumus.gpu.products.tiling import Tile, choose, square_of
from rumus.gpu.products.unit_matmul_program import UnitVariant, unit_program
from rumus.gpu.products.unit_product import UnitTile
from rumus.gpu.products.unit_tiles import START, Level
from rumus.tensor import Kernel, float32
from rumus.tensor.memory.backend import Epilogue


@dataclass(frozen=True, slots=True)
class _Shape:
    """A batched product, as the kernel walks it."""

    rows: int
    columns: int
    depth: int
    batches: int
    inner: int  # the length of the second batch axis


@dataclass(frozen=True, slots=True)
class _Side:
    """An operand: dense along k or across it, with strides from line to line and along batches.

    rest: where it starts, see `GPUArray`.
    """

    stored: Stored
    rest: int
    along_k: bool
    stride: int
    outer: int
    inner: int

    @property
    def values(self) -> tuple[int, ...]:
        """Its scalars in the kernel."""
        return self.rest, self.stride, self.outer, self.inner

    def lines(self, array: GPUArray, shape: _Shape, edge: int) -> Lines:
        """The layout of its lines. edge: their number."""
        outer = shape.batches // shape.inner, self.outer
        inner = shape.inner, self.inner
        return Lines(array, self.along_k, self.stride, edge, shape.depth, outer, inner)

    def in_fours(self, shape: _Shape, edge: int) -> bool:
        """Whether it can be read four elements at a time. edge: its length across k."""
        return in_fours(*self.values, shape.depth if self.along_k else edge)


def tiled_matmul(
    gpu: Gpu,
    a: GPUArray,
    b: GPUArray,
    out: GPUArray,
    outer: tuple[int, ...],
    inner: tuple[int, ...],
    *,
    bias: GPUArray | None = None,
    sums: GPUArray | None = None,
    epilogue: Epilogue | None = None,
    level: Level | None = None,
    symmetric: bool = False,
) -> bool:
    """Write a @ b + bias to `out`; if the operands do not allow it, do nothing and return False.

    Arrays must be float32, or float16 if the device has it, and operands dense along k or across
    it. Arrays whose starts and strides are multiples of four are read four elements at a time.
    outer, inner: the length of each batch axis, and the strides of a and b along it.
    symmetric: the result equals its transpose, so tiles above the diagonal are copies of others.
    """
    kernel = None if epilogue is None else epilogue.kernel
    layouts = (a.key, b.key, out.key, _key(bias), _key(sums), outer, inner)

    def make() -> _Plan | None:
        after = _After(_start(bias), _start(sums), kernel)
        return _plan(gpu, a, b, out, outer, inner, after, level, symmetric)

    plan = gpu.plan(("tiled_matmul", layouts, kernel, level, symmetric), make)
    if plan is None:
        return False
    plan.run(gpu, a, b, out, bias, sums, epilogue)
    return True


@dataclass(frozen=True, slots=True)
class _Start:
    """How an array is stored, and where it starts, see `GPUArray.rest`."""

    stored: Stored
    rest: int = 0


def _start(array: GPUArray | None) -> _Start | None:
    return None if array is None else _Start(array.stored, array.rest)


def _key(array: GPUArray | None) -> Hashable:
    return None if array is None else array.key


@dataclass(frozen=True, slots=True)
class _After:
    """What follows a product: a bias, sums of rows, and the kernel of an epilogue."""

    bias: _Start | None = None
    sums: _Start | None = None
    kernel: Kernel | None = None
    mirrors: bool = False  # elements below the diagonal are written above it as well

    def finish(self, out: Stored) -> Finish | None:
        """The epilogue's text in the program that writes the product."""
        return None if self.kernel is None else finish_of(self.kernel, out)

    def kinds(self, a: Stored, b: Stored, out: Stored) -> Kinds:
        """How all arrays are stored."""
        own = [None if start is None else start.stored for start in (self.bias, self.sums)]
        return Kinds(a, b, out, *own)

    @property
    def rests(self) -> tuple[int, int]:
        """Where the bias and the sums start."""
        bias, sums = self.bias, self.sums
        return 0 if bias is None else bias.rest, 0 if sums is None else sums.rest


@dataclass(frozen=True, slots=True)
class _Dispatch:
    """A kernel and its own scalars, for arrays of known layouts.

    multiplied: see `Gpu.dispatch`.
    """

    pipeline: Pipeline
    values: tuple[int, ...]
    groups: int
    multiplied: int = 0


@dataclass(frozen=True, slots=True)
class _Plan:
    """The dispatches of a product, which depend on layouts alone.

    scaled: the operands whose lines have exponents, 0 for a and 1 for b.
    parts: the shape of the parts that the product is split into; None for a product in one piece.
    addition: adds up the parts.
    """

    shape: _Shape
    sides: tuple[_Side, _Side]
    product: _Dispatch
    scaled: tuple[int, ...]
    parts: tuple[int, ...] | None
    addition: _Dispatch | None

    def run(
        self,
        gpu: Gpu,
        a: GPUArray,
        b: GPUArray,
        out: GPUArray,
        bias: GPUArray | None,
        sums: GPUArray | None,
        epilogue: Epilogue | None,
    ) -> None:
        """Dispatch them."""
        own = tuple([array for array in (bias, sums) if array is not None])
        scalars: Sequence[float] = ()
        others: tuple[GPUArray, ...] = ()
        if epilogue is not None:
            scalars, others = epilogue.scalars, (*epilogue.arrays, *epilogue.out)
        if self.addition is None or self.parts is None:
            self._multiply(gpu, a, b, (out, *own), others, scalars)
            return
        parts: tuple[GPUArray, ...] = (out.backend.allocate(self.parts, float32),)
        if sums is not None:
            parts = (*parts, out.backend.allocate(self.parts[1:3], float32))
        self._multiply(gpu, a, b, parts)
        addition = self.addition
        bound = (parts[0], out, *parts[1:], *own, *others)
        gpu.dispatch(addition.pipeline, bound, (*addition.values, *scalars), addition.groups)

    def _multiply(
        self,
        gpu: Gpu,
        a: GPUArray,
        b: GPUArray,
        written: tuple[GPUArray, ...],
        others: tuple[GPUArray, ...] = (),
        scalars: Sequence[float] = (),
    ) -> None:
        """Write the product, or its parts.

        written: it, with a bias and sums. others: the arrays of the epilogue, with `scalars`.
        """
        product = self.product
        values: tuple[float, ...] = product.values
        exponents: tuple[GPUArray, ...] = ()
        if self.scaled:
            found = line_exponents(gpu, [self._lines(number, (a, b)) for number in self.scaled])
            exponents = tuple([each.array for each in found])
            values += tuple([number for each in found for number in each.values])
        bound = (a, b, *written, *exponents, *others)
        gpu.dispatch(
            product.pipeline, bound, (*values, *scalars), product.groups, product.multiplied
        )

    def _lines(self, number: int, arrays: tuple[GPUArray, GPUArray]) -> Lines:
        edge = (self.shape.rows, self.shape.columns)[number]
        return self.sides[number].lines(arrays[number], self.shape, edge)


def _plan(
    gpu: Gpu,
    a: GPUArray,
    b: GPUArray,
    out: GPUArray,
    outer: tuple[int, ...],
    inner: tuple[int, ...],
    after: _After,
    level: Level | None,
    symmetric: bool,
) -> _Plan | None:
    """Choose tiles and pipelines; None for arrays that these kernels do not take."""
    sides = _sides(a, b, outer, inner)
    stored = (a.stored, b.stored, out.stored, *[x.stored for x in (after.bias, after.sums) if x])
    if sides is None or any(each.name not in ("f32", "f16") for each in stored):
        return None
    rows, columns = out.shape[-2:]
    shape = _Shape(rows, columns, a.shape[-1], outer[0] * inner[0], inner[0])
    size = rows, columns, shape.depth, shape.batches
    chosen: tuple[Tile | UnitTile, int, int]
    if level is None:
        chosen = choose(*size, symmetric=symmetric)
    else:
        chosen = choose(*size, tiles=level.tiles, start=START, symmetric=symmetric)
    tile, splits, _ = chosen
    fours = in_fours(out.rest, columns, after.rests[0])
    if splits == 1:
        after = replace(after, mirrors=symmetric and square_of(tile) is not None)
        product = _product(gpu, shape, sides, chosen, _Start(out.stored, out.rest), after, fours,
                           level)  # fmt: skip
        return _Plan(shape, sides, product, _scaled(sides, tile), None, None)
    part = _Start(FLOAT32)
    of_parts = _After(sums=None if after.sums is None else part)
    product = _product(gpu, shape, sides, chosen, part, of_parts, fours, level)
    addition = _addition(gpu, part.stored, out, after, splits, fours)
    parts = shape.batches, splits, rows, columns
    return _Plan(shape, sides, product, _scaled(sides, tile), parts, addition)


def _sides(
    a: GPUArray, b: GPUArray, outer: tuple[int, ...], inner: tuple[int, ...]
) -> tuple[_Side, _Side] | None:
    """Both operands, or None if one is not dense."""
    a_along_k, b_along_k = a.strides[-1] == 1, b.strides[-2] == 1 and b.strides[-1] != 1
    if not ((a_along_k or a.strides[-2] == 1) and (b_along_k or b.strides[-1] == 1)):
        return None
    a_stride, b_stride = a.strides[-2 if a_along_k else -1], b.strides[-1 if b_along_k else -2]
    return (
        _Side(a.stored, a.rest, a_along_k, a_stride, outer[1], inner[1]),
        _Side(b.stored, b.rest, b_along_k, b_stride, outer[2], inner[2]),
    )


def _scaled(sides: tuple[_Side, _Side], tile: Tile | UnitTile) -> tuple[int, ...]:
    """The operands that matrix units get scaled by powers of two."""
    if not isinstance(tile, UnitTile):
        return ()
    return tuple(number for number, side in enumerate(sides) if side.stored.name == "f32")


def _product(
    gpu: Gpu,
    shape: _Shape,
    sides: tuple[_Side, _Side],
    chosen: tuple[Tile | UnitTile, int, int],
    out: _Start,
    after: _After,
    in_fours: bool,
    level: Level | None,
) -> _Dispatch:
    """The product, or its parts, with the `chosen` tile and splits. in_fours: of the result.

    level: how matrix units multiply; None for float32 arithmetic.
    """
    (a, b), (tile, splits, split_depth) = sides, chosen
    rows, columns, depth = shape.rows, shape.columns, shape.depth
    if after.mirrors:  # adjacent elements of a row also go to a column, one by one
        in_fours = in_fours and _turns(sides, level)
    fours = a.in_fours(shape, rows), b.in_fours(shape, columns), in_fours
    exact = not rows % tile.rows, not columns % tile.columns, not depth % tile.depth
    variant = TiledVariant(tile, after.kinds(a.stored, b.stored, out.stored), a.along_k, b.along_k,
                           fours, exact, after.finish(out.stored), after.mirrors)  # fmt: skip
    tile_columns = -(-columns // tile.columns)
    tiles = -(-rows // tile.rows) * tile_columns
    groups = tiles * splits * shape.batches
    bias_rest, sums_rest = after.rests
    values = (
        rows,
        columns,
        depth,
        *a.values,
        *b.values,
        out.rest,
        bias_rest,
        shape.inner,
        tile_columns,
        tiles,
        splits,
        split_depth,
        groups,
        sums_rest,
    )
    if isinstance(tile, UnitTile):
        assert level is not None
        unit_variant = UnitVariant(variant, tile, level.units, level.is_high)
        pipeline = gpu.pipeline(("unit_matmul", unit_variant), partial(unit_program, unit_variant))
    else:
        pipeline = gpu.pipeline(("tiled_matmul", variant), partial(tiled_program, variant))
    return _Dispatch(pipeline, values, groups, rows * columns * depth * shape.batches)


def _turns(sides: tuple[_Side, _Side], level: Level | None) -> bool:
    """Whether lanes can also read adjacent elements of a column, from results of matrix units."""
    is_half = all(side.stored.name == "f16" for side in sides)
    return is_half and level is not None and not level.is_high


def _addition(
    gpu: Gpu, parts: Stored, out: GPUArray, after: _After, splits: int, in_fours: bool
) -> _Dispatch:
    """Adding up the parts and their sums, with the bias and epilogue."""
    size = out.size // (4 if in_fours else 1)
    variant = Addition(after.kinds(parts, parts, out.stored), in_fours, after.finish(out.stored))
    pipeline = gpu.pipeline(("add_splits", variant), partial(sum_program, variant))
    rows = 0 if after.sums is None else out.shape[-2]
    bias_rest, sums_rest = after.rests
    values = size, splits, out.rest, out.shape[-1], bias_rest, rows, sums_rest
    return _Dispatch(pipeline, values, -(-(size + rows) // SUM_GROUP))
