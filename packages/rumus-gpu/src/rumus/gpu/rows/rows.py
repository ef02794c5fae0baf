"""Row kernels: softmax and its relatives along the last axis, one dispatch each.

Names and arguments are those of `rumus.tensor.graph.softmaxes`. Several narrow rows share a
workgroup; a wide row has one to itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.array_backend import ArrayBackend
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.memory import Storage
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.shaders import constants, prelude, shader
from rumus.gpu.device.stored import Stored, enabling, vector
from rumus.gpu.device.turns import check_turns
from rumus.gpu.elementwise.copying import copy_strided, dense
from rumus.gpu.rows.indexing import check_index
from rumus.tensor.memory.fused import FusedName

# Name -> the role of each argument. Read: floating-point inputs X and Y, targets t, statistics s.
# Written: an output o, float32 numbers n, or an input w, which is overwritten.
_ROLES: Final[Mapping[FusedName, str]] = {
    "softmax": "Xo",
    "softmax_gradient": "XYo",
    "log_softmax": "Xo",
    "log_softmax_gradient": "XYo",
    "cross_entropy": "Xtnn",
    "cross_entropy_gradient": "wtsY",
}
_ALIASES: Final = {"X": "X", "w": "X", "Y": "Y", "o": "Out"}
_NO_CLASS: Final = 2**32 - 1
_READS_LOGITS: Final = ("softmax", "log_softmax", "cross_entropy")
_LANES: Final = ((8, 4), (64, 16), (512, 64))  # (columns, lanes): up to that many columns


def shared_rows(columns: int) -> tuple[int, int]:
    """Return the invocations that share a row of `columns`, and the rows of a workgroup."""
    lanes = next((lanes for limit, lanes in _LANES if columns <= limit), 256)
    return lanes, max(1, 64 // lanes)


def check_row(backend: ArrayBackend, what: str, columns: int, passes: int) -> None:
    """Raise LimitError if the driver would stop before the end of a row of `columns`.

    passes: how often the kernel walks the row.
    """
    turns = passes * -(-columns // shared_rows(columns)[0]) + 64
    check_turns(backend, f"{what} of a row of {columns:,}", turns, "use shorter rows or the CPU")


def run_rows(
    gpu: Gpu,
    name: FusedName,
    *arrays: GPUArray,
    smoothing: float = 0.0,
    ignored: int | None = None,
    weight: GPUArray | None = None,
    factor: float = 1.0,
) -> None:
    """Run a row kernel; the arguments are those of `rumus.tensor`'s row kernel of this name.

    Raises IndexError for a target out of range, before anything is written. With `ignored`, targets
    are not checked, and one out of range gives NaN. The gradient of the losses is multiplied by
    `factor`, and may be one number for all of them.
    """
    roles = _ROLES[name]
    rows, columns, places = _extent(name, arrays[0])
    if weight is not None:
        roles, arrays = f"{roles}s", (*arrays, weight)
    if "t" in roles and ignored is None:
        check_index(gpu, arrays[1], columns)
    if arrays[0].size == 0:
        return
    check_row(arrays[0].backend, name, columns, 4)
    written = {a.storage for a, role in zip(arrays, roles, strict=True) if role in "onw"}
    bound = [_bindable(a, role, written) for a, role in zip(arrays, roles, strict=True)]
    # One invocation per place, so that adjacent places are read together.
    is_beside = places >= 32 and columns <= 4096
    lanes, per_group = (1, 64) if is_beside else shared_rows(columns)
    # Whole vectors of four, wherever a row begins in them.
    width = 4 if name.startswith("cross_entropy") and places == 1 and columns >= 4 * lanes else 1
    types = tuple(a.stored for a in bound)
    key = (name, *(stored.name for stored in types), lanes, width)
    pipeline = gpu.pipeline(key, partial(row_program, name, types, lanes, per_group, width))
    starts = [array.rest for array in bound] + [0] * (5 - len(bound))
    left_out = _NO_CLASS if ignored is None else ignored % 2**32
    step = 0 if name == "cross_entropy_gradient" and arrays[3].size == 1 else 1
    values = (rows, columns, *starts[:4], smoothing, left_out, places, starts[4], step, factor)
    gpu.dispatch(pipeline, bound, values, -(-rows // per_group))
    for array, used in zip(arrays, bound, strict=True):
        if used is not array and array.storage in written:
            copy_strided(gpu, used, array)


def cross_entropy(
    gpu: Gpu,
    logits: GPUArray,
    index: GPUArray,
    out: GPUArray,
    statistics: GPUArray,
    smoothing: float = 0.0,
    ignored: int | None = None,
    weight: GPUArray | None = None,
) -> None:
    """Like `rumus.tensor`'s row kernel of this name."""
    given = logits, index, out, statistics
    run_rows(gpu, "cross_entropy", *given, smoothing=smoothing, ignored=ignored, weight=weight)


