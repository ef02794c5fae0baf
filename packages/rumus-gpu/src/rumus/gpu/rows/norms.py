"""Layer norm and RMS norm of rows, forward and backward.

Names and arguments are those of `rumus.tensor.operations.norms`. Arrays are all float32 or all
float16; statistics and sums are float32. The forward pass keeps the mean and scale of each row. The
gradients of weight and bias are summed in blocks of rows, then over the blocks, in an order that
depends only on the shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.shaders import constants, prelude, shader
from rumus.gpu.device.stored import Stored, enabling, vector
from rumus.gpu.elementwise.copying import contiguous
from rumus.gpu.rows.rows import check_row, shared_rows
from rumus.tensor import float32
from rumus.tensor.memory.fused import FusedName

BLOCK_ROWS: Final = 16  # minimum rows that one invocation adds up
BLOCKS: Final = 256  # maximum blocks of rows, unless they would be longer than LONGEST
LONGEST: Final = 256  # maximum rows that one invocation adds up
COLUMNS: Final = 64  # per workgroup of norm_weight_gradient.wgsl
TOTAL_LANES: Final = 32  # that share the blocks of one column in norm_weight_total.wgsl
TOTAL_COLUMNS: Final = 8  # per workgroup there


def run_norm(
    is_centered: bool,
    gpu: Gpu,
    x: GPUArray,
    weight: GPUArray | None,
    bias: GPUArray | None,
    out: GPUArray,
    statistics: GPUArray,
    eps: float,
) -> None:
    """Normalize the rows of `x` into `out`; write the mean and scale of each to `statistics`."""
    if x.size == 0:
        return
    rows, columns = _extent(x)
    width = _width(columns)
    lanes, per_group = shared_rows(columns // width)
    check_row(x.backend, "layer_norm" if is_centered else "rms_norm", columns, 3)
    x = contiguous(x)
    flags = {"CENTERED": is_centered, "WEIGHTED": weight is not None, "BIASED": bias is not None}
    # Unused inputs must be bound as well.
    inputs = [x, *(x if array is None else contiguous(array) for array in (weight, bias))]
    key = ("norm", *flags.values(), lanes, width, x.stored.name)
    make = partial(norm_program, "norm", flags, lanes, per_group, width, x.stored)
    bound = (*inputs, out, statistics)
    gpu.dispatch(gpu.pipeline(key, make), bound, (rows, columns, eps), -(-rows // per_group))


def run_norm_gradient(
    is_centered: bool,
    gpu: Gpu,
    x: GPUArray,
    weight: GPUArray | None,
    statistics: GPUArray,
    gradient: GPUArray,
    into: GPUArray | None,
    into_weight: GPUArray | None,
    into_bias: GPUArray | None,
    added: GPUArray | None = None,
) -> None:
    """Write the requested gradients: of the rows, of the weight, of the bias.

    Each is contiguous and in its own memory. `added` is added to that of the rows.
    """
    if x.size == 0:
        for array in (into_weight, into_bias):
            if array is not None:
                array.backend.fill(0, array)
        return
    x, gradient = contiguous(x), contiguous(gradient)
    if into is not None:
        _rows_gradient(is_centered, gpu, x, weight, statistics, gradient, into, added)
    if into_weight is not None or into_bias is not None:
        _weight_gradients(gpu, (x, statistics, gradient), into_weight, into_bias)


NORMS: Final[Mapping[FusedName, Callable[..., None]]] = {
    "layer_norm": partial(run_norm, True),
    "layer_norm_gradient": partial(run_norm_gradient, True),
    "rms_norm": partial(run_norm, False),
    "rms_norm_gradient": partial(run_norm_gradient, False),
}


def _extent(array: GPUArray) -> tuple[int, int]:
    return array.size // array.shape[-1], array.shape[-1]


def _width(columns: int) -> int:
    """The elements of a row that an invocation reads at a time."""
    return 1 if columns % 4 else 4


def _rows_gradient(
    is_centered: bool,
    gpu: Gpu,
    x: GPUArray,
    weight: GPUArray | None,
    statistics: GPUArray,
    gradient: GPUArray,
    into: GPUArray,
    added: GPUArray | None,
) -> None:
    rows, columns = _extent(x)
    width = _width(columns)
    lanes, per_group = shared_rows(columns // width)
    flags = {
        "CENTERED": is_centered, "WEIGHTED": weight is not None, "ADDING": added is not None
    }  # fmt: skip
    key = ("norm_gradient", *flags.values(), lanes, width, x.stored.name)
    make = partial(norm_program, "norm_gradient", flags, lanes, per_group, width, x.stored)
    scale = x if weight is None else contiguous(weight)
    other = x if added is None else contiguous(added)
    bound = (x, scale, statistics, gradient, other, into)
    gpu.dispatch(gpu.pipeline(key, make), bound, (rows, columns), -(-rows // per_group))


def _weight_gradients(
    gpu: Gpu,
    inputs: tuple[GPUArray, GPUArray, GPUArray],
    into_weight: GPUArray | None,
    into_bias: GPUArray | None,
) -> None:
    x = inputs[0]
    rows, columns = _extent(x)
    block_rows = max(BLOCK_ROWS, min(-(-rows // BLOCKS), LONGEST))
    blocks, column_groups = -(-rows // block_rows), -(-columns // COLUMNS)
    # Gradients that nobody requested must be bound as well.
    targets = [
        x.backend.allocate((columns,), x.dtype) if target is None else target
        for target in (into_weight, into_bias)
    ]
    sums = targets
    if blocks > 1:
        sums = [x.backend.allocate((blocks, columns), float32) for _ in targets]
    flags = {"BIASED": into_bias is not None}
    kinds = x.stored, sums[0].stored
    key = ("norm_weight_gradient", *flags.values(), *(kind.name for kind in kinds))
    make = partial(weight_program, flags, *kinds)
    pipeline = gpu.pipeline(key, make)
    values = (rows, columns, block_rows, column_groups)
    gpu.dispatch(pipeline, (*inputs, *sums), values, blocks * column_groups)
    if blocks > 1:
        key = ("norm_weight_total", *flags.values(), x.stored.name)
        pipeline = gpu.pipeline(key, partial(total_program, flags, x.stored))
        groups = -(-columns // TOTAL_COLUMNS)
        gpu.dispatch(pipeline, (*sums, *targets), (blocks, columns), groups)


def _types(element: Stored, written: Stored, width: int = 1) -> str:
    """The types that the kernels read and write, and the function that converts to the latter."""
    aliases = (("Element", element.wgsl), ("Sum", written.wgsl), ("Value", "f32"))
    declared = "".join(f"alias {name} = {vector(kind, width)};\n" for name, kind in aliases)
    writer = written.writer(width)
    return enabling(element, written) + declared + prelude(writer) + writer


def total_program(flags: Mapping[str, bool], written: Stored) -> Program:
    """Return the WGSL that adds up the blocks of rows of both gradients."""
    known = constants(**flags, LANES=TOTAL_LANES, COLUMNS=TOTAL_COLUMNS)
    text = _types(written, written) + known + shader("norm_weight_total")
    return Program("norm_weight_total", text, "rrww", "II", 8 * TOTAL_LANES * TOTAL_COLUMNS)


def weight_program(flags: Mapping[str, bool], element: Stored, written: Stored) -> Program:
    """Return the WGSL of both gradients' sums over the rows of each block."""
    text = _types(element, written) + constants(**flags) + shader("norm_weight_gradient")
    return Program("norm_weight_gradient", text, "rrrww", "IIII")


def norm_program(
    name: str, flags: Mapping[str, bool], lanes: int, rows: int, width: int, element: Stored
) -> Program:
    """Return the WGSL of the norm or of the rows' gradient.

    lanes: that share a row. rows: of a workgroup. width: elements that are read at a time.
    """
    sum_ = "value" if width == 1 else "dot(value, vec4<f32>(1.0))"
    added = f"fn added(value: Value) -> f32 {{\n    return {sum_};\n}}\n"
    known = constants(**flags, LANES=lanes, ROWS=rows, WIDTH=width)
    text = _types(element, element, width) + added + known + shader("row_sum") + shader(name)
    access, scalars = {"norm": ("rrrww", "IIf"), "norm_gradient": ("rrrrrw", "II")}[name]
    return Program(name, text, access, scalars, 4 * lanes * rows)
