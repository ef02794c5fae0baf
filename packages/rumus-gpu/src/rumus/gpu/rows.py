"""Row kernels: softmax and its relatives along the last axis, one dispatch each.

The names and arguments are those that `rumus.tensor.softmaxes` asks a backend for. Several narrow
rows share a workgroup; a wide one has it for itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from rumus.gpu.array import GPUArray
from rumus.gpu.copying import contiguous, copy_strided
from rumus.gpu.device import Gpu
from rumus.gpu.indexing import check_index
from rumus.gpu.memory import Storage
from rumus.gpu.pipelines import Program
from rumus.gpu.shaders import prelude, shader
from rumus.gpu.storage import Stored

# Name -> how each argument is bound: the floating inputs X and Y, the targets, the outputs.
ROW_KERNELS: Final[Mapping[str, str]] = {
    "softmax": "Xo",
    "softmax_gradient": "XYo",
    "log_softmax": "Xo",
    "log_softmax_gradient": "XYo",
    "cross_entropy": "Xtoo",
    "cross_entropy_gradient": "XtYo",
}
_LANES: Final = ((8, 4), (64, 16), (512, 64))  # (columns, lanes): up to that many columns


def shared_rows(columns: int) -> tuple[int, int]:
    """Return how many invocations take a row of so many columns, and the rows of a workgroup."""
    lanes = next((lanes for limit, lanes in _LANES if columns <= limit), 256)
    return lanes, max(1, 64 // lanes)


def run_rows(gpu: Gpu, name: str, *arrays: GPUArray) -> None:
    """Run a row kernel; the arguments are those of `rumus.tensor`'s row kernel of this name.

    IndexError for a target out of range, before anything is written.
    """
    roles = ROW_KERNELS[name]
    rows, columns = _extent(arrays[0])
    if "t" in roles:
        check_index(gpu, arrays[1], columns)
    if arrays[0].size == 0:
        return
    written = {a.storage for a, role in zip(arrays, roles, strict=True) if role == "o"}
    bound = [_bindable(a, role, written) for a, role in zip(arrays, roles, strict=True)]
    lanes, per_group = shared_rows(columns)
    types = tuple(a.stored for a in bound)
    key = (name, *(stored.name for stored in types), lanes)
    pipeline = gpu.pipeline(key, partial(row_program, name, types, lanes, per_group))
    starts = [array.rest for array in bound] + [0] * (4 - len(bound))
    gpu.dispatch(pipeline, bound, (rows, columns, *starts), -(-rows // per_group))
    for array, used in zip(arrays, bound, strict=True):
        if used is not array and array.storage in written:
            copy_strided(gpu, used, array)


def _extent(array: GPUArray) -> tuple[int, int]:
    columns = array.shape[-1]
    return (array.size // columns if columns else 0), columns


def _bindable(array: GPUArray, role: str, written: set[Storage]) -> GPUArray:
    """The array itself, a contiguous copy, or for an output memory to be copied from."""
    if role == "o":
        fits = array.is_contiguous
        return array if fits else array.backend.allocate(array.shape, array.dtype)
    if array.storage in written:
        apart = array.backend.allocate(array.shape, array.dtype)
        copy_strided(array.backend.gpu, array, apart)
        return apart
    return array if array.is_contiguous else contiguous(array)


def row_program(name: str, types: tuple[Stored, ...], lanes: int, rows: int) -> Program:
    """Return the WGSL of a row kernel for `lanes` invocations a row and `rows` rows a workgroup."""
    roles = ROW_KERNELS[name]
    by_role = dict(zip(roles, types, strict=True))
    out = by_role["o"]
    names = {"X": "X", "Y": "Y", "o": "Out"}
    aliases = [f"alias {names[r]} = {s.wgsl};" for r, s in by_role.items() if r in names]
    store = out.store("x", 1)
    body = shader("row_sum") + "\n" + shader("rows") + shader(name)
    half = "enable f16;\n" if any(stored.wgsl == "f16" for stored in types) else ""
    text = (
        f"{half}const LANES = {lanes}u;\nconst ROWS = {rows}u;\n" + "\n".join(aliases) + "\n"
        f"fn stored(x: f32) -> Out {{\n    return {store};\n}}\n{prelude(body + store)}\n{body}"
    )
    access = "".join("w" if role == "o" else "r" for role in roles)
    return Program(name, text, access, "IIIIII", 4 * lanes * rows)