def cross_entropy_gradient(
    gpu: Gpu,
    logits: GPUArray,
    index: GPUArray,
    statistics: GPUArray,
    gradient: GPUArray,
    out: GPUArray,
    smoothing: float = 0.0,
    ignored: int | None = None,
    weight: GPUArray | None = None,
) -> None:
    """Like `rumus.tensor`'s row kernel of this name; `out` may be the logits themselves."""
    given = gradient, 1.0, out
    cross_entropy_spread(gpu, logits, index, statistics, *given, smoothing, ignored, weight)


def cross_entropy_spread(
    gpu: Gpu,
    logits: GPUArray,
    index: GPUArray,
    statistics: GPUArray,
    gradient: GPUArray,
    factor: float,
    out: GPUArray,
    smoothing: float = 0.0,
    ignored: int | None = None,
    weight: GPUArray | None = None,
) -> None:
    """`cross_entropy_gradient` where the gradient of all losses is one number times a factor."""
    if out is not logits:
        logits.backend.copy(logits, out)
    given = out, index, statistics, gradient
    name: FusedName = "cross_entropy_gradient"
    options = {"smoothing": smoothing, "factor": factor}
    run_rows(gpu, name, *given, ignored=ignored, weight=weight, **options)


def _runner(name: FusedName) -> Callable[..., None]:
    return lambda gpu, *arrays: run_rows(gpu, name, *arrays)


ROW_KERNELS: Final[Mapping[FusedName, Callable[..., None]]] = {
    **{name: _runner(name) for name in _ROLES},
    "cross_entropy": cross_entropy,
    "cross_entropy_gradient": cross_entropy_gradient,
    "cross_entropy_spread": cross_entropy_spread,
}


def _extent(name: FusedName, array: GPUArray) -> tuple[int, int, int]:
    """The number of rows, the columns of each, and the elements from one column to the next."""
    is_placed = name.startswith("cross_entropy") and array.ndim == 3
    columns, places = array.shape[1:] if is_placed else (array.shape[-1], 1)
    return (array.size // columns if columns else 0), columns, places


def _bindable(array: GPUArray, role: str, written: set[Storage]) -> GPUArray:
    """The array itself, a contiguous copy, or a temporary for an output."""
    if role in "on":
        fits = array.is_contiguous
        return array if fits else array.backend.allocate(array.shape, array.dtype)
    if role == "w":
        return dense(array)
    if array.storage in written:
        apart = array.backend.allocate(array.shape, array.dtype)
        copy_strided(array.backend.gpu, array, apart)
        return apart
    return dense(array)


def row_program(
    name: FusedName, types: tuple[Stored, ...], lanes: int, rows: int, width: int
) -> Program:
    """Return the WGSL of a row kernel: `lanes` invocations per row, `rows` rows per workgroup.

    width: 4 if logits are read, and their gradients written, in vectors of four; otherwise 1.
    """
    is_weighted = len(types) > len(_ROLES[name])
    roles = _ROLES[name] + ("s" if is_weighted else "")
    named = {_ALIASES[r]: s for r, s in zip(roles, types, strict=True) if r in _ALIASES}
    is_gradient = name == "cross_entropy_gradient"
    writer = named.get("Out", named["X"]).writer(4 if is_gradient else 1)
    body = shader("row_sum") + "\n" + shader("rows") + "\n"
    if name.startswith("cross_entropy"):
        body += _class_weight(is_weighted)
    if is_gradient or name in _READS_LOGITS:
        body += _fours(width, is_gradient)
    if name in _READS_LOGITS:
        body += shader("exponentials") + "\n"
    body += shader(name)
    aliases = "".join(f"alias {alias} = {stored.wgsl};\n" for alias, stored in named.items())
    sizes = constants(LANES=lanes, ROWS=rows)
    text = enabling(*types) + sizes + aliases + prelude(body + writer) + writer + body
    access = "".join("w" if role in "onw" else "r" for role in roles)
    return Program(name, text, access, "IIIIIIfIIIIf", 4 * lanes * rows)


def _fours(width: int, is_written: bool) -> str:
    """The WGSL of the logits x, and of their elements four at a time."""
    how, access = "beside" if width == 4 else "apart", "read_write" if is_written else "read"
    declared = f"@group(0) @binding(0) var<storage, {access}> x: array<{vector('X', width)}>;\n"
    write = shader(f"write_fours_{how}") if is_written else ""
    return f"{declared}{shader(f'fours_{how}')}\n{write}\n"


def _class_weight(is_weighted: bool) -> str:
    """The WGSL of the weight of a class."""
    declared = "@group(0) @binding(4) var<storage, read> weights: array<f32>;\n"
    weight = "weights[k.start4 + class_]" if is_weighted else "1.0"
    return (
        f"{declared if is_weighted else ''}{constants(IS_WEIGHTED=is_weighted)}"
        f"const STATISTICS = {3 if is_weighted else 2}u;\n"
        f"fn class_weight(class_: u32) -> f32 {{\n    return {weight};\n}}\n"
    )
