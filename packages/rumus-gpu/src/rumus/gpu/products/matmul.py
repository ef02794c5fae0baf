"""Matrix products of any strides and batches.

Strides express transposed operands and broadcast batch axes. The kernel walks two batch axes;
operands with more, whose strides do not merge, are copied first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final

from rumus.gpu.device.array import GPUArray, Shape, merged
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.layout import broadcast_strides
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.shaders import constants, prelude, shader
from rumus.gpu.device.stored import Stored, enabling
from rumus.gpu.elementwise.copying import contiguous, copy_strided, dense
from rumus.gpu.products.epilogue import Finish, finish_of
from rumus.gpu.products.parts import add_parts
from rumus.gpu.products.tiled_matmul import tiled_matmul
from rumus.gpu.products.unit_tiles import level_of
from rumus.gpu.rows.reduction import reduce
from rumus.tensor import float32
from rumus.tensor.expression.kernel import trace
from rumus.tensor.memory.backend import Epilogue

TILE: Final = 32
LONG: Final = 65_536  # maximum terms of a product that is not computed in parts
LONG_IN_SOFTWARE: Final = 16_384  # the same, if one invocation adds up all terms
WORKGROUP_BYTES: Final = 2 * 576 * 4


@dataclass(frozen=True, slots=True)
class MatmulVariant:
    """The key of a pipeline: how arrays are stored, and what else is computed."""

    a: Stored
    b: Stored
    c: Stored
    bias: Stored | None
    sums: Stored | None
    along_k: tuple[bool, bool]  # whether elements adjacent along k are adjacent in memory
    finish: Finish | None

    @property
    def access(self) -> str:
        """The access to each binding."""
        own = "rrw" + "r" * (self.bias is not None) + "w" * (self.sums is not None)
        return own + (self.finish.access if self.finish else "")


def matmul_program(variant: MatmulVariant) -> Program:
    """Return the WGSL of a product in tiles."""
    members = variant.finish.members if variant.finish else ()
    text = "\n".join(_parts(variant))
    text += shader("matmul").replace(
        "    tiles: u32,\n", "\n    ".join(["    tiles: u32,", *members]) + "\n"
    )
    scalars = "I" * 20 + "f" * len(members)
    return Program("matmul", text, variant.access, scalars, WORKGROUP_BYTES)


def _parts(variant: MatmulVariant) -> Iterator[str]:
    """The text before matmul.wgsl."""
    a, b, c, bias, sums = variant.a, variant.b, variant.c, variant.bias, variant.sums
    stored = [each for each in (a, b, c, bias, sums) if each is not None]
    yield enabling(*stored)
    along = variant.along_k
    yield constants(A_ALONG_K=along[0], B_ALONG_K=along[1], SUMS=sums is not None)
    names = ["a", "b", "c", *(["bias"] if bias else []), *(["sums"] if sums else [])]
    for number, (name, each) in enumerate(zip(names, stored, strict=True)):
        mode = "read_write" if name in ("c", "sums") else "read"
        yield f"@group(0) @binding({number}) var<storage, {mode}> {name}: array<{each.wgsl}>;"
    yield f"fn value_a(x: {a.wgsl}) -> f32 {{\n    return {a.load('x', 1)};\n}}"
    yield f"fn value_b(x: {b.wgsl}) -> f32 {{\n    return {b.load('x', 1)};\n}}"
    added = bias.load("bias[k.bias_start + column]", 1) if bias else "0.0"
    yield f"fn bias_at(column: u32) -> f32 {{\n    return {added};\n}}"
    written = f"c[k.c_start + at] = {c.store('x', 1)};"
    if finish := variant.finish:
        yield from finish.declare(len(names), 1)
        yield finish.function
        given = finish.given("at", False)
        written = "\n    ".join(finish.store("at", "k.c_start + at", "x", given, False))
    kept = f"sums[k.sums_start + row] = {sums.store('x', 1)};" if sums else ""
    yield prelude(written + kept)
    yield f"fn write(at: u32, x: f32) {{\n    {written}\n}}"
    yield f"fn write_sum(row: u32, x: f32) {{\n    {kept}\n}}\n"


def is_long(gpu: Gpu, a: GPUArray) -> bool:
    """Whether a product is computed in parts, as one invocation would add up too many terms."""
    return a.shape[-1] > (LONG_IN_SOFTWARE if gpu.is_software else LONG)


def matmul(
    gpu: Gpu,
    a: GPUArray,
    b: GPUArray,
    out: GPUArray,
    bias: GPUArray | None,
    sums: GPUArray | None = None,
    epilogue: Epilogue | None = None,
    symmetric: bool = False,
) -> None:
    """out = a @ b + bias, and `sums` of the rows of a.

    Outputs are contiguous and in their own memory; no axis has length 0. epilogue: one that `fits`;
    None if the product `is_long`. symmetric: `out` equals its transpose.
    """
    batch = out.shape[:-2]
    if is_long(gpu, a):
        _in_parts(gpu, a, b, out, bias, sums)
        return
    a, b, batches = _walkable(a, b, batch)
    bias = None if bias is None else dense(bias)
    level = level_of(gpu, a, b)
    # A software GPU would take seconds to compile an unrolled kernel.
    if (level is not None or not gpu.is_software) and tiled_matmul(
        gpu,
        a,
        b,
        out,
        *batches,
        bias=bias,
        sums=sums,
        epilogue=epilogue,
        level=level,
        symmetric=symmetric,
    ):
        return
    rows, columns = out.shape[-2:]
    (outer, a_outer, b_outer), (inner, a_inner, b_inner) = batches
    tile_rows, tile_columns = -(-rows // TILE), -(-columns // TILE)
    tiles = outer * inner * tile_rows * tile_columns
    a_row, a_step = a.strides[-2:]
    b_step, b_column = b.strides[-2:]
    starts = (0 if array is None else array.rest for array in (bias, sums))
    values = (rows, columns, a.shape[-1], inner, a.rest, a_row, a_step, a_outer, a_inner,
              b.rest, b_step, b_column, b_outer, b_inner, out.rest, *starts,
              tile_rows, tile_columns, tiles, *(epilogue.scalars if epilogue else ()))  # fmt: skip
    arrays = tuple(array for array in (a, b, out, bias, sums) if array is not None)
    variant = MatmulVariant(
        a.stored, b.stored, out.stored, bias.stored if bias is not None else None,
        sums.stored if sums is not None else None,
        (a_step == 1, b_step == 1 and b_column != 1),
        finish_of(epilogue.kernel, out.stored) if epilogue else None,
    )  # fmt: skip
    pipeline = gpu.pipeline(("matmul", variant), partial(matmul_program, variant))
    others = (*epilogue.arrays, *epilogue.out) if epilogue else ()
    multiplied = rows * columns * a.shape[-1] * outer * inner
    gpu.dispatch(pipeline, (*arrays, *others), values, tiles, multiplied)


_ADD: Final = trace(lambda product, bias: product + bias, "add_bias")


def _in_parts(
    gpu: Gpu,
    a: GPUArray,
    b: GPUArray,
    out: GPUArray,
    bias: GPUArray | None,
    sums: GPUArray | None,
) -> None:
    """A long product as the sum of its parts' products, along an extra batch axis."""
    backend, depth = out.backend, a.shape[-1]
    run = LONG_IN_SOFTWARE // 2
    whole = depth // run
    parts = backend.allocate((-(-depth // run), *out.shape), float32)
    left, right = _cut(a, -1, whole, run, out.ndim), _cut(b, -2, whole, run, out.ndim)
    matmul(gpu, left, right, parts[:whole], None)
    if rest := depth - whole * run:
        matmul(gpu, a[..., -rest:], b[..., -rest:, :], parts[whole], None)
    add_parts(gpu, parts, out)
    if bias is not None:
        backend.elementwise(_ADD, (out, bias), (), (out,))
    if sums is not None:
        reduce(gpu, "sum", a, (1,), sums)


def _cut(matrix: GPUArray, axis: int, parts: int, run: int, ndim: int) -> GPUArray:
    """Runs of an axis as a new first batch axis: (parts, *batch, rows, columns)."""
    at = matrix.ndim + axis
    shape = matrix.shape
    inside = matrix[(slice(None),) * at + (slice(0, parts * run),)]
    cut = inside.reshape(*shape[:at], parts, run, *shape[at + 1 :])
    order = (at, *(i for i in range(cut.ndim) if i != at))
    ones = (1,) * (ndim - matrix.ndim)
    first = cut.transpose(order)
    return first.reshape(parts, *ones, *first.shape[1:]) if ones else first


_Batches = tuple[tuple[int, ...], tuple[int, ...]]


def _walkable(a: GPUArray, b: GPUArray, batch: Shape) -> tuple[GPUArray, GPUArray, _Batches]:
    """The operands, copied if necessary, and two batch axes as (length, stride of a, of b)."""
    batches = _walked(batch, a.shape, a.strides, b.shape, b.strides)
    if batches is None:
        return _walkable(_repeated(a, batch), _repeated(b, batch), batch)
    if min(*a.strides[-2:], *b.strides[-2:]) < 0:
        return _walkable(contiguous(a), contiguous(b), batch)
    return a, b, batches


@lru_cache(maxsize=4096)
def _walked(
    batch: Shape, a: Shape, a_strides: Shape, b: Shape, b_strides: Shape
) -> _Batches | None:
    """Two batch axes as (length, stride of a, of b); None if two cannot walk these operands."""
    steps_a = broadcast_strides(a, a_strides, (*batch, *a[-2:]))[:-2]
    steps_b = broadcast_strides(b, b_strides, (*batch, *b[-2:]))[:-2]
    runs = merged(batch, steps_a, steps_b)
    if len(runs) > 2 or any(step < 0 for run in runs for step in run):
        return None
    outer, inner = ((1, 0, 0),) * (2 - len(runs)) + runs
    return outer, inner


def _repeated(array: GPUArray, batch: Shape) -> GPUArray:
    """A copy with every batch in its own memory."""
    copy = array.backend.allocate((*batch, *array.shape[-2:]), array.dtype)
    copy_strided(array.backend.gpu, array, copy)
    return copy
