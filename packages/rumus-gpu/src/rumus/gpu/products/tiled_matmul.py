"""Matrix products at the speed of float32 arithmetic; the text is in `tiled_matmul_program.py`.

The shape determines the tile (`tiling.py`). If there are too few tiles to fill the device, the
depth is split as well: each part writes its own matrix, and a second kernel adds them in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.stored import Stored, in_fours
from rumus.gpu.products.epilogue import Finish, finish_of
from rumus.gpu.products.line_exponents import LineExponents, Lines, line_exponents
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
from rumus.tensor import float32
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
    """An operand: dense along k or across it, with strides from line to line and along batches."""

    array: GPUArray
    along_k: bool
    stride: int
    outer: int
    inner: int

    @property
    def values(self) -> tuple[int, ...]:
        """Its scalars in the kernel."""
        return self.array.rest, self.stride, self.outer, self.inner

    def lines(self, shape: _Shape, edge: int) -> Lines:
        """The layout of its lines. edge: their number."""
        outer = shape.batches // shape.inner, self.outer
        inner = shape.inner, self.inner
        return Lines(self.array, self.along_k, self.stride, edge, shape.depth, outer, inner)

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
    sides = _sides(a, b, outer, inner)
    arrays = (a, b, out, bias, sums)
    if sides is None or any(x is not None and x.stored.name not in ("f32", "f16") for x in arrays):
        return False
    rows, columns = out.shape[-2:]
    shape = _Shape(rows, columns, a.shape[-1], outer[0] * inner[0], inner[0])
    size = rows, columns, shape.depth, shape.batches
    chosen: tuple[Tile | UnitTile, int, int]
    if level is None:
        chosen = choose(*size, symmetric=symmetric)
    else:
        chosen = choose(*size, tiles=level.tiles, start=START, symmetric=symmetric)
    tile, splits, _ = chosen
    after = _After(bias, sums, epilogue, symmetric and splits == 1 and square_of(tile) is not None)
    fours = in_fours(out.rest, columns, _rest(bias))
    if splits == 1:
        _multiply(gpu, shape, sides, chosen, out, after, fours, level)
        return True
    new = out.backend.allocate
    parts = new((shape.batches, splits, rows, columns), float32)
    part_sums = None if sums is None else new((splits, rows), float32)
    _multiply(gpu, shape, sides, chosen, parts, _After(sums=part_sums), fours, level)
    _add_splits(gpu, parts, part_sums, out, after, splits, fours)
    return True


def _sides(
    a: GPUArray, b: GPUArray, outer: tuple[int, ...], inner: tuple[int, ...]
) -> tuple[_Side, _Side] | None:
    """Both operands, or None if one is not dense."""
    a_along_k, b_along_k = a.strides[-1] == 1, b.strides[-2] == 1 and b.strides[-1] != 1
    if not ((a_along_k or a.strides[-2] == 1) and (b_along_k or b.strides[-1] == 1)):
        return None
    return (
        _Side(a, a_along_k, a.strides[-2 if a_along_k else -1], outer[1], inner[1]),
        _Side(b, b_along_k, b.strides[-1 if b_along_k else -2], outer[2], inner[2]),
    )


def _multiply(
    gpu: Gpu,
    shape: _Shape,
    sides: tuple[_Side, _Side],
    chosen: tuple[Tile | UnitTile, int, int],
    out: GPUArray,
    after: _After,
    in_fours: bool,
    level: Level | None = None,
) -> None:
    """Write the product, or its parts, with the `chosen` tile and splits. in_fours: of the result.

    level: how matrix units multiply; None for float32 arithmetic.
    """
    (a, b), (tile, splits, split_depth) = sides, chosen
    rows, columns, depth = shape.rows, shape.columns, shape.depth
    kinds = Kinds(a.array.stored, b.array.stored, out.stored, *after.stored)
    if after.mirrors:  # adjacent elements of a row also go to a column, one by one
        in_fours = in_fours and _turns(sides, level)
    fours = a.in_fours(shape, rows), b.in_fours(shape, columns), in_fours
    exact = not rows % tile.rows, not columns % tile.columns, not depth % tile.depth
    variant = TiledVariant(tile, kinds, a.along_k, b.along_k, fours, exact, after.finish(out),
                           after.mirrors)  # fmt: skip
    tile_columns = -(-columns // tile.columns)
    tiles = -(-rows // tile.rows) * tile_columns
    groups = tiles * splits * shape.batches
    values = (
        rows,
        columns,
        depth,
        *a.values,
        *b.values,
        out.rest,
        _rest(after.bias),
        shape.inner,
        tile_columns,
        tiles,
        splits,
        split_depth,
        groups,
        _rest(after.sums),
    )
    scaled: Sequence[LineExponents] = ()
    if isinstance(tile, UnitTile):
        assert level is not None
        lines = [
            side.lines(shape, edge)
            for side, edge in ((a, rows), (b, columns))
            if side.array.stored.name == "f32"
        ]
        if lines:
            scaled = line_exponents(gpu, lines)
        unit_variant = UnitVariant(variant, tile, level.units, level.is_high)
        pipeline = gpu.pipeline(("unit_matmul", unit_variant), partial(unit_program, unit_variant))
    else:
        pipeline = gpu.pipeline(("tiled_matmul", variant), partial(tiled_program, variant))
    values += tuple([number for found in scaled for number in found.values])
    exponents = [found.array for found in scaled]
    bound = (a.array, b.array, out, *after.own, *exponents, *after.of_epilogue)
    multiplied = rows * columns * depth * shape.batches
    gpu.dispatch(pipeline, bound, (*values, *after.scalars), groups, multiplied)


def _turns(sides: tuple[_Side, _Side], level: Level | None) -> bool:
    """Whether lanes can also read adjacent elements of a column, from results of matrix units."""
    is_half = all(side.array.stored.name == "f16" for side in sides)
    return is_half and level is not None and not level.is_high


@dataclass(frozen=True, slots=True)
class _After:
    """The bias, sums and epilogue of a product."""

    bias: GPUArray | None = None
    sums: GPUArray | None = None
    epilogue: Epilogue | None = None
    mirrors: bool = False  # elements below the diagonal are written above it as well

    def finish(self, out: GPUArray) -> Finish | None:
        """The epilogue's text in the program that writes `out`."""
        return None if self.epilogue is None else finish_of(self.epilogue.kernel, out.stored)

    @property
    def stored(self) -> tuple[Stored | None, Stored | None]:
        """How bias and sums are stored."""
        bias, sums = self.bias, self.sums
        return None if bias is None else bias.stored, None if sums is None else sums.stored

    @property
    def own(self) -> tuple[GPUArray, ...]:
        """Bias and sums, if present."""
        return tuple(array for array in (self.bias, self.sums) if array is not None)

    @property
    def of_epilogue(self) -> tuple[GPUArray, ...]:
        """The arrays of the epilogue, in the order of their bindings."""
        return () if self.epilogue is None else (*self.epilogue.arrays, *self.epilogue.out)

    @property
    def scalars(self) -> Sequence[float]:
        return () if self.epilogue is None else self.epilogue.scalars


def _add_splits(
    gpu: Gpu,
    parts: GPUArray,
    part_sums: GPUArray | None,
    out: GPUArray,
    after: _After,
    splits: int,
    in_fours: bool,
) -> None:
    """Add up the parts and their sums, with the bias and epilogue."""
    size = out.size // (4 if in_fours else 1)
    kinds = Kinds(parts.stored, parts.stored, out.stored, *after.stored)
    variant = Addition(kinds, in_fours, after.finish(out))
    pipeline = gpu.pipeline(("add_splits", variant), partial(sum_program, variant))
    bound = (parts, out, *after.own, *after.of_epilogue)
    if part_sums is not None:
        bound = (parts, out, part_sums, *after.own, *after.of_epilogue)
    rows = 0 if after.sums is None else out.shape[-2]
    values = (size, splits, out.rest, out.shape[-1], _rest(after.bias), rows,
              _rest(after.sums), *after.scalars)  # fmt: skip
    gpu.dispatch(pipeline, bound, values, -(-(size + rows) // SUM_GROUP))


def _rest(array: GPUArray | None) -> int:
    return 0 if array is None else array.rest
