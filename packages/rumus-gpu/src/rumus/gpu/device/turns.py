"""Loops that a driver ends too early.

Mesa's software driver of 2022 silently ends every loop of an invocation once all its loops together
have run 65,535 iterations: the result is that of a shorter row. Kernels with potentially longer
loops check here first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rumus.gpu.device.pipelines import Program
from rumus.gpu.engine.errors import LimitError
from rumus.tensor import int32

if TYPE_CHECKING:
    from rumus.gpu.device.array_backend import ArrayBackend
    from rumus.gpu.device.device import Gpu

KNOWN: Final = 65_535  # iterations that every driver completes
_ASKED: Final = 100_000
_COUNT: Final = """
struct Scalars {
    turns: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read_write> counted: array<u32>;

@compute @workgroup_size(1)
fn main() {
    var count = 0u;
    var state = 1u;
    while (state != 0u && count < k.turns) {  // no compiler can predict when this ends
        state = state * 1664525u + 1013904223u;
        count++;
    }
    counted[0] = count;
}
"""


def check_turns(backend: ArrayBackend, what: str, turns: int, instead: str) -> None:
    """Raise LimitError if the device would cut loops of `turns` iterations short.

    what: the computation. turns: of all loops of one invocation. instead: the remedy.
    """
    gpu = backend.gpu
    if turns < KNOWN or not gpu.is_software:
        return
    if gpu.counts_on is None:
        gpu.counts_on = _counts_on(backend)
    if not gpu.counts_on:
        raise LimitError(
            f"{what}: this driver ({gpu.name}) silently ends loops after {KNOWN:,} iterations, and "
            f"{turns:,} are needed; {instead}, or install Mesa 25 or later"
        )


def _counts_on(backend: ArrayBackend) -> bool:
    """Whether a loop counts beyond the limit."""
    gpu: Gpu = backend.gpu
    counted = backend.allocate((1,), int32)
    pipeline = gpu.pipeline("turns", lambda: Program("turns", _COUNT, "w", "I"))
    gpu.dispatch(pipeline, (counted,), (_ASKED,), 1)
    return int(gpu.read(counted)[0]) == _ASKED
