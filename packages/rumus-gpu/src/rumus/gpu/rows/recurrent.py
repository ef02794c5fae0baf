"""The cells of LSTM, GRU and RNN: one dispatch per step, forward or backward.

Names and arguments are those of `rumus.tensor.backends.numpy_recurrent`; everything is float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.shaders import constants, prelude, shader
from rumus.gpu.elementwise.copying import dense
from rumus.tensor.memory.fused import FusedName
from rumus.tensor.memory.time_step import TimeStep

WORKGROUP: Final = 64
# The access to each argument: "r" and "w", or "g" for one that is read and may start anywhere.
_ACCESS: Final[Mapping[FusedName, str]] = {
    "lstm_cell": "grwww",
    "lstm_cell_gradient": "rrgrwww",
    "gru_cell": "grww",
    "gru_cell_gradient": "rrgrwww",
    "rnn_cell": "grw",
    "rnn_cell_gradient": "rgrww",
}


def _cell(gpu: Gpu, name: FusedName, *given: GPUArray | bool | TimeStep | None) -> None:
    """Dispatch a cell. Its outputs were allocated for it: dense, from the start of a binding."""
    step = given[-1]
    assert isinstance(step, TimeStep)
    is_relu = any(g is True for g in given)
    arrays = [g for g in given if isinstance(g, GPUArray)]
    at = _ACCESS[name].index("g")
    arrays[at] = dense(arrays[at])
    start, first, has_lengths = arrays[at].rest, 0, step.lengths is not None
    batch, hidden = arrays[-1 if name.endswith("cell") else at].shape[1:]
    if batch == 0:
        return
    if has_lengths:
        arrays.append(dense(step.lengths))
        first = arrays[-1].rest
    make = partial(cell_program, name, has_lengths, is_relu)
    pipeline = gpu.pipeline((name, has_lengths, is_relu), make)
    count = batch * hidden
    values = (count, batch, hidden, step.time, step.source, step.target, start, first)
    gpu.dispatch(pipeline, arrays, values, -(-count // WORKGROUP))


def cell_program(name: FusedName, has_lengths: bool, is_relu: bool) -> Program:
    """Return the WGSL of a cell, for samples of one length or of several."""
    access = _ACCESS[name].replace("g", "r")
    lasts = "k.time < lengths[k.lengths_start + sample]" if has_lengths else "true"
    text = constants(IS_RELU=is_relu)
    if has_lengths:
        text += f"@group(0) @binding({len(access)}) var<storage, read> lengths: array<u32>;\n"
        access += "r"
    text += f"fn lasts(sample: u32) -> bool {{\n    return {lasts};\n}}\n"
    text += shader("recurrent") + shader(name)
    return Program(name, prelude(text) + text, access, "IIIIIIII")


def _runner(name: FusedName) -> Callable[..., None]:
    return lambda gpu, *given: _cell(gpu, name, *given)


CELLS: Final[Mapping[FusedName, Callable[..., None]]] = {name: _runner(name) for name in _ACCESS}
