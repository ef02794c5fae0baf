"""Cumulative sums and sorting.

Names and arguments are those of `rumus.tensor`'s kernels of these names. Nothing is read back: the
indices that a sort writes are known to be in range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.shaders import constants, prelude, shader
from rumus.gpu.device.stored import VALUE, Stored, enabling
from rumus.gpu.elementwise.copying import dense, writable
from rumus.gpu.rows.reduction import ordered_key
from rumus.tensor import int32
from rumus.tensor.memory.fused import FusedName

BLOCK: Final = 1024  # pairs that a workgroup sorts in its memory: 8 KiB of the 16 of any device
WORKGROUP: Final = 256
RUN: Final = 4  # elements per lane in each round of a sum
SHORT: Final = 32  # longest axis that one invocation always sums alone: more lanes would idle


def cumsum(gpu: Gpu, x: GPUArray, out: GPUArray, reverse: bool = False) -> None:
    """out[:, i] = the sum of x[:, :i + 1], or of x[:, i:] in reverse. Integers wrap around."""
    outer, length, inner = x.shape
    lanes = 1 if length <= SHORT or outer * inner >= 4 * length else WORKGROUP
    with writable(out, x) as target:
        source = dense(x)
        stored = source.stored
        make = partial(cumsum_program, stored, lanes)
        pipeline = gpu.pipeline(("cumsum", stored.name, lanes), make)
        lines = outer * inner
        values = (lines, length, inner, int(reverse), source.rest, target.rest)
        groups = lines if lanes > 1 else -(-lines // WORKGROUP)
        gpu.dispatch(pipeline, (source, target), values, groups)


def cumsum_program(stored: Stored, lanes: int) -> Program:
    """Return the WGSL of cumulative sums, with `lanes` invocations per line."""
    value, store = VALUE[stored.kind], stored.store("x", 1)
    text = (
        f"{enabling(stored)}{constants(LANES=lanes, RUN=RUN, WORKGROUP=WORKGROUP)}"
        f"alias Stored = {stored.wgsl};\nalias Value = {value};\n{prelude(store)}\n"
        f"fn value(x: Stored) -> Value {{\n    return {stored.load('x', 1)};\n}}\n"
        f"fn stored(x: Value) -> Stored {{\n    return {store};\n}}\n{shader('cumsum')}"
    )
    return Program("cumsum", text, "rw", "IIIIII", 4 * lanes)


def sort(gpu: Gpu, x: GPUArray, values: GPUArray, indices: GPUArray, descending: bool) -> None:
    """Write the first columns of the sorted rows of x, and their indices.

    Rows of up to `BLOCK` elements take one dispatch; longer ones take more, for the rounds over
    distances of a block or more.
    """
    with writable(values, x) as found, writable(indices, x) as numbers:
        _sort_rows(gpu, dense(x), found, numbers, descending)
    indices.bounds = indices.storage.writes, 0, x.shape[1] - 1


def _sort_rows(
    gpu: Gpu, x: GPUArray, values: GPUArray, indices: GPUArray, descending: bool
) -> None:
    (rows, length), count = x.shape, values.shape[1]
    padded = max(2, 1 << (length - 1).bit_length())
    block = min(BLOCK, padded)
    blocks = padded // block
    starts = (int(descending), x.rest, values.rest, indices.rest, rows * blocks)
    between = x.backend.allocate((2 * rows * padded if blocks > 1 else 2,), int32)

    def within(size: int, is_first: bool, is_last: bool) -> None:
        key = ("sort", x.stored.name, block, is_first, is_last)
        pipeline = gpu.pipeline(key, partial(sort_program, x.stored, block, is_first, is_last))
        arrays = (x, values, indices, between)
        numbers = (length, blocks, count, size, *starts)
        gpu.dispatch(pipeline, arrays, numbers, rows * blocks)

    within(block, True, blocks == 1)
    size = 2 * block
    while size <= padded:
        distance = size // 2
        while distance >= block:
            exchanges = rows * padded // 2
            pipeline = gpu.pipeline("sort_exchange", exchange_program)
            numbers = (exchanges, distance, size, padded)
            gpu.dispatch(pipeline, (between,), numbers, -(-exchanges // WORKGROUP))
            distance //= 2
        within(size, False, size == padded)
        size *= 2


def sort_program(stored: Stored, block: int, is_first: bool, is_last: bool) -> Program:
    """Return the WGSL of a sort within blocks; see sort.wgsl."""
    lanes = max(1, min(WORKGROUP, block // 2))
    sizes = constants(BLOCK=block, LANES=lanes, IS_FIRST=is_first, IS_LAST=is_last)
    functions, key = ordered_key(stored.kind)
    text = (
        f"{enabling(stored)}{sizes}alias Stored = {stored.wgsl};\n{functions}\n"
        f"fn key(stored: Stored) -> u32 {{\n    let x = {stored.load('stored', 1)};\n"
        f"    return {key};\n}}\n{shader('sort')}"
    )
    return Program("sort", text, "rwww", "IIIIIIIII", 8 * block)


def exchange_program() -> Program:
    """Return the WGSL of a round over distances of a block or more."""
    return Program("sort_exchange", shader("sort_exchange"), "w", "IIII")


def sort_gradient(gpu: Gpu, indices: GPUArray, gradient: GPUArray, into: GPUArray) -> None:
    """into[row, indices[row, i]] = gradient[row, i], 0 elsewhere."""
    length, count = into.shape[1], indices.shape[1]
    with writable(into, indices, gradient) as target:
        if count < length:
            target.backend.fill(0, target)
        if not indices.size:
            return
        index, source = dense(indices), dense(gradient)
        stored = source.stored
        make = partial(sort_gradient_program, stored)
        pipeline = gpu.pipeline(("sort_gradient", stored.name), make)
        values = (index.size, count, length, index.rest, source.rest, target.rest)
        arrays = (index, source, target)
        gpu.dispatch(pipeline, arrays, values, -(-index.size // WORKGROUP))


def sort_gradient_program(stored: Stored) -> Program:
    """Return the WGSL that puts the gradients of a sort back."""
    text = f"{enabling(stored)}alias Stored = {stored.wgsl};\n{shader('sort_gradient')}"
    return Program("sort_gradient", text, "rrw", "IIIIII")


ORDERING: Final[Mapping[FusedName, Callable[..., None]]] = {
    "cumsum": cumsum,
    "sort": sort,
    "sort_gradient": sort_gradient,
}
