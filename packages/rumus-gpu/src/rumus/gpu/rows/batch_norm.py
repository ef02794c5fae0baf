"""Batch norm over channels: two dispatches forward, two backward.

Names and arguments are those of `rumus.tensor.operations.batch_norm`; everything is float32. The
first dispatch sums over chunks of each channel. In the second, each workgroup adds up the chunks
itself and writes its elements. The split into chunks depends only on the shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from rumus.gpu.device.array import GPUArray, Shape
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.shaders import constants, shader
from rumus.gpu.elementwise.copying import contiguous
from rumus.tensor import float32
from rumus.tensor.memory.fused import FusedName

WORKGROUP: Final = 256
GROUPS: Final = 2048  # workgroups that a large GPU runs at once, roughly
STEPS: Final = 2  # minimum steps per invocation
NARROW: Final = 16  # places; with fewer, a workgroup takes adjacent channels
NEIGHBORS: Final = 32

# Program -> the access to each of its arrays, and the file that it shares with another program.
_PROGRAMS: Final[Mapping[str, tuple[str, str]]] = {
    "batch_norm_moments": ("rw", "channel_moments"),
    "batch_norm": ("rrrrwww", "channel_moments"),
    "batch_norm_sums": ("rrrrw", "channel_sums"),
    "batch_norm_gradient": ("rrrrwww", "channel_sums"),
}


@dataclass(frozen=True, slots=True)
class Cut:
    """How [batch, channels, places] is divided among workgroups.

    wide: channels per workgroup. step: elements read at a time. chunk: elements of one channel in
    one workgroup.
    """

    count: int
    channels: int
    places: int
    wide: int
    step: int
    chunk: int

    @property
    def chunks(self) -> int:
        """The chunks of a channel."""
        return -(-self.count // self.chunk)

    @property
    def groups(self) -> int:
        """The workgroups."""
        return -(-self.channels // self.wide) * self.chunks


def cut_of(shape: Shape) -> Cut:
    """Return how an array (batch, channels, ...) is divided."""
    channels, places = shape[1], math.prod(shape[2:])
    count = shape[0] * places
    wide = NEIGHBORS if places < NARROW else 1
    step = 1 if places % 4 or wide > 1 else 4
    grain = WORKGROUP // wide * step  # elements that the lanes of a channel take at a time
    blocks = -(-channels // wide)
    wanted = max(1, min(GROUPS // blocks, count // (grain * STEPS)))
    chunk = -(-count // (wanted * grain)) * grain
    return Cut(count, channels, places, wide, step, chunk)


def batch_norm(
    gpu: Gpu, x: GPUArray, weight: GPUArray | None, bias: GPUArray | None, out: GPUArray,
    total: GPUArray, squares: GPUArray, eps: float,
) -> None:  # fmt: skip
    """Normalize the channels of `x` into `out`; write their sums to `total` and `squares`."""
    x, cut = contiguous(x), cut_of(x.shape)
    moments = x.backend.allocate((cut.channels, cut.chunks, 4), float32)
    _dispatch(gpu, "batch_norm_moments", cut, {}, (x, moments), eps)
    scale, shift = (x if row is None else contiguous(row) for row in (weight, bias))
    flags = {"WEIGHTED": weight is not None}
    _dispatch(gpu, "batch_norm", cut, flags, (x, scale, shift, moments, out, total, squares), eps)


def batch_norm_gradient(
    gpu: Gpu, x: GPUArray, weight: GPUArray | None, total: GPUArray, squares: GPUArray,
    gradient: GPUArray, into: GPUArray | None, into_weight: GPUArray | None,
    into_bias: GPUArray | None, eps: float,
) -> None:  # fmt: skip
    """Write the requested gradients: of x, of the weight, of the bias."""
    x, gradient, cut = contiguous(x), contiguous(gradient), cut_of(x.shape)
    sums = x.backend.allocate((cut.channels, cut.chunks, 4), float32)
    _dispatch(gpu, "batch_norm_sums", cut, {}, (x, total, squares, gradient, sums), eps)
    flags = {"WEIGHTED": weight is not None, "WRITES_ROWS": into is not None}
    scale = x if weight is None else contiguous(weight)
    # Gradients that nobody requested must be bound as well.
    targets = [
        x.backend.allocate((cut.channels,), float32) if target is None else target
        for target in (into, into_weight, into_bias)
    ]
    bound = (x, scale, gradient, sums, *targets)
    _dispatch(gpu, "batch_norm_gradient", cut, flags, bound, eps)


BATCH_NORM: Final[Mapping[FusedName, Callable[..., None]]] = {
    "batch_norm": batch_norm,
    "batch_norm_gradient": batch_norm_gradient,
}


def _dispatch(
    gpu: Gpu, name: str, cut: Cut, flags: Mapping[str, bool], bound: Sequence[GPUArray], eps: float
) -> None:
    key = (name, cut.wide, cut.step, *flags.values())
    pipeline = gpu.pipeline(key, partial(batch_norm_program, name, cut.wide, cut.step, flags))
    values = (cut.count, cut.channels, cut.places, cut.chunks, cut.chunk, eps)
    gpu.dispatch(pipeline, bound, values, cut.groups)


def batch_norm_program(name: str, wide: int, step: int, flags: Mapping[str, bool]) -> Program:
    """Return the WGSL of one of the four kernels; wide and step: see `Cut`."""
    access, shared = _PROGRAMS[name]
    value, sum_ = ("f32", "value") if step == 1 else ("vec4<f32>", "dot(value, vec4<f32>(1.0))")
    text = (
        constants(**flags, LANES=WORKGROUP // wide, WIDE=wide, STEP=step)
        + f"alias Value = {value};\nfn added(value: Value) -> f32 {{\n    return {sum_};\n}}\n"
        + shader("channels") + shader(shared) + shader(name)
    )  # fmt: skip
    return Program(name, text, access, "IIIIIf", 16 * WORKGROUP)
