"""Sums of squares of each slot of flat memory, in two dispatches; see `Backend.slot_squares`.

A slot is cut into parts, small ones into one, so that ten thousand small slots and one large one
both are work for the whole device. How it is cut depends on the table alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.commands import Call
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.shaders import shader
from rumus.gpu.device.stored import Stored, vector
from rumus.gpu.elementwise.copying import contiguous
from rumus.tensor.memory.slot_table import ALIGNMENT, SlotTable

LANES: Final = 64
PART: Final = 4096  # elements of a part, at least
MOST: Final = 2048  # parts of a slot, which each of them adds up again


def slot_parts(table: SlotTable) -> NDArray[np.int32]:
    """Return the parts that slots are cut into, [parts, 4]; see slot_squares.wgsl."""
    starts, sizes = table.filled.T
    steps = np.maximum(PART, -(-sizes // (MOST * ALIGNMENT)) * ALIGNMENT)
    counts = -(-sizes // steps)
    firsts = np.cumsum(counts) - counts
    slot = np.repeat(np.arange(len(sizes)), counts)
    begin = (np.arange(len(slot)) - firsts[slot]) * steps[slot]
    end = np.minimum(begin + steps[slot], sizes[slot])
    columns = (starts[slot] + begin, starts[slot] + end, firsts[slot], counts[slot])
    return np.stack(columns, 1).astype(np.int32)


def slot_squares(gpu: Gpu, array: GPUArray, cut: GPUArray, out: GPUArray) -> Iterator[Call]:
    """Yield the two dispatches. cut: `parts`, on the device. out: float32, in memory of its own."""
    number = cut.shape[0]
    source = array if array.is_flat else contiguous(array)
    sums = out.backend.allocate((number,), out.dtype)
    for name, arrays in (("slot_squares", (source, cut, sums)), ("slot_spread", (sums, cut, out))):
        make = partial(slot_program, name, source.stored)
        stored = source.stored.name if name == "slot_squares" else ""
        yield gpu.pipeline((name, stored), make), arrays, (number,), number


def slot_program(name: str, stored: Stored) -> Program:
    """Return the WGSL of one of the two dispatches for elements that are stored like this."""
    half = "enable f16;\n" if name == "slot_squares" and stored.wgsl == "f16" else ""
    load = (
        f"alias Stored = {vector(stored.wgsl, 4)};\n"
        f"fn load(stored: Stored) -> vec4<f32> {{\n    return {stored.load('stored', 4)};\n}}\n"
    )
    text = (
        f"{half}const LANES = {LANES}u;\nconst ROWS = 1u;\n"
        f"{load if name == 'slot_squares' else ''}{shader('row_sum')}\n{shader(name)}"
    )
    return Program(name, text, "rrw", "I", 4 * LANES)
