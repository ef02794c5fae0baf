"""Adds up the partial results of several workgroups, in one dispatch."""

from __future__ import annotations

from functools import partial
from typing import Final

from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.shaders import prelude, shader
from rumus.gpu.device.stored import Stored, enabling

ELEMENTS: Final = 16  # per workgroup of add_parts.wgsl
WORKGROUP: Final = 256


def add_parts(gpu: Gpu, parts: GPUArray, out: GPUArray) -> None:
    """out = the sum of float32 `parts` over the first axis, whose length decides the order.

    Both are contiguous and not empty; `parts` starts at the start of a binding.
    """
    pipeline = gpu.pipeline(("add_parts", out.stored.name), partial(parts_program, out.stored))
    values = (out.size, parts.shape[0], out.rest)
    gpu.dispatch(pipeline, (parts, out), values, -(-out.size // ELEMENTS))


def parts_program(out: Stored) -> Program:
    """Return the WGSL that writes sums as one dtype."""
    writer = out.writer()
    text = f"{enabling(out)}alias Result = {out.wgsl};\n{prelude(writer)}{writer}"
    text += shader("add_parts")
    return Program("add_parts", text, "rw", "III", 4 * WORKGROUP)
