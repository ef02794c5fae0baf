"""Matrix products of any strides and batches.

A transposed operand is a matter of strides, and so is a batch axis that broadcasts. Two batch axes
are walked by the kernel itself; more of them, with strides that do not join, are copied first.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

from rumus.gpu.array import GPUArray, Shape, merged
from rumus.gpu.copying import contiguous, copy_strided
from rumus.gpu.device import Gpu
from rumus.gpu.layout import broadcast_strides
from rumus.gpu.pipelines import Program
from rumus.gpu.shaders import prelude, shader
from rumus.gpu.storage import Stored
from rumus.gpu.tiled_matmul import tiled_matmul

TILE: Final = 32
WORKGROUP_BYTES: Final = 2 * 576 * 4


def matmul_program(
    a: Stored, b: Stored, c: Stored, bias: Stored | None, a_along_k: bool, b_along_k: bool
) -> Program:
    """Return the WGSL of a product in tiles."""
    parts = _parts(a, b, c, bias, a_along_k, b_along_k)
    access = "rrw" if bias is None else "rrwr"
    text = "\n".join(parts) + shader("matmul")
    return Program("matmul", text, access, "I" * 19, WORKGROUP_BYTES)


def _parts(
    a: Stored, b: Stored, c: Stored, bias: Stored | None, a_along_k: bool, b_along_k: bool
) -> Iterator[str]:
    """What stands in front of matmul.wgsl."""
    bias_type = () if bias is None else (bias.wgsl,)
    yield "enable f16;" if "f16" in (a.wgsl, b.wgsl, c.wgsl, *bias_type) else ""
    yield f"const A_ALONG_K = {str(a_along_k).lower()};"
    yield f"const B_ALONG_K = {str(b_along_k).lower()};"
    yield f"@group(0) @binding(0) var<storage, read> a: array<{a.wgsl}>;"
    yield f"@group(0) @binding(1) var<storage, read> b: array<{b.wgsl}>;"
    yield f"@group(0) @binding(2) var<storage, read_write> c: array<{c.wgsl}>;"
    yield f"fn value_a(x: {a.wgsl}) -> f32 {{\n    return {a.load('x', 1)};\n}}"
    yield f"fn value_b(x: {b.wgsl}) -> f32 {{\n    return {b.load('x', 1)};\n}}"
    yield f"fn stored(x: f32) -> {c.wgsl} {{\n    return {c.store('x', 1)};\n}}"
    yield prelude(c.store("x", 1))
    added = "0.0"
    if bias is not None:
        yield f"@group(0) @binding(3) var<storage, read> bias: array<{bias.wgsl}>;"
        added = bias.load("bias[k.bias_start + column]", 1)
    yield f"fn bias_at(column: u32) -> f32 {{\n    return {added};\n}}\n"


def matmul(gpu: Gpu, a: GPUArray, b: GPUArray, out: GPUArray, bias: GPUArray | None) -> None:
    """out = a @ b + bias. `out` is contiguous and nobody's memory else; nothing has length 0."""
    batch = out.shape[:-2]
    rows, columns = out.shape[-2:]
    depth = a.shape[-1]
    a, b, batches = _walkable(a, b, batch)
    bias = bias if bias is None or bias.is_contiguous else contiguous(bias)
    # A CPU that plays the GPU would spend seconds on compiling what is unrolled.
    if not gpu.is_software and tiled_matmul(gpu, a, b, out, bias, *batches):
        return
    (outer, a_outer, b_outer), (inner, a_inner, b_inner) = batches
    tile_rows, tile_columns = -(-rows // TILE), -(-columns // TILE)
    tiles = outer * inner * tile_rows * tile_columns
    a_row, a_step = a.strides[-2:]
    b_step, b_column = b.strides[-2:]
    start = 0 if bias is None else bias.rest
    values = (rows, columns, depth, inner, a.rest, a_row, a_step, a_outer, a_inner,
              b.rest, b_step, b_column, b_outer, b_inner, out.rest, start,
              tile_rows, tile_columns, tiles)  # fmt: skip
    along = a_step == 1, b_step == 1 and b_column != 1
    names = (a.stored.name, b.stored.name, out.stored.name, bias and bias.stored.name)
    added = None if bias is None else bias.stored
    make = partial(matmul_program, a.stored, b.stored, out.stored, added, *along)
    pipeline = gpu.pipeline(("matmul", *names, *along), make)
    arrays = (a, b, out) if bias is None else (a, b, out, bias)
    gpu.dispatch(pipeline, arrays, values, tiles)


_Batches = tuple[tuple[int, ...], tuple[int, ...]]


def _walkable(a: GPUArray, b: GPUArray, batch: Shape) -> tuple[GPUArray, GPUArray, _Batches]:
    """The operands, copied if need be, and two batch axes as (length, stride of a, of b)."""
    steps_a = broadcast_strides(a, (*batch, *a.shape[-2:]))[:-2]
    steps_b = broadcast_strides(b, (*batch, *b.shape[-2:]))[:-2]
    runs = merged(batch, steps_a, steps_b)
    if len(runs) > 2 or any(step < 0 for run in runs for step in run):
        return _walkable(_repeated(a, batch), _repeated(b, batch), batch)
    if min(*a.strides[-2:], *b.strides[-2:]) < 0:
        return _walkable(contiguous(a), contiguous(b), batch)
    one = (1, 0, 0)
    outer, inner = [one] * (2 - len(runs)) + runs
    return a, b, (outer, inner)


def _repeated(array: GPUArray, batch: Shape) -> GPUArray:
    """A copy with every batch in memory of its own."""
    copy = array.backend.allocate((*batch, *array.shape[-2:]), array.dtype)
    copy_strided(array.backend.gpu, array, copy)
    return copy
