"""Rows by index: gather, and its transpose, scatter-add.

Indices are checked before anything is written. The bounds of uploaded indices are known; only
indices computed on the device are read back.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Final

from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.shaders import prelude, shader
from rumus.gpu.device.stored import VALUE, Stored, enabling
from rumus.gpu.elementwise.copying import dense
from rumus.gpu.rows.reduction import reduce
from rumus.tensor import float16, float32, int32

WORKGROUP: Final = 64
POSITIONS: Final = 8192  # per dispatch: each position is compared with all others


def check_index(gpu: Gpu, index: GPUArray, length: int) -> None:
    """Raise IndexError if an index is outside [0, length)."""
    if index.size == 0:
        return
    if gpu.watcher:
        gpu.watcher.index_checked(index, length)
    low, high = index.known_bounds() or (-1, length)
    if low < 0 or high >= length:  # the bounds may be those of a larger array that contains it
        low, high = _bounds(gpu, index)
    if low < 0 or high >= length:
        raise IndexError(f"index {low if low < 0 else high} is outside [0, {length})")


def _bounds(gpu: Gpu, index: GPUArray) -> tuple[int, int]:
    """The smallest and largest index, read from the device.

    A step that is observed does this only where the numbers are not known from the time before.
    """
    with gpu.watched_by(None):
        pair = index.backend.allocate((2,), int32)
        axes = tuple(range(index.ndim))
        reduce(gpu, "min", index, axes, pair[0])
        reduce(gpu, "max", index, axes, pair[1])
    low, high = gpu.read(pair)
    index.bounds = index.storage.writes, int(low), int(high)
    return int(low), int(high)


def gather(gpu: Gpu, table: GPUArray, index: GPUArray, out: GPUArray) -> None:
    """out[i...] = table[index[i...]]; `out` is contiguous and in its own memory."""
    table, index = dense(table), dense(index)
    width = math.prod(table.shape[1:])
    lanes = 1 if width % 4 or table.rest % 4 or out.rest % 4 else 4
    element = table.stored.wgsl if lanes == 1 else f"vec4<{table.stored.wgsl}>"
    pipeline = gpu.pipeline(("gather", element), partial(gather_program, element))
    values = (out.size // lanes, width // lanes, table.shape[0],
              table.rest // lanes, index.rest, out.rest // lanes)  # fmt: skip
    gpu.dispatch(pipeline, (table, index, out), values, -(-out.size // (lanes * WORKGROUP)))


def gather_program(element: str) -> Program:
    """Return the WGSL that copies elements, or vectors, of one type."""
    half = "enable f16;\n" if "f16" in element else ""
    text = f"{half}alias Element = {element};\n{shader('gather')}"
    return Program("gather", text, "rrw", "IIIIII")


def scatter_add(gpu: Gpu, source: GPUArray, index: GPUArray, out: GPUArray) -> None:
    """out[index[i...]] += source[i...]; `out` is contiguous and in its own memory.

    Slices of the positions are added one after another; only the final sum is rounded to float16.
    """
    positions, width = index.size, math.prod(out.shape[1:])
    rows, numbers = dense(source).reshape(positions, width), dense(index).reshape(positions)
    total = out
    if positions > POSITIONS and out.dtype == float16:
        total = out.backend.allocate(out.shape, float32)
        out.backend.copy(out, total)
    for start in range(0, positions, POSITIONS):
        part = slice(start, min(start + POSITIONS, positions))
        _scatter_slice(gpu, rows[part], numbers[part], total)
    if total is not out:
        out.backend.copy(total, out)


def _scatter_slice(gpu: Gpu, source: GPUArray, index: GPUArray, out: GPUArray) -> None:
    positions, width = index.size, math.prod(out.shape[1:])
    following = out.backend.allocate((positions,), int32)
    follows = out.backend.allocate((positions,), int32)
    links = gpu.pipeline("links", lambda: Program("links", shader("links"), "rww", "II", 8))
    arrays = (index, following, follows)
    gpu.dispatch(links, arrays, (positions, index.rest), positions)
    make = partial(scatter_program, source.stored, out.stored)
    pipeline = gpu.pipeline(("scatter_add", source.stored.name, out.stored.name), make)
    count = positions * width
    values = (count, width, out.shape[0], positions, index.rest, source.rest, out.rest)
    arrays = (source, index, following, follows, out)  # type: ignore[assignment]
    gpu.dispatch(pipeline, arrays, values, -(-count // WORKGROUP))


def scatter_program(source: Stored, out: Stored) -> Program:
    """Return the WGSL that adds rows of one dtype to rows of another."""
    kind = "f32" if "f" in (source.kind, out.kind) else VALUE[out.kind]
    store = out.store("x", 1)
    text = (
        f"{enabling(source, out)}"
        f"alias Source = {source.wgsl};\nalias Target = {out.wgsl};\nalias Sum = {kind};\n"
        f"{prelude(store)}\n"
        f"fn source_value(x: Source) -> {kind} {{\n    return {kind}({source.load('x', 1)});\n}}\n"
        f"fn target_value(x: Target) -> {kind} {{\n    return {kind}({out.load('x', 1)});\n}}\n"
        f"fn stored(x: {kind}) -> Target {{\n    return {store};\n}}\n{shader('scatter_add')}"
    )
    return Program("scatter_add", text, "rrrrw", "IIIIIII")


def random_words(gpu: Gpu, key: int, counter: int, out: GPUArray, behind: GPUArray) -> None:
    """Fill contiguous int32 `out` with Philox words; see `Backend.random_words`."""
    first = counter // 4
    values = (out.size, out.rest, key & 0xFFFFFFFF, key >> 32, first & 0xFFFFFFFF, first >> 32)
    pipeline = gpu.pipeline("philox", philox_program)
    gpu.dispatch(pipeline, (out, behind), values, -(-out.size // (4 * WORKGROUP)))


def philox_program() -> Program:
    """Return the WGSL of random words."""
    text = shader("philox")
    return Program("philox", prelude(text) + text, "wr", "IIIIII")
