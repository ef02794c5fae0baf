"""Convolutions with one input channel per group: a few products per element, no matrix.

An invocation adds up the taps of one element. For the gradient of a weight, a workgroup takes one
channel of some images: each lane adds up all taps over its places, then one lane per tap adds up
the lanes. Taps are unrolled, except on software GPUs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Final, Literal, TypeAlias

from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.axes import two
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.shaders import constants, prelude, shader
from rumus.gpu.device.stored import Stored, enabling
from rumus.gpu.device.turns import check_turns
from rumus.gpu.products.parts import add_parts
from rumus.tensor import float32
from rumus.tensor.operations.convolution import Geometry

Name: TypeAlias = Literal["depthwise", "depthwise_input", "depthwise_weight"]

TAPS: Final = 49  # maximum taps, each with a sum in every lane, that are unrolled
SHARE: Final = 4  # outputs per input beyond which a matrix product is better
WORKGROUP: Final = 64
GROUPS: Final = 1024  # workgroups that keep a large device busy
LONGEST: Final = 1024  # maximum places that one lane adds up, unless one image has more
_SCALARS: Final = 16


def is_depthwise(geometry: Geometry) -> bool:
    """Return whether a convolution uses these kernels."""
    g = geometry
    is_own = 1 < g.groups == g.inputs and g.outputs <= SHARE * g.inputs
    return is_own and g.window.area <= TAPS


def depthwise(
    gpu: Gpu, geometry: Geometry, x: GPUArray, weight: GPUArray, bias: GPUArray | None,
    out: GPUArray,
) -> None:  # fmt: skip
    """out = the convolution of x; everything is contiguous, `out` in its own memory."""
    arrays = (x, weight, out) if bias is None else (x, weight, out, bias)
    start = 0 if bias is None else bias.rest
    _run(gpu, "depthwise", geometry, arrays, start, -(-out.size // WORKGROUP))


def depthwise_input(
    gpu: Gpu, geometry: Geometry, gradient: GPUArray, weight: GPUArray, out: GPUArray
) -> None:
    """out = the gradient of the input, in its own memory."""
    groups = -(-out.size // WORKGROUP)
    _run(gpu, "depthwise_input", geometry, (gradient, weight, out), 0, groups)


def depthwise_weight(
    gpu: Gpu, geometry: Geometry, x: GPUArray, gradient: GPUArray, out: GPUArray
) -> None:
    """out = the gradient of the weight, in its own memory."""
    g, batch = geometry, x.shape[0]
    images = -(-batch // max(1, min(batch, GROUPS // g.outputs)))
    places = math.prod(g.places)
    images = max(1, min(images, WORKGROUP * LONGEST // max(1, places)))
    parts = -(-batch // images)
    turns = -(-images * places // WORKGROUP) * (1 + g.window.area + g.window.kernel[0])
    what = f"the weight gradient of a convolution with {places:,} outputs per channel"
    check_turns(out.backend, what, turns, "use the CPU")
    target = out if parts == 1 else out.backend.allocate((parts, *out.shape), float32)
    _run(gpu, "depthwise_weight", g, (x, gradient, target), images, parts * g.outputs)
    if parts > 1:
        add_parts(gpu, target, out)


def _run(
    gpu: Gpu, name: Name, geometry: Geometry, arrays: tuple[GPUArray, ...], last: int, groups: int
) -> None:
    """Dispatch one kernel over (batch, channels, *places or *lengths)."""
    w = geometry.window
    kernel, stride = two(w.kernel, 1), two(w.stride, 1)
    x, out = arrays[0], arrays[2]
    unrolls = not gpu.is_software
    stored = tuple(array.stored for array in arrays)
    make = partial(depthwise_program, name, kernel, stride, stored, unrolls)
    pipeline = gpu.pipeline((name, kernel, stride, stored, unrolls), make)
    size = groups if name == "depthwise_weight" else out.size
    values = (
        size, x.shape[0], geometry.outputs, geometry.outputs // geometry.inputs,
        *two(geometry.lengths, 1), *two(geometry.places, 1), *two(w.padding, 0),
        *two(w.dilation, 1), *(array.rest for array in arrays[:3]), last,
    )  # fmt: skip
    gpu.dispatch(pipeline, arrays, values, groups)


def depthwise_program(
    name: Name,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    stored: tuple[Stored, ...],
    unrolls: bool,
) -> Program:
    """Return the WGSL of one of the three kernels. stored: of a, b, c, and of a bias if any."""
    area = math.prod(kernel)
    text = "\n".join([*_parts(name, kernel, stride, stored, unrolls), shader(name)])
    access = "rrwr" if len(stored) > 3 else "rrw"
    size = 4 * WORKGROUP * area if name == "depthwise_weight" else 0
    return Program(name, text, access, "I" * _SCALARS, size)


def _parts(
    name: Name,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    stored: tuple[Stored, ...],
    unrolls: bool,
) -> Iterator[str]:
    """The text before the kernel's."""
    yield enabling(*stored)
    yield shader("depthwise_scalars")
    yield constants(DOWN=kernel[0], RIGHT=kernel[1], AREA=math.prod(kernel))
    yield constants(STEP_DOWN=stride[0], STEP_RIGHT=stride[1])
    for number, each in enumerate(stored):
        mode = "read_write" if number == 2 else "read"
        letter = "abcd"[number]
        yield f"@group(0) @binding({number}) var<storage, {mode}> {letter}: array<{each.wgsl}>;"
        if number != 2:
            value = each.load(f"{letter}[index]", 1)
            yield f"fn load_{letter}(index: u32) -> f32 {{ return {value}; }}"
    if len(stored) < 4:
        yield "fn load_d(index: u32) -> f32 { return 0.0; }"
    yield prelude(writer := stored[2].writer())
    yield writer
    yield shader(f"{name}_tap")
    yield from _sums(name, kernel, unrolls)


def _sums(name: Name, kernel: tuple[int, int], unrolls: bool) -> Iterator[str]:
    """The functions that visit all taps, in a loop or unrolled."""
    pairs = [(str(i), str(j)) for i in range(kernel[0]) for j in range(kernel[1])]
    loops = "for (var i = 0u; i < DOWN; i++) { for (var j = 0u; j < RIGHT; j++) {", "} }"
    if name == "depthwise_weight":
        yield "fn add_taps(at: Place, g: f32, sums: ptr<function, array<f32, AREA>>) {"
        lines = [f"(*sums)[{i}u * RIGHT + {j}u] += g * tap(at, {i}u, {j}u);" for i, j in pairs]
        rolled = "(*sums)[i * RIGHT + j] += g * tap(at, i, j);"
    else:
        yield "fn taps(at: Place) -> f32 {\n    var sum = 0.0;"
        lines = [f"sum += tap(at, {i}u, {j}u);" for i, j in pairs]
        rolled = "sum += tap(at, i, j);"
    yield from lines if unrolls else (loops[0], rolled, loops[1])
    yield "}" if name == "depthwise_weight" else "    return sum;\n}"
    if name == "depthwise_weight":
        # Indexed by variables, the sums would not stay in registers.
        yield "fn keep(lane: u32, sums: ptr<function, array<f32, AREA>>) {"
        lines = [f"lanes[{n * WORKGROUP}u + lane] = (*sums)[{n}];" for n in range(len(pairs))]
        rolled = f"lanes[t * {WORKGROUP}u + lane] = (*sums)[t];"
        yield from lines if unrolls else ("for (var t = 0u; t < AREA; t++) {", rolled, "}")
        yield "}"
