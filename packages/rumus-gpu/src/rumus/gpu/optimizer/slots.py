"""Sums per slot of flat memory, or over all slots, in two dispatches; see `Backend.slot_sums`.

Slots are split into parts, a small one into just one, so that ten thousand small slots and one
large slot both occupy the whole device. The split depends only on the table.
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
PART: Final = 4096  # minimum elements per part
MOST: Final = 2048  # maximum parts per slot: in slot_spread.wgsl each part adds up all of them
_HEAD: Final = f"const LANES = {LANES}u;\nconst ROWS = 1u;\n"


def slot_parts(table: SlotTable) -> NDArray[np.int32]:
    """Return the parts that slots are split into, [parts, 4]; see slot_sums.wgsl."""
    starts, sizes = table.filled.T
    steps = np.maximum(PART, -(-sizes // (MOST * ALIGNMENT)) * ALIGNMENT)
    counts = -(-sizes // steps)
    firsts = np.cumsum(counts) - counts
    slot = np.repeat(np.arange(len(sizes)), counts)
    begin = (np.arange(len(slot)) - firsts[slot]) * steps[slot]
    end = np.minimum(begin + steps[slot], sizes[slot])
    columns = (starts[slot] + begin, starts[slot] + end, firsts[slot], counts[slot])
    return np.stack(columns, 1).astype(np.int32)


def slot_sums(
    gpu: Gpu,
    array: GPUArray,
    cut: GPUArray,
    out: GPUArray,
    squared: bool,
    added: bool = False,
) -> Iterator[Call]:
    """Yield the two dispatches.

    cut: the result of `slot_parts`, on the device. out: float32, in its own memory; without axes
    for the sum over all slots. squared: sum the squares. added: add to the contents of `out`.
    """
    number = cut.shape[0]
    source = array if array.is_flat else contiguous(array)
    sums = out.backend.allocate((number,), out.dtype)
    name = "slot_squares" if squared else "slot_sums"
    make = partial(_parts_program, name, source.stored, squared)
    yield gpu.pipeline((name, source.stored.name), make), (source, cut, sums), (number,), number
    if out.shape:
        spread = gpu.pipeline("slot_spread", partial(_program, "slot_spread", "rrw", "I"))
        yield spread, (sums, cut, out), (number,), number
    else:
        total = gpu.pipeline("slot_total", partial(_program, "slot_total", "rw", "II"))
        yield total, (sums, out), (number, added), 1


def _parts_program(name: str, stored: Stored, squared: bool) -> Program:
    """The WGSL that sums each part, for elements stored like `stored`."""
    half = "enable f16;\n" if stored.wgsl == "f16" else ""
    load = (
        f"alias Stored = {vector(stored.wgsl, 4)};\n"
        f"fn load(stored: Stored) -> vec4<f32> {{\n    return {stored.load('stored', 4)};\n}}\n"
        f"const SQUARED = {str(squared).lower()};\n"
    )
    return Program(name, f"{half}{_HEAD}{load}{_text('slot_sums')}", "rrw", "I", 4 * LANES)


def _program(name: str, bindings: str, scalars: str) -> Program:
    """The WGSL of the second dispatch."""
    return Program(name, _HEAD + _text(name), bindings, scalars, 4 * LANES)


def _text(name: str) -> str:
    return f"{shader('row_sum')}\n{shader(name)}"
